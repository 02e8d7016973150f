"""What a plan has chosen, in words and numbers: order, sizes, and the time of every call."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from faltung.engine.host.machine import host
from faltung.engine.host.recording import Buffer, Later, Place
from faltung.engine.kernels.speed import peak
from faltung.engine.loops.language import Function
from faltung.engine.loops.printer import text
from faltung.engine.programs.program import Call, Lists
from faltung.engine.programs.stages import Planned

REPEATS = 7
"""The best of so many runs counts."""


@dataclass(frozen=True)
class Row:
    """One call, on one thread."""

    job: int
    """The number of the job that it belongs to, from 1 on."""
    deep: bool
    """Is it done for a few examples at a time?"""
    node: str
    kernel: str
    examples: int
    tasks: int
    work: float
    """Operations, as many as multiply-adds take the time."""
    size: int
    """Bytes that it reads and writes."""
    predicted: float
    """Seconds, if every operation were a multiply-add at the peak."""
    measured: float


def rows(planned: Planned) -> list[Row]:
    """All calls of a plan in their order, each measured by itself on memory of its own."""
    found = []
    for number, job, calls, examples in _jobs(planned):
        for call in calls:
            launch = call.launch
            dtype = next((b.dtype for b in launch.writes if b.dtype.kind == "f"), np.dtype(np.float32))
            size = sum({b.address: b.size for b in (*launch.reads, *launch.writes)}.values())
            found.append(
                Row(
                    number, isinstance(job, Lists), launch.node, launch.function.name, examples,
                    launch.tasks, launch.work, size, launch.work / peak(dtype), _measured(call),
                )
            )  # fmt: skip
    return found


def summary(planned: Planned) -> dict[str, str]:
    """The sizes of a plan, by what they are."""
    here = host()
    facts = {"machine": f"{here.name}, {here.vector} byte vectors, L2 cache {_kilobytes(here.l2)}"}
    lists = next((job for job in planned.jobs if isinstance(job, Lists)), None)
    if lists is None:
        facts["order"] = "flat: one call after the other, whose tasks the workers share"
    else:
        facts["order"] = (
            f"deep: {lists.slices} slices of {lists.share} of {lists.examples} examples, {lists.together} at a time"
        )
        working = max((call.scratch for calls in lists.calls.values() for call in calls), default=0)
        facts["a worker's memory"] = f"{_kilobytes(working)} between calls, {working / here.l2:.0%} of the L2 cache"
    calls = [call for _, _, some, _ in _jobs(planned) for call in some]
    kernels = ("convolve", "winograd_gradient")
    fewer = dict.fromkeys(call.launch.node for call in calls if call.launch.function.name.startswith(kernels))
    if fewer:
        facts["fewer multiplications"] = ", ".join(fewer)
    settled = {b.address: b.size for call in calls for b in call.launch.reads if b.kind == "constant"}
    packed = planned.arrays.get(":shared", 0) + sum(settled.values())
    if packed:
        facts["packed weights and constants"] = _kilobytes(packed)
    for name, what in (
        (":sums", "sums of all slices"),
        (":left", "left for later stages"),
        (":area", "memory between calls"),
    ):
        if planned.arrays.get(name):
            facts[what] = _kilobytes(planned.arrays[name])
    return facts


def nodes(planned: Planned) -> list[str]:
    """The nodes that have kernels, in the order of their first calls."""
    found = (call.launch.node.split(" + ") for _, _, calls, _ in _jobs(planned) for call in calls)
    return list(dict.fromkeys(node for fused in found for node in fused))


def listing(planned: Planned, node: str) -> str:
    """The loops of all kernels of a node, as the loop language prints them; those that differ, once each."""
    functions: dict[str, Function] = {}
    for _, _, calls, _ in _jobs(planned):
        for call in calls:
            if node in call.launch.node.split(" + "):
                functions |= {text(f): f for f in call.launch.function.write()}
    return "\n".join(functions)


def _jobs(planned: Planned) -> Iterator[tuple[int, Any, list[Call], int]]:
    """Number, job, calls and examples of each job; of lists, the first one, which is for most examples."""
    for number, job in enumerate(planned.jobs, 1):
        if isinstance(job, Lists):
            yield number, job, list(job.calls[job.together]), job.together
        else:
            yield number, job, list(job), 1


def _measured(call: Call) -> float:
    """The seconds of one call on one thread, on numbers between 0 and 1."""
    launch, memory = call.launch, {}
    rng = np.random.default_rng(0)

    def address(buffer: Buffer) -> int:
        if buffer.kind == "constant":
            return buffer.address
        if buffer.address not in memory:
            dtype, count = buffer.dtype, -(-buffer.size // buffer.dtype.itemsize)
            memory[buffer.address] = rng.random(count).astype(dtype) if dtype.kind == "f" else np.zeros(count, dtype)
        return memory[buffer.address].ctypes.data

    scratch = np.zeros(launch.scratch + 64, np.uint8)
    numbers: list[Any] = []
    for argument in launch.arguments:
        if isinstance(argument, Place):
            numbers.append(address(argument.buffer) + argument.offset)
        else:
            numbers.append(0 if isinstance(argument, Later) else argument)

    def seconds() -> float:
        began = time.perf_counter()
        launch.function(*numbers, scratch.ctypes.data, 0, launch.tasks)
        return time.perf_counter() - began

    return min(seconds() for _ in range(REPEATS))


def _kilobytes(count: int) -> str:
    return f"{count / 1024:,.0f} KB"
