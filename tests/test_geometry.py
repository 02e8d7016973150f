"""Sizes and receptive fields against enumeration: no check computes with the formula that it checks."""

import dataclasses
import itertools
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.errors import SettingError, ShapeError
from faltung.geometry import Window, check_settings, per_axis, windows
from faltung.receptive import Field, receptive_field

PADDINGS = ("valid", "same", "full", "causal", 0, 1, 3, (0, 1), (1, 0), (2, 5), (4, 0))
KERNELS, STRIDES, DILATIONS, SIZES = range(1, 6), range(1, 5), range(1, 4), range(1, 13)
GRID = [Window(*axis) for axis in itertools.product(KERNELS, STRIDES, DILATIONS, PADDINGS)]


def reads(window: Window, size: int) -> list[list[int]]:
    """What each output reads: every start at which all entries of the kernel lie on the padded axis."""
    before, after = window.pads(size)
    found = []
    for start in itertools.count(-before, window.stride):
        entries = [start + tap * window.dilation for tap in range(window.kernel)]
        if entries[-1] >= size + after:
            return found
        found.append(entries)
    raise AssertionError


# Sizes


def test_output_counts_the_positions_and_multiplications_the_entries_read():
    for window, size in itertools.product(GRID, SIZES):
        found = reads(window, size)
        if found:
            assert window.output(size) == len(found), (window, size)
            assert window.multiplications(size) == sum(map(len, found)), (window, size)
        else:
            with pytest.raises(ShapeError, match=f"the kernel spans {window.span}, the padded input only"):
                window.output(size)


@pytest.mark.parametrize(
    ("i", "k", "s", "p", "d", "o"),
    [
        (4, 3, 1, 0, 1, 2),
        (5, 3, 2, 1, 1, 3),
        (6, 3, 2, 1, 1, 3),
        (5, 3, 2, 0, 1, 2),
        (5, 4, 1, 2, 1, 6),
        (7, 3, 1, 0, 2, 3),
    ],
)
def test_the_cases_of_the_slides(i, k, s, p, d, o):
    window = Window(kernel=k, stride=s, dilation=d, padding=p)
    assert window.output(i) == o == len(reads(window, i))


def test_span_reaches_from_the_first_entry_to_the_last():
    assert Window(kernel=3, dilation=2).span == 5
    for window in GRID:
        entries = range(0, window.kernel * window.dilation, window.dilation)
        assert window.span == entries[-1] - entries[0] + 1


def test_same_pads_the_fewest_zeros_that_give_ceil_and_the_odd_one_goes_after():
    for window, size in itertools.product(GRID, SIZES):
        if window.padding != "same":
            continue
        wanted = len(range(0, size, window.stride))  # one window for every stride begun
        assert len(reads(window, size)) == wanted == window.output(size), (window, size)
        before, after = window.pads(size)
        assert after - before in (0, 1)
        if after > 0:
            one_fewer = dataclasses.replace(window, padding=(before, after - 1))
            assert len(reads(one_fewer, size)) < wanted, (window, size)


def test_full_visits_every_position_that_touches_the_input():
    for kernel, dilation, size in itertools.product(KERNELS, DILATIONS, SIZES):
        full = Window(kernel, dilation=dilation, padding="full")
        further = dataclasses.replace(full, padding=20)
        touching = [entries for entries in reads(further, size) if entries[-1] >= 0 and entries[0] < size]
        assert reads(full, size) == touching


def test_causal_reads_nothing_beyond_its_own_place():
    for kernel, stride, dilation, size in itertools.product(KERNELS, STRIDES, DILATIONS, SIZES):
        causal = Window(kernel, stride, dilation, "causal")
        assert [entries[-1] for entries in reads(causal, size)] == list(range(0, size, stride))


def test_open_sizes_stay_open():
    window = Window(kernel=3, stride=2, padding="same")
    assert window.output(None) is window.transposed_output(None) is window.multiplications(None) is None


def test_what_does_not_fit_shows_the_sum():
    message = (
        r"^Conv\(20, kernel=9\): the kernel spans 9, the padded input only 5 \(5 \+ 0 \+ 0\) on axis 0; "
        r"use padding >= 2 or a smaller kernel$"
    )
    with pytest.raises(ShapeError, match=message):
        Window(kernel=9).output(5, axis=0, element="Conv(20, kernel=9)")
    with pytest.raises(
        ShapeError, match=r"^the kernel spans 5, the padded input only 4 \(2 \+ 2 \+ 0\); use padding >= 2 "
    ):
        Window(kernel=3, dilation=2, padding=(2, 0)).output(2)


