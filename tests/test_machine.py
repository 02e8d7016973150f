"""The machine as data."""

import dataclasses
import os
import subprocess
import sys

import llvmlite.binding as llvm
import pytest

from faltung.engine.host.known import known
from faltung.engine.host.machine import AVX2, AVX512, MACHINES, NEEDS, NEON, PLAIN, host
from faltung.errors import SettingError


def test_the_host_is_the_best_description_that_it_can_run(monkeypatch):
    monkeypatch.delenv("FALTUNG_MACHINE", raising=False)
    best = next(machine for machine in MACHINES.values() if NEEDS[machine.name] <= known().has)
    machine = host.__wrapped__()  # asks anew
    assert dataclasses.replace(machine, l1=best.l1, l2=best.l2, cpu="", features="") == best
    assert machine.cpu == llvm.get_host_cpu_name()
    assert machine.l1 >= 8 * 1024
    assert machine.l2 >= machine.l1


def test_every_machine_can_be_plain():
    machine = host("plain")
    assert (machine.vector, machine.fused, machine.cpu) == (16, False, "")
    assert "avx" not in machine.features


@pytest.mark.parametrize(
    ("machine", "singles", "doubles"), [(AVX512, 16, 8), (AVX2, 8, 4), (NEON, 4, 2), (PLAIN, 4, 2)]
)
def test_a_register_holds_so_many_numbers(machine, singles, doubles):
    assert (machine.lanes(4), machine.lanes(8)) == (singles, doubles)


def test_an_unknown_machine_is_refused():
    with pytest.raises(SettingError, match=r"got the machine 'sparc', expected one of .*plain; unset FALTUNG_MACHINE"):
        host("sparc")


def test_the_environment_chooses():
    program = "from faltung.engine.host.machine import host; print(host().name)"
    environment = {**os.environ, "FALTUNG_MACHINE": "plain"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "plain\n"
