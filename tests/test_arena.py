"""Memory that is lent again: nobody's numbers are overwritten, and not too much lies idle."""

import os
import signal
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
    size = arena._size(arena._number(count))
    assert count <= size <= max(arena.PAGE, 1.25 * count)
    assert arena._number(size) == arena._number(count)
    assert arena._size(arena._number(count) + 1) > size
    assert arena._size(arena._number(count) + 3) <= 2 * size


def test_sizes_that_differ_little_share_a_block_and_others_do_not():
    pool = Pool()
    pool.take_back(block := pool.lend(1 << 20))
    assert pool.lend(700_000) is block
    pool.take_back(block)
    assert pool.lend(400_000) is not block
    assert pool.lend((1 << 20) + 1) is not block


def test_no_more_lies_idle_than_was_once_lent_and_the_oldest_sizes_go_first():
    pool = Pool()
    small = [pool.lend(1 << 16) for _ in range(8)]
    for block in small:
        pool.take_back(block)
    assert (pool.lent_bytes, pool.idle_bytes, pool.most_bytes) == (0, 8 << 16, 8 << 16)
    large = [pool.lend(1 << 19) for _ in range(2)]
    assert pool.most_bytes == 2 << 19
    for block in large:
        pool.take_back(block)
    assert pool.idle_bytes == 2 << 19  # of the small ones, none is left
    assert [pool.lend(1 << 19) for _ in range(2)] == large[::-1]
    assert pool.lend(1 << 16) not in small


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300_000)), max_size=60))
def test_the_accounts_are_right_whatever_is_asked_and_returned(calls):
    pool, lent, most = Pool(), [], 0
    for returns, count in calls:
        if returns and lent:
            pool.take_back(lent.pop(count % len(lent)))
        elif not returns:
            block = pool.lend(count)
            assert block.size >= count
            assert block not in lent
            lent.append(block)
        most = max(most, sum(block.size for block in lent))
        idle = [block for blocks in pool._idle.values() for block in blocks]
        assert not set(map(id, idle)) & set(map(id, lent))
        assert pool.lent_bytes == sum(block.size for block in lent)
        assert pool.idle_bytes == sum(block.size for block in idle) <= pool.most_bytes == most


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