def test_the_padding_it_advises_is_the_least_that_fits():
    for kernel, stride, dilation, size in itertools.product((2, 3, 5, 8), STRIDES, DILATIONS, SIZES):
        window = Window(kernel, stride, dilation)
        least = next(p for p in itertools.count() if reads(dataclasses.replace(window, padding=p), size))
        if least > 0:
            with pytest.raises(ShapeError, match=f"; use padding >= {least} or a smaller kernel$"):
                window.output(size)


@pytest.mark.parametrize("size", [0, -1])
def test_empty_axes_are_refused(size):
    message = rf"^Pool: got an axis of size {size} on axis 1, expected at least 1; leave empty inputs out$"
    window = Window(kernel=2, padding="full")
    with pytest.raises(ShapeError, match=message):
        window.output(size, 1, "Pool")
    with pytest.raises(ShapeError, match=message):
        window.transposed_output(size, 0, 1, "Pool")
    with pytest.raises(ShapeError, match=message):
        window.output_padding(size, 1, 1, "Pool")


# The way back


def test_transposed_sizes_are_all_sizes_with_this_output_and_no_other():
    for window in GRID:
        outputs = {size: len(reads(window, size)) for size in range(1, 45)}
        for output in range(1, 7):
            wanted = [size for size, found in outputs.items() if found == output]
            assert [size for size in window.transposed_sizes(output) if size >= 1] == wanted, (window, output)


def test_convolution_and_back_and_forth_again():
    for window, size in itertools.product(GRID, SIZES):
        if not reads(window, size):
            continue
        output = window.output(size)
        assert output is not None
        extra = window.output_padding(output, wanted=size)
        assert extra in range(window.stride)
        assert window.transposed_sizes(output)[extra] == size
        back = window.transposed_output(output, 0 if window.padding == "same" else extra)
        assert back == (output * window.stride if window.padding == "same" else size), (window, size)
        assert window.output(back) == output


def test_output_padding_is_what_the_convolution_leaves_unread_at_the_end():
    for window, size in itertools.product(GRID, SIZES):
        found = reads(window, size)
        if found and window.padding != "same":
            unread = size + window.pads(size)[1] - 1 - found[-1][-1]
            assert window.output_padding(len(found), wanted=size) == unread, (window, size)


@pytest.mark.parametrize("wrong", [-1, 2, True, 1.0])
def test_output_padding_outside_the_stride_is_refused(wrong):
    message = (
        rf"^Up: got output_padding={wrong!r} on axis 0, expected 0 to 1, less than the stride; name the output's size"
    )
    with pytest.raises(SettingError, match=message):
        Window(kernel=3, stride=2).transposed_output(4, wrong, axis=0, element="Up")
    with pytest.raises(SettingError, match="expected 0 to 1"):
        Window(kernel=3, stride=2).transposed_output(None, wrong)


def test_same_takes_no_output_padding():
    message = r"^got output_padding=1, expected 0, as padding is 'same'; name the output's size instead, by size=$"
    with pytest.raises(SettingError, match=message):
        Window(kernel=3, stride=2, padding="same").transposed_output(4, 1)


def test_a_size_that_does_not_convolve_back_is_refused():
    window = Window(kernel=3, stride=2, padding=1)
    for wrong in (8, 11):
        message = (
            rf"^Up: got size {wrong} on axis 0, expected sizes 9 to 10, whose convolution has size 5; name one of these"
        )
        with pytest.raises(ShapeError, match=message):
            window.output_padding(5, wrong, axis=0, element="Up")
    with pytest.raises(ShapeError, match=r"^got size 8, expected size 7, whose convolution has size 5;"):
        Window(kernel=3).output_padding(5, 8)
    with pytest.raises(ShapeError, match=r"got size 7, expected sizes 9 to 12, whose"):
        Window(kernel=3, stride=4, padding="same").output_padding(3, 7)


