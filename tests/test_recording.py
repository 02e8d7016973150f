"""What is recorded: launches, who reads and writes what, and what cannot be recorded."""

import numpy as np
import pytest

from faltung.elements import Conv, ReLU
from faltung.engine.host import arena, workers
from faltung.engine.host.recording import Later, NotRecordedError, Place, constant, recording
from faltung.engine.kernels.elementwise import code, elementwise
from faltung.engine.loops.effects import effects
from faltung.engine.loops.language import F32, INDEX, Function, pointer
from faltung.engine.lower.conv import conv_forward, conv_gradient
from faltung.engine.lower.pointwise import forward


def doubled(kind):
    return elementwise(kind, 1, lambda x: [x + x])


def test_a_launch_is_noted_and_not_done():
    with recording(sliced=False) as recorder:
        x = recorder.array((4, 5), np.float32, "input", "x")
        y = arena.empty((4, 5), np.float32)
        workers.launch(code(doubled, np.float32), x, y, 20, tasks=1, work=20)
    (launch,) = recorder.launches
    assert [buffer.name for buffer in launch.reads] == ["x"]
    assert launch.writes == (recorder.place(y).buffer,)
    assert launch.tasks == 1
    assert not y.flags.writeable


def test_a_view_is_a_place_within_its_array():
    with recording(sliced=False) as recorder:
        x = recorder.array((4, 5), np.float32, "input", "x")
    assert recorder.place(x[1:]) == Place(recorder.place(x).buffer, 20)


def test_recordings_can_be_nested_and_leave_nothing_behind():
    with recording(sliced=False) as outer:
        with recording(sliced=True) as inner:
            arena.empty((3,), np.float32)
        assert not inner.launches
        arena.empty((3,), np.float32)
    assert arena.empty((3,), np.float32).flags.writeable
    assert not outer.launches


def test_what_numpy_has_made_is_refused():
    with recording(sliced=False) as recorder:
        x = recorder.array((4, 5), np.float32, "input", "x")
        with pytest.raises(NotRecordedError, match=r"an array of float32 and shape \(4, 5\) that NumPy has made"):
            forward(ReLU(), {}, x + 1)


def test_numpy_cannot_write_recorded_memory():
    with recording(sliced=False), pytest.raises(ValueError, match="read-only"):
        arena.empty((3,), np.float32)[...] = 0


def test_an_address_without_its_array_is_refused():
    with recording(sliced=False) as recorder:
        x = recorder.array((4,), np.float32, "input", "x")
        with pytest.raises(NotRecordedError, match="an address without its array"):
            workers.launch(code(doubled, np.float32), x.ctypes.data, x, 4, tasks=1, work=4)


def test_constants_are_remembered_with_their_array():
    table = constant(np.arange(4, dtype=np.float32))
    with recording(sliced=False) as recorder:
        y = arena.empty((4,), np.float32)
        workers.launch(code(doubled, np.float32), table, y, 4, tasks=1, work=4)
    (read,) = recorder.launches[0].reads
    assert read.kind == "constant"
    assert read.array is table


def test_a_part_of_a_slice_adds_to_sums_that_are_finished_later():
    conv, shape = Conv(4, kernel=3), (2, 6, 6, 3)
    with recording(sliced=True) as recorder:
        x = recorder.array(shape, np.float32, "input", "x")
        dy = recorder.array((2, 4, 4, 4), np.float32, "input", "dy")
        params = {
            name: recorder.array(p.shape, np.float32, "parameter", name)
            for name, p in conv.parameters(shape[1:]).items()
        }
        conv_forward(conv, params, x)
        conv_gradient(conv, params, x, dy)
    adding = [launch for launch in recorder.launches if any(b.kind == "sums" for b in launch.writes)]
    finishing = [launch for launch in recorder.launches if any(b.kind == "sums" for b in launch.reads)]
    assert adding
    assert all(launch.tasks == 1 for launch in adding)
    assert [launch for launch in finishing if launch not in adding]


def test_later_numbers_are_functions_of_the_run():
    words = Later(lambda run: run["seed"])
    assert ((words >> 4) ^ (words & 15)).of({"seed": 0x53}) == 5 ^ 3


def test_effects_follow_places_through_calls_loops_and_branches():
    inner = Function("inner", x=pointer(F32), y=pointer(F32))
    x, y = inner.arguments
    inner.store(inner.load(x), y)
    f = Function("outer", a=pointer(F32), b=pointer(F32), c=pointer(F32), n=INDEX)
    a, b, c, n = f.arguments
    with f.loop("i", n) as i, f.where(i > 2):
        f.call(inner, f.at(a, i), f.at(b, i))
    f.store(f.load(c), c, 1)
    assert effects(f) == (frozenset({0, 2}), frozenset({1, 2}))
