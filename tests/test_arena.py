"""Memory that is lent again: nobody's numbers are overwritten, and not too much lies idle."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.engine.host import arena
from faltung.engine.host.arena import LINE, Pool


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4), (7, 1, 33), (1000, 1000)])
def test_an_array_is_as_asked_and_begins_a_cache_line(shape, dtype):
    x = arena.empty(shape, dtype)
    assert (x.shape, x.dtype) == (shape, np.dtype(dtype))
    assert x.ctypes.data % LINE == 0
    assert x.flags.c_contiguous
    assert x.flags.writeable
    x[...] = 1
    assert x.sum() == x.size


def test_the_address_of_an_array_is_that_of_its_first_number_whatever_it_is():
    x = np.zeros((3, 4, 5))
    frozen = np.frombuffer(bytes(64), np.uint8)
    for array in (x, x[1:, ::2, 3], x.T[2], np.empty((0, 7)), frozen, frozen[9:], np.broadcast_to(x[2, 3], (6, 5))):
        assert arena.address(array) == array.ctypes.data


@pytest.fixture
def fresh_pool(monkeypatch):
    monkeypatch.setattr(arena, "pool", Pool())


@pytest.mark.usefixtures("fresh_pool")
def test_the_memory_of_an_array_that_is_gone_is_lent_again():
    x = arena.empty((300, 1000), np.float32)
    place = x.ctypes.data
    del x
    assert arena.empty((300, 1000), np.float32).ctypes.data == place
    assert arena.empty((1000, 290), np.float32).ctypes.data == place
    assert arena.empty((150, 1000), np.float64).ctypes.data == place


@pytest.mark.usefixtures("fresh_pool")
def test_the_last_view_of_an_array_keeps_its_memory():
    x = arena.empty((50, 4000), np.float32)
    x[...] = 3
    place, views = x.ctypes.data, [x[10:20, ::2].T, x.ravel().reshape(-1, 10)[7], x.view(np.int32)[None]]
    del x
    while views:
        other = arena.empty((50, 4000), np.float32)
        assert other.ctypes.data != place
        other[...] = -1
        assert np.all(views.pop(0).view(np.float32) == 3)
    assert arena.empty((50, 4000), np.float32).ctypes.data == place


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1 << 40))
def test_a_size_wastes_at_most_a_quarter(count):
    size = arena.size(arena.number(count))
    assert count <= size <= max(arena.PAGE, 1.25 * count)
    assert arena.number(size) == arena.number(count)
    assert arena.size(arena.number(count) + 1) > size
    assert arena.size(arena.number(count) + 3) <= 2 * size


def bytes_of(pool: Pool, count: int) -> np.ndarray:
    """So many bytes of a pool."""
    dtype = np.dtype(np.uint8)
    array = pool.lend(dtype, 1, count)
    return pool.empty((count,), dtype) if array is None else array


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 26))
def test_machine_code_finds_the_same_size(count):
    pool = Pool()
    bytes_of(pool, count)
    assert pool.most_bytes == arena.size(arena.number(count))


@pytest.mark.parametrize(
    ("count", "shared"), [(1 << 20, True), (700_000, True), (400_000, False), ((1 << 20) + 1, False)]
)
def test_sizes_that_differ_little_share_a_block_and_others_do_not(count, shared):
    pool = Pool()
    place = bytes_of(pool, 1 << 20).ctypes.data
    assert (bytes_of(pool, count).ctypes.data == place) == shared


def test_the_whole_pool_is_at_most_twice_what_was_once_lent_and_the_oldest_sizes_go_first():
    pool, kilo = Pool(), 1 << 10

    def use(count: int, size: int) -> None:
        arrays = [bytes_of(pool, size * kilo) for _ in range(count)]
        del arrays

    use(4, 64)
    use(4, 32)
    use(2, 512)
    assert (pool.lent_bytes, pool.idle_bytes, pool.most_bytes) == (0, (256 + 128 + 1024) * kilo, 1024 * kilo)
    use(1, 1280)  # for which 128 too much would lie idle: two of the first go
    assert (pool.idle_bytes, pool.most_bytes) == (2 * 1280 * kilo, 1280 * kilo)
    use(2, 64)
    assert pool.idle_bytes == 2 * 1280 * kilo
    use(3, 64)  # one is new, and those of 32 have waited longest
    assert pool.idle_bytes == (2 * 1280 + 64 - 2 * 32) * kilo


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300_000)), max_size=60))
def test_the_accounts_are_right_whatever_is_asked_and_returned(calls):
    pool, lent = Pool(), []
    for returns, count in calls:
        if returns and lent:
            lent.pop(count % len(lent))
        elif not returns:
            lent.append(bytes_of(pool, count))
            assert len(lent[-1]) == count
            assert not any(np.shares_memory(lent[-1], other) for other in lent[:-1])
        size = sum(arena.size(arena.number(len(array))) for array in lent)
        assert size <= pool.lent_bytes <= 2 * size
        assert pool.lent_bytes <= pool.most_bytes
        assert pool.idle_bytes + pool.lent_bytes <= 2 * pool.most_bytes
    lent.clear()
    assert pool.lent_bytes == 0


def test_where_there_is_no_pool_all_memory_is_fresh(monkeypatch):
    pool = Pool()
    pool.words = None
    monkeypatch.setattr(arena, "pool", pool)
    arrays = [arena.empty((3, 5), np.float32) for _ in range(20)]
    assert len({array.ctypes.data for array in arrays}) == 20
    assert all(array.ctypes.data % LINE == 0 for array in arrays)
    assert pool.most_bytes == 0


def test_an_array_may_outlive_all_modules():
    program = """