def test_a_transposed_size_below_1_is_refused():
    window = Window(kernel=5, stride=2, padding="full")
    message = (
        r"^Up: the transposed output s\*\(i - 1\) \+ a \+ span - before - after = "
        r"2\*\(2 - 1\) \+ 1 \+ 5 - 4 - 4 = 0 on axis 1, expected at least 1; use less padding or a larger input$"
    )
    with pytest.raises(ShapeError, match=message):
        window.transposed_output(2, 1, 1, "Up")
    with pytest.raises(ShapeError, match=message):
        window.output_padding(2, wanted=1, axis=1, element="Up")
    assert list(window.transposed_sizes(3)) == [1, 2]
    with pytest.raises(ShapeError, match=r"got size 0, expected sizes 1 to 2, whose convolution has size 2;"):
        dataclasses.replace(window, stride=3).output_padding(2, wanted=0)


# Settings


@pytest.mark.parametrize("name", ["kernel", "stride", "dilation"])
@pytest.mark.parametrize("wrong", [0, -2, True, 2.0, "3", None, [3]])
def test_settings_that_are_no_positive_int_are_refused(name, wrong):
    with pytest.raises(SettingError) as caught:
        Window(**{name: wrong})
    way_out = "use one for all axes, or a tuple with one an axis"
    assert str(caught.value) == f"got {name}={wrong!r}, expected a plain int >= 1; {way_out}"


def test_one_window_is_one_axis():
    with pytest.raises(SettingError, match=r"got stride=\(2, 2\), expected a plain int >= 1; make one Window an axis$"):
        Window(stride=(2, 2))  # pyright: ignore[reportArgumentType] -- refusing it is what is tested


@pytest.mark.parametrize(
    "wrong", ["SAME", "", -1, True, 1.0, None, (1,), (1, 2, 3), (1, -1), (0, "same"), (True, 1), [1, 1]]
)
def test_unknown_padding_is_refused(wrong):
    with pytest.raises(SettingError) as caught:
        Window(padding=wrong)
    expected = "valid, same, full, causal, a plain int >= 0 or (before, after)"
    assert str(caught.value) == f"got padding={wrong!r}, expected {expected}; use padding='valid' to do without"


