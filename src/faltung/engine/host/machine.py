"""The machine as data: what a schedule needs to know, and nothing else.

Read from the host's own answers (its instruction sets, the sizes its caches report), never from its name; what is not
told has a default. ``FALTUNG_MACHINE`` chooses another description, so that all of them are tested on one machine:
"avx512", "avx2", "neon", "plain".
"""

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from faltung.engine.host.known import known
from faltung.errors import SettingError


@dataclass(frozen=True)
class Machine:
    """Vector registers and caches, in bytes."""

    name: str
    vector: int
    """Bytes of one vector register."""
    registers: int
    """Number of vector registers."""
    masks: bool
    """Are loads and stores of some lanes as fast as those of all?"""
    broadcast: bool
    """Can an arithmetic instruction take one number from memory for all lanes?"""
    fused: bool = True
    """Does one instruction multiply and add, rounded once?"""
    l1: int = 32 * 1024
    l2: int = 512 * 1024
    cpu: str = ""
    features: str = ""

    def __hash__(self) -> int:
        return hash((self.name, self.l2))  # quickly: plans of calls are found by it

    def lanes(self, size: int) -> int:
        """How many numbers of ``size`` bytes one register holds."""
        return self.vector // size


AVX512 = Machine("avx512", vector=64, registers=32, masks=True, broadcast=True)
AVX2 = Machine("avx2", vector=32, registers=16, masks=False, broadcast=False)
NEON = Machine("neon", vector=16, registers=32, masks=False, broadcast=False)
PLAIN = Machine("plain", vector=16, registers=16, masks=False, broadcast=False, fused=False)
MACHINES = {machine.name: machine for machine in (AVX512, AVX2, NEON, PLAIN)}

NEEDS = {
    "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"},
    "avx2": {"avx2", "fma"},
    "neon": {"neon"},
    "plain": set(),
}
"""The instruction sets that a description rests on."""


@lru_cache
def host(name: str | None = None) -> Machine:
    """The description of this machine, or another one (also by ``FALTUNG_MACHINE``) that this machine can run."""
    told = known()
    possible = [machine for machine in MACHINES.values() if NEEDS[machine.name] <= told.has]
    name = name or os.environ.get("FALTUNG_MACHINE") or possible[0].name
    if name not in (machine.name for machine in possible):
        raise SettingError(
            f"got the machine {name!r}, expected one of {', '.join(machine.name for machine in possible)}",
            way_out="unset FALTUNG_MACHINE",
        )
    machine = MACHINES[name]
    native = machine is possible[0]
    features = NEEDS[name] or told.has & {"sse4.1"}  # which rounds to whole numbers; else LLVM calls a library for that
    return replace(
        machine,
        l1=_cache(1, machine.l1),
        l2=_cache(2, machine.l2),
        cpu=told.cpu if native else "",
        features=told.features if native else ",".join(f"+{f}" for f in sorted(features)),
    )


def _cache(level: int, default: int) -> int:
    """Bytes of one core's data cache of this level, as Linux reports it."""
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            if (index / "level").read_text().strip() == str(level) and "nstruction" not in (index / "type").read_text():
                return int((index / "size").read_text().strip().removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return default
