"""Do all sides compute the same? From the same parameters: the logits, and after three steps costs and parameters.

Differences are relative: of logits to the largest logit, of costs to the cost, and for each array of parameters of its
change by the three steps to the largest change of an entry. In float32 now and then a rectifier's input lies so near 0
that two sides see it on different sides of it, which moves a few arrays: so the middle one of the arrays must agree
closely, and the worst one roughly; what is computed wrongly moves its array by much more.
"""

import numpy as np

from .sides import OURS

STEPS = 3
TOLERANCES = {"logits": 1e-5, "costs": 1e-5, "changes, middle": 2e-3, "changes, worst": 5e-2}


def of_predictions(predictions):
    """By side, how far its logits are from ours."""
    logits = {side: prediction.logits() for side, prediction in predictions.items()}
    return {side: {"logits": _largest(logits[OURS], y)} for side, y in logits.items() if side != OURS}


def of_trainings(trainings, params):
    """By side, how far costs and parameters of the next three steps are from ours; all begin with these parameters."""
    costs = {side: [float(training.step()) for _ in range(STEPS)] for side, training in trainings.items()}
    changes = {
        side: {name: w - params[name] for name, w in training.parameters().items()}
        for side, training in trainings.items()
    }
    found = {}
    for side in trainings.keys() - {OURS}:
        arrays = [_largest(ours, changes[side][name]) for name, ours in changes[OURS].items()]
        found[side] = {
            "costs": max(abs(a - b) / a for a, b in zip(costs[OURS], costs[side], strict=True)),
            "changes, middle": float(np.median(arrays)),
            "changes, worst": float(np.max(arrays)),
        }
    return found


def refuse(work, batch, differences):
    """Raise where the sides do not compute the same."""
    for side, kinds in differences.items():
        for kind, difference in kinds.items():
            if not difference <= TOLERANCES[kind]:
                raise SystemExit(f"{work.network}, batch {batch}: {kind} of {side} differ by {difference:.1e}")


def _largest(ours, theirs):
    assert ours.shape == theirs.shape
    return float(np.max(abs(ours - theirs)) / np.max(abs(ours)))
