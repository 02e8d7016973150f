"""Sizes along one axis: output and transposed output, padding, multiplications.

Sizes come from here and from nowhere else; no other file writes ``// stride + 1``. There are no arrays here. Axes do
not influence each other: an element over several axes has one ``Window`` an axis. Letters, as in the guide: i (size),
k (kernel), s (stride), d (dilation), p (padding), o (output), k^ (span, the effective kernel), and i', o' transposed.

Source: Dumoulin & Visin, A guide to convolution arithmetic; ``faltung.arithmetic`` has its relationships by number.

>>> window = Window(kernel=3, stride=2, padding=1)
>>> window.output(5), window.output(6)  # two sizes with one output: the way back has two answers
(3, 3)
>>> window.transposed_output(3), window.transposed_output(3, output_padding=1)
(5, 6)
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from faltung.errors import SettingError, ShapeError

Padding: TypeAlias = str | int | tuple[int, int]
"""``valid``, ``same``, ``full``, ``causal``, as many zeros at both ends, or (before, after)."""
PerAxis: TypeAlias = int | tuple[int, ...]
"""A setting of an element: one int for all axes, or a tuple with one an axis."""
Paddings: TypeAlias = Padding | tuple[str | tuple[int, int], ...]
"""The padding of an element: one for all axes, or a tuple with a name or a pair an axis."""

NAMES = ("valid", "same", "full", "causal")


@dataclass(frozen=True)
class Window:
    """One axis of a convolution or pooling: output t reads the inputs t*stride - before + j*dilation, j < kernel.

    The padding puts ``before`` zeros before the axis and ``after`` zeros after it:

        valid    none
        same     as many as make the output ceil(size / stride) long; the odd one goes after
        full     k^ - 1 at both ends: every position at which the kernel touches the input
        causal   k^ - 1 before: output t reads no input beyond t*stride
        p        p at both ends
        (b, a)   b before, a after

    Raises: SettingError where a setting is no int or too small, or the padding is unknown.
    Source: guide, section 2; the slides' ``same`` (half) padding, with the usual rule where there is a stride.

    >>> Window(kernel=3, dilation=2).output(7)
    3
    >>> same = Window(kernel=3, stride=2, padding="same")
    >>> same.output(6), same.pads(6), same.output(5), same.pads(5)
    (3, (0, 1), 3, (1, 1))
    """

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    padding: Padding = "valid"

    def __post_init__(self) -> None:
        for name in ("kernel", "stride", "dilation"):
            value = getattr(self, name)
            if not whole(value, least=1):
                one = "use one for all axes, or a tuple with one an axis"
                way_out = "make one Window an axis" if isinstance(value, tuple) else one
                raise SettingError(f"got {name}={value!r}, expected a plain int >= 1", way_out=way_out)
        ends = self.padding if isinstance(self.padding, tuple) else (self.padding, self.padding)
        named = isinstance(self.padding, str) and self.padding in NAMES
        if not named and not (len(ends) == 2 and all(whole(end, least=0) for end in ends)):
            raise SettingError(
                f"got padding={self.padding!r}, expected {', '.join(NAMES)}, a plain int >= 0 or (before, after)",
                way_out="use padding='valid' to do without",
            )

    @property
    def span(self) -> int:
        """The effective kernel k^ = k + (k-1)(d-1): from its first entry to its last, both counted."""
        return self.kernel + (self.kernel - 1) * (self.dilation - 1)

    def pads(self, size: int) -> tuple[int, int]:
        """Return the zeros (before, after) an axis of this size; only ``same`` with a stride looks at the size."""
        match self.padding:
            case "same":
                last = (size - 1) // self.stride * self.stride  # the last of ceil(i / s) windows starts here
                total = max(last + self.span - size, 0)
                return total // 2, total - total // 2
            case "full":
                return self.span - 1, self.span - 1
            case "causal":
                return self.span - 1, 0
            case int(both):
                return both, both
            case (int(before), int(after)):
                return before, after
        return 0, 0  # valid

    def output(self, size: int | None, axis: int | None = None, element: object = None) -> int | None:
        """Return o = floor((i + before + after - k^) / s) + 1, the size of the output; open (None) stays open.

        Raises: ShapeError where the axis is empty, or where the kernel spans more than the padded axis.
        Source: guide, relationships 1 to 7 and 15.
        """
        if size is None:
            return None
        _not_empty(size, axis, element)
        before, after = self.pads(size)
        padded = before + size + after
        if padded < self.span:
            raise ShapeError(
                f"the kernel spans {self.span}, the padded input only {padded} "
                f"({size} + {before} + {after}){_on(axis)}",
                element=element,
                way_out=f"use padding >= {(self.span - size + 1) // 2} or a smaller kernel",
            )
        return (padded - self.span) // self.stride + 1

    def transposed_sizes(self, size: int) -> range:
        """Return all sizes whose output is ``size``: s(i'-1) + a + k^ - before - after for a = 0 .. s-1, in order.

        Where much is padded the first ones may be below 1; no axis is that short.

        >>> Window(kernel=3, stride=2, padding=1).transposed_sizes(3)
        range(5, 7)
        """
        if self.padding == "same":
            least = self.stride * (size - 1) + 1  # from ceil(o' / s) = i'
        else:
            least = self.stride * (size - 1) + self.span - sum(self.pads(size))
        return range(least, least + self.stride)

    def transposed_output(
        self, size: int | None, output_padding: int = 0, axis: int | None = None, element: object = None
    ) -> int | None:
        """Return o' = s(i'-1) + a + k^ - before - after, the size of an axis whose output is ``size``.

        There are s such sizes, and ``output_padding`` (a) chooses among them: 0 is the smallest. With ``same``
        it is size * stride, the largest; the others are asked for by their size, see ``output_padding``.

        Raises: SettingError where a is not in 0 .. s-1, or is not 0 with ``same``; ShapeError where o' < 1.
        Source: guide, relationships 8 to 14.
        """
        same = self.padding == "same"
        most = 0 if same else self.stride - 1
        if not whole(output_padding, least=0) or output_padding > most:
            raise SettingError(
                f"got output_padding={output_padding!r}{_on(axis)}, expected "
                + ("0, as padding is 'same'" if same else f"0 to {most}, less than the stride"),
                element=element,
                way_out="name the output's size instead, by size=",
            )
        place = self.stride - 1 if same else output_padding
        return None if size is None else self._long_enough(size, place, axis, element)

    def output_padding(self, size: int, wanted: int, axis: int | None = None, element: object = None) -> int:
        """Return the a for a transposed output ``wanted``: its place among ``transposed_sizes``, with ``same`` too.

        Raises: ShapeError, naming the sizes that are possible, where the output of ``wanted`` is not ``size``.
        Source: guide, relationship 14: a = (i + 2p - k) mod s.

        >>> Window(kernel=3, stride=2, padding=1).output_padding(3, wanted=6)
        1
        """
        sizes = self.transposed_sizes(size)
        most = self._long_enough(size, self.stride - 1, axis, element)
        least = max(sizes[0], 1)
        if not least <= wanted <= most:
            raise ShapeError(
                f"got size {wanted}{_on(axis)}, expected "
                + (f"size {most}" if least == most else f"sizes {least} to {most}")
                + f", whose convolution has size {size}",
                element=element,
                way_out="name one of these, or none",
            )
        return sizes.index(wanted)

    def _long_enough(self, size: int, place: int, axis: int | None, element: object) -> int:
        """Return the transposed size at this place; refuse one below 1."""
        _not_empty(size, axis, element)
        result = self.transposed_sizes(size)[place]
        if result < 1:
            before, after = self.pads(size)
            raise ShapeError(
                "the transposed output s*(i - 1) + a + span - before - after = "
                f"{self.stride}*({size} - 1) + {place} + {self.span} - {before} - {after} = {result}{_on(axis)}, "
                "expected at least 1",
                element=element,
                way_out="use less padding or a larger input",
            )
        return result

    def multiplications(self, size: int | None) -> int | None:
        """Return o * k, the entries that all outputs read, padding counted; None where the size is open.

        Those of several axes multiply.

        >>> Window(kernel=9).multiplications(28)
        180
        """
        output = self.output(size)
        return None if output is None else output * self.kernel


def per_axis(value: Any, rank: int, what: str, element: object = None) -> tuple[Any, ...]:
    """Return the setting for each of ``rank`` axes: a tuple as it is, anything else repeated.

    Raises: ShapeError where a tuple has not one entry an axis.

    >>> per_axis(3, 2, "kernel"), per_axis((3, 5), 2, "kernel")
    ((3, 3), (3, 5))
    """
    if not isinstance(value, tuple):
        return (value,) * rank
    if len(value) != rank:
        raise ShapeError(
            f"got {what}={value!r} for {len(value)} axes, expected one entry for each of {rank}",
            element=element,
            way_out=f"give {what} one entry an axis, or one for all",
        )
    return value


def windows(
    rank: int, kernel: PerAxis, stride: PerAxis, dilation: PerAxis, padding: Paddings, element: object = None
) -> tuple[Window, ...]:
    """Return one ``Window`` an axis, from the settings of an element.

    Two ints as padding are always (before, after), for all axes; what differs by axis is written with names and pairs.

    Raises: SettingError where a setting is of the wrong kind; ShapeError where a tuple has not one entry an axis.

    >>> [window.pads(9) for window in windows(2, 3, 1, 1, (2, 0))]
    [(2, 0), (2, 0)]
    >>> [window.pads(9) for window in windows(2, (3, 5), 1, 1, ("same", (2, 0)))]
    [(1, 1), (2, 0)]
    """
    paddings = per_axis(padding, rank, "padding", element) if _by_axis(padding, element) else (padding,) * rank
    others = [
        per_axis(value, rank, what, element)
        for what, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation))
    ]
    try:
        return tuple(Window(*axis) for axis in zip(*others, paddings, strict=True))
    except SettingError as error:
        error.element = element
        raise


def check_settings(
    element: object, kernel: PerAxis, stride: PerAxis, dilation: PerAxis, padding: Paddings
) -> int | None:
    """Return the number of axes that tuples among the settings fix, or None where none does.

    Raises: SettingError where the settings fit no input, whatever its number of axes.

    >>> print(check_settings(None, 3, 1, 1, "same"), check_settings(None, (3, 5), 2, 1, "valid"))
    None 2
    """
    settings: dict[str, Any] = {"kernel": kernel, "stride": stride, "dilation": dilation}
    if _by_axis(padding, element):
        settings["padding"] = padding
    ranks = {what: len(value) for what, value in settings.items() if isinstance(value, tuple)}
    if len(set(ranks.values())) > 1 or 0 in ranks.values():
        raise SettingError(
            f"got {', '.join(f'{what}={settings[what]!r}' for what in ranks)}, expected one entry an axis",
            element=element,
            way_out="make these tuples equally long, or use one setting for all axes",
        )
    rank = next(iter(ranks.values()), None)
    windows(rank or 1, kernel, stride, dilation, padding, element)
    return rank


def _by_axis(padding: Paddings, element: object) -> bool:
    """Tell a padding with one entry an axis from one for all axes."""
    if not isinstance(padding, tuple) or (len(padding) == 2 and all(isinstance(end, int) for end in padding)):
        return False
    if not all(isinstance(entry, (str, tuple)) for entry in padding):
        raise SettingError(
            f"got padding={padding!r}, expected a pair (before, after) for all axes, or a name or pair an axis",
            element=element,
            way_out="write pairs, as in ((1, 1), (2, 0))",
        )
    return True


def whole(value: object, least: int) -> bool:
    """Tell a plain int, one that can be written as JSON; True is none."""
    return type(value) is int and value >= least


def whole_per_axis(value: object, least: int) -> bool:
    """Tell a plain int for all axes, or a tuple with one an axis.

    >>> whole_per_axis(3, least=1), whole_per_axis((3, 5), least=1), whole_per_axis((3, 0), least=1)
    (True, True, False)
    """
    entries = value if isinstance(value, tuple) else (value,)
    return len(entries) > 0 and all(whole(entry, least) for entry in entries)


def _on(axis: int | None) -> str:
    return "" if axis is None else f" on axis {axis}"


def _not_empty(size: int, axis: int | None, element: object) -> None:
    if size < 1:
        raise ShapeError(
            f"got an axis of size {size}{_on(axis)}, expected at least 1",
            element=element,
            way_out="leave empty inputs out",
        )
