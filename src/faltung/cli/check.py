"""``faltung check``: whether the derivatives of a model are right, at its own parameters."""

from pathlib import Path

import numpy as np

from faltung.check import gradient_check
from faltung.cli.inputs import random_inputs
from faltung.elements.costs import CrossEntropy
from faltung.errors import NetworkError
from faltung.exchange.modelfile import load_model

EXAMPLES = 2
ENTRIES = 20
"""Of each parameter and of the input, chosen at random."""
SIDE = 20
"""What is taken for an axis of any size."""
BOUND = 1e-6
"""A wrong formula is off by far more; very small derivatives are off by a tenth of it, by rounding."""


def check(model: Path) -> bool:
    """Print how far formulas and difference quotients differ, on random examples in float64; whether they agree."""
    network, params, _ = load_model(model)
    if len(network.outputs) != 1:
        raise NetworkError(
            f"{model}: got {len(network.outputs)} outputs, expected one",
            way_out="use faltung.check.gradient_check in Python",
        )
    random = np.random.default_rng(0)
    sizes = {name: tuple(size or SIDE for size in shape) for name, shape in network.inputs.items()}
    x = random_inputs(network, sizes, EXAMPLES, random)
    y = network.predict(params, x)
    target = random.integers(y.shape[-1], size=y.shape[:-1])
    result = gradient_check(network, params, x, target, cost=CrossEntropy(), entries=ENTRIES)
    print(
        f"{model}: {EXAMPLES} random examples, {ENTRIES} entries of each array, float64, difference at most {BOUND:g}\n"
    )
    print(result)
    passed = result.passed(BOUND)
    print(f"\n{'PASS' if passed else 'FAIL'}")
    return passed
