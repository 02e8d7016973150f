"""The lines of a function in LLVM's language, block after block."""


class Blocks:
    """Lines as they come. Every value is made once, and has a number for a name."""

    def __init__(self):
        self.lines: list[str] = []
        self.slots: list[str] = []
        """Lines that make room on the stack, before all others."""
        self.open = True
        """Does the last block go on?"""
        self._count = 0

    def line(self, line: str) -> None:
        """What gives no value."""
        self.lines.append(f"  {line}")

    def done(self, line: str) -> str:
        """What gives no value, where one is asked for."""
        self.line(line)
        return "0"

    def made(self, line: str) -> str:
        """The name of what a line gives."""
        self._count += 1
        self.line(f"%v{self._count} = {line}")
        return f"%v{self._count}"

    def slot(self, kind: str) -> str:
        """The place of room for this on the stack."""
        self._count += 1
        self.slots.append(f"  %v{self._count} = alloca {kind}")
        return f"%v{self._count}"

    def labels(self, *names: str) -> list[str]:
        """New blocks, which do not begin yet."""
        self._count += 1
        return [f"{name}.{self._count}" for name in names]

    def begin(self, label: str) -> None:
        """The lines of this block come next."""
        self.lines.append(f"{label}:")
        self.open = True

    def end(self, line: str) -> None:
        """The last line of a block."""
        self.line(line)
        self.open = False

    def jump(self, label: str) -> None:
        """To a block, unless this one has ended."""
        if self.open:
            self.end(f"br label %{label}")

    def fork(self, bit: str, yes: str, no: str) -> None:
        """To one of two blocks."""
        self.end(f"br i1 {bit}, label %{yes}, label %{no}")
