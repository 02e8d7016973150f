"""Random inputs for any network: numbers from 0 to 1, and where indices are read, indices."""

from collections.abc import Mapping

import numpy as np

from faltung.elements.element import Array
from faltung.elements.embedding import Embedding
from faltung.network import Network


def random_inputs(
    network: Network, sizes: Mapping[str, tuple[int, ...]], examples: int, random: np.random.Generator
) -> dict[str, Array]:
    """An array for each input, of these sizes.

    >>> from faltung.network import Chain
    >>> letters = Chain(rows=Embedding(3, 2)).on((None,))
    >>> random_inputs(letters, {"x": (4,)}, 2, np.random.default_rng(0))["x"].tolist()
    [[2, 1, 1, 0], [0, 0, 0, 0]]
    """
    inputs = {}
    for name, shape in sizes.items():
        readers = [step.element for step in network.steps if name in step.sources]
        counts = [reader.count for reader in readers if isinstance(reader, Embedding)]
        size = (examples, *shape)
        inputs[name] = random.integers(min(counts), size=size) if counts else random.uniform(size=size)
    return inputs
