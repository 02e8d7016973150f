"""Samples one by one: whether all sides expect the same, how many a second, and how ours grow with the network."""

import math
from dataclasses import replace
from functools import partial
from importlib import import_module

from ..networks.tables import table
from ..networks.timing import medians, rounds
from .bandwidth import TIMES, reading
from .in_faltung import Generation, initial
from .sides import SETTINGS
from .works import SPOKEN, examples

ONE, PAIR = "1 stream", "2 workers"
OURS = {ONE: {}, "bfloat16": {"bfloat16": True}, "8 streams": {"streams": 8}}
TWO = {
    PAIR: {"workers": 2},
    "2 workers, bfloat16": {"workers": 2, "bfloat16": True},
    "2 workers, 8 streams": {"workers": 2, "streams": 8},
}
"""Where there are two processors for them."""
PEERS = {
    "numpy": ("speaking_numpy", {}),
    "torch eager": ("speaking_torch", {"threads": 1}),
    "torch compile": ("speaking_torch", {"threads": 1, "compiled": True}),
}
if "torch compile" not in SETTINGS:
    del PEERS["torch compile"]
THREADS = {f"{name}, 2 threads": (module, how | {"threads": 2}) for name, (module, how) in PEERS.items() if how}
"""Of PyTorch, which else has one."""
STEPS, TOLERANCE = 200, 1e-4
"""Steps of a call, and by how much logits may differ, relative to the largest."""
LAYERS = (4, 8, 16, 32, 64)
DILATIONS = (1, 16, 256, 4096)


def generate(options):
    """Samples a second, beside peers that remember what each layer needs; the roof is how fast weights can be read."""
    rows = [_compared(name, options) for name in options.only or SPOKEN]
    sides = list(rows[0]["rates"])
    body = []
    for row in rows:
        rates = row["rates"]
        best, torch = (
            max((rates[side] for side in PEERS | THREADS if side in rates and side.startswith(name)), default=math.nan)
            for name in ("", "torch")
        )
        roof = row["roof"] / row["bytes"]
        shown = (f"{rates[side]:,.0f}" for side in sides)
        ours = max(rates[side] for side in (ONE, PAIR) if side in rates)
        body.append([row["work"], *shown, ours / best, ours / torch, f"{roof:,.0f}", rates[ONE] / roof])
    ratios = ["best of ours for one stream / best peer", "/ best PyTorch"]
    header = ["network", *sides, *ratios, "roof of one thread", f"{ONE} / roof"]
    return rows, table("Samples a second, of all streams; float32 but for bfloat16", header, body)


def growth(options):
    """The time of a sample against layers and dilation, in networks that are as nv otherwise."""
    base, rows, texts = SPOKEN["nv"], [], []
    for by, values in (("layers", LAYERS), ("dilation", DILATIONS)):
        calls = {}
        for value in values:
            dilations = (base.dilations * 4)[:value] if by == "layers" else (value,) * len(base.dilations)
            work = replace(base, dilations=dilations)
            calls[value] = partial(Generation(work, initial(work)).speak, STEPS)
        seconds = {value: time / STEPS for value, time in medians(rounds(calls, options.rounds)).items()}
        rows.append({"by": by, "seconds": seconds})
        texts.append(table(f"Microseconds a sample, by {by}", [by, "us"], [[k, 1e6 * v] for k, v in seconds.items()]))
    return rows, "\n".join(texts)


def _compared(name, options):
    """One network: all sides in turn, and reading as many bytes as its weights are."""
    work = SPOKEN[name]
    params = initial(work)
    known = PEERS | (THREADS if options.threads > 1 else {})
    wanted = {side: how for side, how in known.items() if side.split(",")[0] in (options.sides or PEERS)}
    peers = {side: _peer(*how)(work, params) for side, how in wanted.items()}
    codes = examples(1, 64)[0][0]
    law = Generation(work, params).logits(codes)
    for side, peer in peers.items():
        difference = abs(peer.logits(codes) - law).max() / abs(law).max()
        if not difference <= TOLERANCE:
            raise SystemExit(f"{name}: logits of {side} differ by {difference:.1e}")
    settings = OURS | (TWO if options.threads > 1 else {})
    ours = {side: Generation(work, params, **how) for side, how in settings.items()}
    size = ours[ONE].bytes
    calls = {side: partial(one.speak, STEPS) for side, one in (ours | peers).items()}
    times = medians(rounds(calls | {"reading": reading(size)}, options.rounds))
    roof = TIMES * size / times.pop("reading")
    rates = {side: settings.get(side, {}).get("streams", 1) * STEPS / seconds for side, seconds in times.items()}
    return {"work": name, "bytes": size, "rates": rates, "roof": roof}


def _peer(module, settings):
    make = import_module(f".{module}", __package__).Generation
    return lambda work, params: make(work, params, **settings)
