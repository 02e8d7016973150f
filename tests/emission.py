"""What is emitted for machines, this one and others: kernels made as for another machine, and code for ARM.

On an x86 processor with fused multiply-adds the kernels of "neon" can be run, too: their text names no instructions,
so this machine executes them with its own; only speed differs.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import pytest

from faltung.engine.host import compile, emit, machine, recall, words
from faltung.engine.programs import ready
from faltung.errors import SettingError

Emitted = list[tuple[str, bytes]]


@contextmanager
def made_for(name: str) -> Iterator[Emitted]:
    """New kernels within, for this machine; yields the modules that are loaded, as LLVM's text and as objects.

    All are written anew, as none is told by its recipe: also those that an earlier run of the tests has left on disk.
    """
    emitted: Emitted = []
    object_code = compile.object_code

    def recorded(ir: str, machine: Any) -> bytes:
        emitted.append((ir, object_code(ir, machine)))
        return emitted[-1][1]

    def untold(value: Any) -> str:
        raise TypeError(value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FALTUNG_MACHINE", name)
        patch.setattr(recall, "told", untold)
        patch.setattr(compile, "object_code", recorded)
        if "neon" not in llvm.get_host_cpu_features():
            patch.setitem(machine.NEEDS, "neon", machine.NEEDS["avx2"])
        _forget()
        try:
            machine.host()
        except SettingError:
            pytest.skip(f"this machine is no {name}")
        yield emitted
    _forget()


def _forget() -> None:
    """Whatever the engine remembers."""
    ready.forget()
    for name, module in list(sys.modules.items()):
        if name.startswith("faltung.engine"):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def for_arm(ir: str) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """A module after our passes, and the target machine to emit it for ARM with."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple("aarch64-linux-gnu")
    except RuntimeError:
        pytest.skip("this LLVM does not know ARM")
    arm = target.create_target_machine(features="+neon", opt=2, reloc="pic", codemodel="small")
    return emit.optimised(f'target triple = "{target.triple}"\n{words.llvm(ir)}', arm), arm


SPILLS = {"x86": re.compile(r"mm\d+.*\(%rsp\)|\(%rsp\).*mm\d+"), "arm": re.compile(r"\b[ls]t[rp]u?r?\s+q.*\[sp\b")}
"""A vector register that is kept on the stack for a while, or one read from there."""


def spills(assembly: str, processor: str = "x86") -> tuple[int, int]:
    """How often a vector register is stored on the stack or loaded from there: in innermost loops, and elsewhere."""
    inner = outer = 0
    for block in re.split(r"^(?=[.\w$]+:)", assembly, flags=re.MULTILINE):
        label, _, lines = block.partition(":")
        count = len(SPILLS[processor].findall(lines))
        if re.search(rf"\s{re.escape(label)}\b", lines):  # a jump to its own beginning
            inner += count
        else:
            outer += count
    return inner, outer
