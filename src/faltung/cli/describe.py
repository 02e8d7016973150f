"""``faltung describe``: what is in a model file."""

import json
import math
from pathlib import Path

from faltung.exchange.modelfile import load_model
from faltung.models.wavenet import WaveNet


def describe(model: Path) -> None:
    """Print the network's table, its size, and what is known about how it was made."""
    network, params, about = load_model(model)
    count = sum(math.prod(parameter.shape) for parameter in network.parameters.values())
    dtypes = ", ".join({str(array.dtype) for array in params.values()})
    facts = {"file": f"{model}, {model.stat().st_size:,} bytes", "parameters": f"{count:,} {dtypes}"}
    facts |= {name: _text(value) for name, value in about.items() if value is not None}
    print(f"{network}\n")
    if "wavenet" in about:  # its settings, which are told by the dilations
        print(f"{WaveNet.load(model)}\n")
        del facts["wavenet"]
    width = max(map(len, facts))
    for name, text in facts.items():
        print(f"{name:{width}}  {text}")


def _text(value: object) -> str:
    """What JSON holds, as it is said; of rows, such as those of a history, the last one."""
    match value:
        case str():
            return value
        case [*_, dict() as row]:
            return ", ".join(f"{name} {_text(number)}" for name, number in row.items())
        case float():
            return f"{value:.6g}"
        case list():
            return ", ".join(map(str, value))
    return json.dumps(value)
