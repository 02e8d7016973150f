"""Machine code that is made when it is needed, not while a network is recorded.

A recording needs to know of kernels what they are called, what they take, and what they read and write; addresses are
for the program in the end. What fusion has replaced by then nobody asks for, and it is never compiled.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

from faltung.engine.host.compile import Code, Signature, described, side_by_side, types
from faltung.engine.host.machine import host
from faltung.engine.host.recording import recorder


class Module:
    """Functions that ``make`` compiles or loads.

    Where two threads ask at the same time, both do, and LLVM works once; what is made first stays for good, since
    somebody may know its addresses.
    ``source`` gives what LLVM is to compile; None where that was done before. ``make`` gets it, if it is written.
    """

    def __init__(self, make: Callable[[str | None], Code], source: Callable[[], str] | None):
        self._make, self._source = make, source
        self._text: str | None = None
        self._made: dict[str, Code] = {}

    @property
    def waits(self) -> bool:
        """Is it still to be compiled?"""
        return not self._made and self._source is not None

    def text(self) -> str:
        """What LLVM is to compile; it is kept until that is done."""
        self._text = self._text or (self._source() if self._source else "")
        return self._text

    def code(self) -> Code:
        """The machine code."""
        if not self._made:
            self._made.setdefault("code", self._make(self._text))  # which no other thread can interrupt
            self._text = None
        return self._made["code"]


class Promised:
    """A function of a module; beside what stands here, it is described as those of ``compile`` are."""

    def __init__(self, module: Module, name: str, argtypes: tuple[Any, ...]):
        self.argtypes = argtypes
        self.module, self._name = module, name

    @property
    def made(self) -> Callable[..., None]:
        """The function itself."""
        return self.module.code().functions[self._name]

    def __call__(self, *arguments: Any) -> None:
        self.made(*arguments)


def keep(functions: Iterable[Any], others: Mapping[str, Callable[[], Any]], threads: int) -> None:
    """Make what was promised: what must be compiled, by so many threads, and in the same go ``others``, which says what
    loads each text."""
    promises = dict.fromkeys(function.module for function in functions if isinstance(function, Promised))
    if modules := [module for module in promises if module.waits]:
        with side_by_side(chain((module.text() for module in modules), others), host(), threads):
            for load in (*(module.code for module in modules), *others.values()):
                load()


def promised(
    make: Callable[[str | None], Code],
    known: list[Signature],
    write: Callable[[], Any],
    source: Callable[[], str] | None = None,
) -> Code:
    """What ``make`` gives, of which so much is known; made later while this thread records, else now."""
    if recorder() is None:
        return make(None)
    module = Module(make, source)
    functions = {name: Promised(module, name, tuple(arguments)) for name, *arguments in types(known)}
    return described(Code(functions), known, write)
