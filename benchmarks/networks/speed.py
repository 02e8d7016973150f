"""The time of training steps and of predictions; before that, whether all sides compute the same."""

from .equality import TOLERANCES, of_predictions, of_trainings, refuse
from .in_faltung import initial
from .sides import FROZEN, OURS, PREDICTORS, TRAINERS, prediction, training
from .tables import comparison, table
from .timing import medians, rounds
from .works import WORKS, examples


def check(options):
    """By how much the sides differ, for all networks; see ``equality``."""
    rows = []
    for name, work, batch in _works(options, lambda work: work.batches[:1]):
        params = initial(work)
        found = of_predictions(_predictions(options, work, batch, params))
        for side, kinds in of_trainings(_trainings(options, work, batch, params), params).items():
            found[side] = found[side] | kinds
        rows += [{"work": name, "batch": batch, "side": side, "differences": kinds} for side, kinds in found.items()]
    header = ["network", "batch", "", *(f"{kind} (at most {limit:.0e})" for kind, limit in TOLERANCES.items())]
    body = [
        [row["work"], row["batch"], row["side"]]
        + [f"{row['differences'][kind]:.1e}" if kind in row["differences"] else None for kind in TOLERANCES]
        for row in rows
    ]
    return rows, table("Relative differences from ours", header, body)


def train(options):
    """Steps of backpropagation and update on a batch that does not change; its conversion is not counted."""
    rows = []
    for name, work, batch in _works(options, lambda work: work.batches):
        params = initial(work)
        trainings = _trainings(options, work, batch, params)
        refuse(work, batch, of_trainings(trainings, params))
        rows.append(_timed(name, batch, {side: training.step for side, training in trainings.items()}, options.rounds))
    return rows, comparison("Training step, milliseconds", rows, "seconds", 1e3, OURS)


def predict(options):
    """Logits of a batch, in the mode and form that each side has for inference."""
    rows = []
    for name, work, batch in _works(options, lambda work: (1, 32)):
        predictions = _predictions(options, work, batch, initial(work))
        refuse(work, batch, of_predictions(predictions))
        rows.append(_timed(name, batch, predictions, options.rounds))
    return rows, comparison("Prediction, milliseconds", rows, "seconds", 1e3, OURS, FROZEN)


def _works(options, batches):
    for name in options.only or WORKS:
        for batch in options.batch or batches(WORKS[name]):
            yield name, WORKS[name], batch


def _trainings(options, work, batch, params):
    sides = [OURS, *(side for side in TRAINERS if side != OURS and side in (options.sides or TRAINERS))]
    return {side: training(side)(work, dict(params), *examples(work, batch)) for side in sides}


def _predictions(options, work, batch, params):
    peers = [side for side in PREDICTORS if side not in (OURS, FROZEN)]
    sides = [OURS, FROZEN, *(side for side in peers if side in (options.sides or peers))]
    return {side: prediction(side)(work, params, examples(work, batch)[0]) for side in sides}


def _timed(name, batch, calls, count):
    times = rounds(calls, count)
    return {"work": name, "batch": batch, "seconds": medians(times), "rounds": times}
