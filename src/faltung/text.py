"""Plain text for terminals and logs alike."""

from collections.abc import Collection, Iterable, Sequence


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = ()) -> str:
    """Columns under their heads, a line between; aligned to the right unless their number is in ``left``.

    >>> print(aligned(("class", "images"), [("cat", "5"), ("horse", "12")], left=(0,)))
    class  images
    -------------
    cat         5
    horse      12
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def percent(fraction: float) -> str:
    """A fraction of 1.

    >>> percent(0.8125)
    '81.25 %'
    """
    return f"{100 * fraction:.2f} %"