def test_windows_are_immutable_values():
    assert len({Window(3, 2, 1, (1, 2)), Window(kernel=3, stride=2, padding=(1, 2)), Window(3)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Window().kernel = 3  # pyright: ignore[reportAttributeAccessIssue] -- refusing it is what is tested


def test_a_setting_is_for_all_axes_or_one_an_axis():
    assert per_axis(3, 3, "kernel") == (3, 3, 3)
    assert per_axis((3, 4), 2, "kernel") == (3, 4)
    message = r"^Conv: got kernel=\(3, 4\) for 2 axes, expected one entry for each of 3; give kernel one"
    with pytest.raises(ShapeError, match=message):
        per_axis((3, 4), 3, "kernel", "Conv")


@pytest.mark.parametrize(
    ("padding", "pads"),
    [
        ("same", [(1, 1), (2, 2)]),
        (1, [(1, 1), (1, 1)]),
        ((1, 2), [(1, 2), (1, 2)]),
        (((1, 2), (0, 3)), [(1, 2), (0, 3)]),
        (("causal", "full"), [(2, 0), (4, 4)]),
        (("valid", (0, 3)), [(0, 0), (0, 3)]),
    ],
)
def test_padding_for_all_axes_or_one_an_axis(padding, pads):
    made = windows(2, (3, 5), 1, 1, padding)
    assert [window.pads(9) for window in made] == pads
    assert check_settings(None, (3, 5), 1, 1, padding) == 2


def test_windows_take_each_setting_to_its_axis():
    made = windows(3, (1, 2, 3), (4, 5, 6), (7, 8, 9), ((0, 1), "full", (2, 3)))
    assert made == (Window(1, 4, 7, (0, 1)), Window(2, 5, 8, "full"), Window(3, 6, 9, (2, 3)))
    assert windows(0, 3, 1, 1, "same") == ()


@pytest.mark.parametrize("padding", [(1,), (1, 2, 3), (1, "same"), ((1, 1), 2), (0.5, 1)])
def test_ints_for_single_axes_are_refused(padding):
    message = r"^Conv: got padding=\(.*expected a pair \(before, after\) for all axes, or a name or pair an axis;"
    with pytest.raises(SettingError, match=message):
        windows(3, 1, 1, 1, padding, "Conv")
    with pytest.raises(SettingError, match=message):
        check_settings("Conv", 1, 1, 1, padding)


def test_a_tuple_for_another_number_of_axes_is_refused():
    single: dict[str, Any] = {"kernel": 3, "stride": 1, "dilation": 1, "padding": 0}
    for setting in ({"kernel": (3, 3)}, {"stride": (1, 1)}, {"dilation": (1, 1)}, {"padding": ("same", "same")}):
        (name,) = setting
        message = (
            rf"^Conv: got {name}=\(.*\) for 2 axes, expected one entry for each of 1; give {name} one entry an axis"
        )
        with pytest.raises(ShapeError, match=message):
            windows(1, **(single | setting), element="Conv")


def test_check_settings_names_the_element_and_finds_the_number_of_axes():
    assert check_settings(None, 3, 2, 1, (1, 2)) is None
    assert check_settings(None, 3, (1, 2, 1), 1, (1, 2)) == 3
    assert check_settings(None, 3, 1, 1, ("same",)) == 1
    with pytest.raises(SettingError, match=r"^Conv: got stride=0, expected a plain int >= 1;"):
        check_settings("Conv", 3, (1, 0), 1, "valid")
    with pytest.raises(SettingError, match=r"^Conv: got padding=\(1, 2, 3\), expected valid, same,"):
        check_settings("Conv", 3, 1, 1, ("same", (1, 2, 3)))  # pyright: ignore[reportArgumentType] -- that is tested


def test_tuples_that_disagree_are_refused():
    message = (
        r"^Conv: got kernel=\(3, 3\), padding=\('same',\), expected one entry an axis; "
        r"make these tuples equally long, or use one setting for all axes$"
    )
    with pytest.raises(SettingError, match=message):
        check_settings("Conv", (3, 3), 1, 1, ("same",))
    with pytest.raises(SettingError, match=r"got stride=\(\), expected one entry an axis"):
        check_settings("Conv", 3, (), 1, "same")


# Receptive fields


@dataclasses.dataclass(frozen=True)
class Layer:
    """A window, the zeros before its axis, and whether it is used backwards."""

    window: Window
    size: int
    transposed: bool

    def below(self, unit: int) -> set[int]:
        """The units below that this unit reads, by trying all that might be."""
        before, _ = self.window.pads(self.size)
        s, taps = self.window.stride, [tap * self.window.dilation for tap in range(self.window.kernel)]
        if not self.transposed:
            return {unit * s - before + tap for tap in taps}
        near = range((unit + before - taps[-1]) // s - 1, (unit + before) // s + 2)
        return {other for other in near for tap in taps if other * s - before + tap == unit}


def seen(layers: list[Layer], unit: int) -> set[int]:
    """The inputs that the unit on top of the layers depends on."""
    units = {unit}
    for layer in reversed(layers):
        units = set().union(*(layer.below(each) for each in units))
    return units


def agrees(field: Field, unit: int, inputs: set[int]) -> bool:
    return field.of(unit) == (range(min(inputs), max(inputs) + 1) if inputs else range(0))


one_window = st.builds(Window, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.sampled_from(PADDINGS))


@st.composite
def chains(draw) -> tuple[list[Layer], Field]:
    """Layers that fit each other, and the field that ``Field`` finds for them."""
    size, layers, field = draw(st.integers(1, 20)), [], Field()
    for window, transposed in draw(st.lists(st.tuples(one_window, st.booleans()), max_size=4)):
        try:
            after = window.transposed_output(size) if transposed else window.output(size)
        except ShapeError:
            continue
        if transposed:
            after = draw(st.sampled_from([after, *(other for other in window.transposed_sizes(size) if other >= 1)]))
        assert after is not None
        convolved = after if transposed else size
        layers.append(Layer(window, convolved, transposed))
        field = field.through_transposed(window, after) if transposed else field.through(window, size)
        size = after
    return layers, field


@settings(max_examples=60, deadline=None)
@given(chains())
def test_fields_of_chains_hold_what_is_seen_and_no_more(chain):
    layers, field = chain
    everything = [seen(layers, unit) for unit in range(-2, 3 * len(field.phases))]
    for unit, inputs in enumerate(everything, start=-2):
        assert agrees(field, unit, inputs), unit
    assert field.size == max(max(inputs) - min(inputs) + 1 if inputs else 0 for inputs in everything)
    assert field.start == min(everything[2], default=None)
    jump = Fraction(1)
    for layer in layers:
        jump = jump / layer.window.stride if layer.transposed else jump * layer.window.stride
    assert field.jump == jump


def test_transposed_fields_of_every_wanted_size():
    for window, size in itertools.product(GRID, (1, 3)):
        for wanted in window.transposed_sizes(size):
            field = Field().through_transposed(window, wanted)
            layer = Layer(window, wanted, transposed=True)
            assert all(agrees(field, unit, layer.below(unit)) for unit in range(window.stride)), (window, wanted)
        default = Field().through_transposed(window, window.stride * size)
        assert Field().through_transposed(window) == default


def test_at_most_ceil_span_over_stride_inputs_reach_a_transposed_unit():
    for window in GRID:
        field = Field().through_transposed(window)
        starts_in_a_span = len(range(0, window.span, window.stride))
        assert field.size <= starts_in_a_span
        assert window.dilation > 1 or field.size == starts_in_a_span


@pytest.mark.parametrize(("blocks", "size"), [(1, 1024), (2, 2047), (3, 3070), (4, 4093), (5, 5116)])
def test_wavenet_sees_its_past(blocks, size):
    block = [Window(kernel=2, dilation=2**n, padding="causal") for n in range(10)]
    field = receptive_field(block * blocks)
    assert (field.size, field.jump, field.of(0)) == (size, 1, range(1 - size, 1))


@pytest.mark.parametrize(("padding", "start"), [("causal", -372), ("same", -186)])
def test_bytenet_sees_373_characters(padding, start):
    block = [Window(kernel=3, dilation=d, padding=padding) for d in (1, 2, 4, 8, 16)]
    field = receptive_field(block * 6)
    assert (field.size, field.jump, field.start) == (373, 1, start)


def test_chain_of_strides():
    field = receptive_field([Window(7, 2, padding=3), Window(3, 2, padding=1), Window(3, padding=1)])
    assert (field.size, field.jump, field.start) == (1 + 6 + 2 * 2 + 2 * 4, 4, -3 - 2 - 4)
    assert receptive_field([]) == Field()


def test_same_with_a_stride_starts_where_the_size_says():
    window = Window(kernel=4, stride=3, padding="same")
    assert [receptive_field([window, window], size).start for size in (9, 8, 4, 3)] == [0, -1, -1 - 3, -3]
    field = receptive_field([window, Window(kernel=3)])
    assert (field.size, field.jump, field.start, field.anchored) == (10, 3, None, False)
    assert field.of(2) == receptive_field([window, Window(kernel=3)], 9).of(2)  # as for a multiple of the stride
    shortcut = Field(step=3)
    assert field.join(shortcut).start is shortcut.join(field).start is None
    assert receptive_field([Window(kernel=4, padding="same")]).start == -1  # without a stride no size is asked for


def test_the_branches_of_a_residual_join():
    plain = Field()
    residual = plain.through(Window(3, padding="same")).through(Window(3, padding="same")).join(plain)
    assert (residual.size, residual.start) == (5, -2)
    far = Field(phases=(range(7, 9),))
    assert plain.join(far).of(1) == far.join(plain).of(1) == range(1, 10)


def test_down_and_up_joins_what_went_across():
    pool, conv, up = Window(2, 2), Window(3, padding=1), Window(2, 2)
    deep = Field().through(pool).through(conv).through_transposed(up)
    across = Field().through(Window(5, padding=2))
    joined = deep.join(across)
    assert across.join(deep) == joined
    layers = [Layer(pool, 8, False), Layer(conv, 4, False), Layer(up, 8, True)]
    for unit in range(8):
        assert agrees(joined, unit, seen(layers, unit) | seen([Layer(Window(5, padding=2), 8, False)], unit))
    assert joined.jump == across.jump == 1


def test_branches_that_drift_apart_do_not_join():
    message = r"^got branches whose fields jump by 2 and 1/3 inputs, expected equal jumps; give both branches"
    with pytest.raises(ShapeError, match=message):
        Field().through(Window(3, 2)).join(Field().through_transposed(Window(3, 3)))


def test_units_between_the_holes_of_a_dilated_kernel_see_nothing():
    field = Field().through_transposed(Window(kernel=2, stride=2, dilation=2, padding=1))
    assert [list(field.of(unit)) for unit in range(4)] == [[], [0, 1], [], [1, 2]]
    assert (field.size, field.start) == (2, None)
