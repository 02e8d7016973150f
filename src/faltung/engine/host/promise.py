"""Machine code that is made when it is needed, not while a network is recorded.

A recording needs to know of kernels what they are called, what they take, and what they read and write; addresses are
for the program in the end. What fusion has replaced by then nobody asks for, and it is never compiled.
"""

from collections.abc import Callable
from typing import Any

from faltung.engine.host.compile import Code, Signature, described, types
from faltung.engine.host.recording import recorder


class Module:
    """Functions that ``make`` compiles or loads. Where two threads ask at the same time, both do; LLVM works once."""

    def __init__(self, make: Callable[[], Code]):
        self._make = make
        self._code: Code | None = None

    def code(self) -> Code:
        """The machine code."""
        if self._code is None:
            self._code = self._make()
        return self._code


class Promised:
    """A function of a module; beside what stands here, it is described as those of ``compile`` are."""

    def __init__(self, module: Module, name: str, argtypes: tuple[Any, ...]):
        self.argtypes = argtypes
        self._module, self._name = module, name

    @property
    def made(self) -> Callable[..., None]:
        """The function itself."""
        return self._module.code().functions[self._name]

    def __call__(self, *arguments: Any) -> None:
        self.made(*arguments)


def promised(make: Callable[[], Code], known: list[Signature], write: Callable[[], Any]) -> Code:
    """What ``make`` gives, of which so much is known; made later while this thread records, else now."""
    if recorder() is None:
        return make()
    module = Module(make)
    functions = {name: Promised(module, name, tuple(arguments)) for name, *arguments in types(known)}
    return described(Code(functions), known, write)