import sys, numpy, faltung
from faltung.engine.host import arena
keep = [arena.empty((10_000,), "f4") for _ in range(3)]
class Late:
    def __init__(self): self.arrays = [*keep, arena.empty((70_000,), "f8")]
    def __del__(self): self.arrays.clear()
sys.late = [Late()]; sys.late.append(sys.late)
numpy.late = Late(); faltung.late = keep; arena.late = Late()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, "rror" in done.stderr) == (0, False), done.stderr


def test_an_array_counts_references_rightly():
    shape, dtype, count = (50, 40), np.dtype([("a", np.int64)]), 1000
    arena.empty(shape, dtype)
    before = sys.getrefcount(dtype), sys.getrefcount(shape), sys.getrefcount(None)
    for _ in range(count):
        arena.empty(shape, dtype)
    arrays = [arena.empty(shape, dtype) for _ in range(count)]
    del arrays
    after = sys.getrefcount(dtype), sys.getrefcount(shape), sys.getrefcount(None)
    assert all(abs(new - old) < 100 for new, old in zip(after, before, strict=True))


def test_what_numpy_refuses_is_refused():
    dtype = np.dtype(np.uint8)
    arena.empty((1,), dtype)
    with pytest.raises(ValueError, match="dimensions"):
        arena.empty((1,) * 70, dtype)


def test_a_size_that_no_system_has_is_refused_and_nothing_is_lost():
    before = arena.pool.lent_bytes
    with pytest.raises(MemoryError):
        arena.empty((1 << 60,), np.uint8)
    assert arena.pool.lent_bytes == before


def test_threads_never_share_memory():
    def work(seed):
        rng, held = np.random.default_rng(seed), []
        for number in range(200):
            x = arena.empty((int(rng.integers(1, 40_000)),), np.int64)
            x[...] = seed << 32 | number
            held.append((x, seed << 32 | number))
            if len(held) > 5:
                array, value = held.pop(int(rng.integers(5)))
                assert np.all(array == value)
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))


def test_the_scratch_of_a_thread_grows_and_belongs_to_it_alone():
    first = arena.scratch(10)
    assert first.address % LINE == 0
    assert arena.scratch(1 << 16) is first
    large = arena.scratch(1 << 22)
    assert large.size >= 1 << 22
    assert arena.scratch(100) is large
    others = []
    thread = threading.Thread(target=lambda: others.append(arena.scratch(100)))
    thread.start()
    thread.join()
    assert others[0].address != large.address


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_child_of_a_fork_gets_memory_although_another_thread_was_using_the_pool():
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            arena.empty((100,), np.float32)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                arena.empty((1000,), np.float32)[...] = 1
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    finally:
        stop.set()
        thread.join()
