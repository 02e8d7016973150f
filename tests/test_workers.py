"""Workers: every task is done once, by whoever comes; nobody waits for one who does not; a fork begins anew."""

import ctypes
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.engine.host import arena, dispatch, processors, words, workers
from faltung.engine.host.compile import compile
from faltung.engine.host.dispatch import kernel
from faltung.engine.host.machine import host
from faltung.engine.loops.language import F32, F64, I32, I64, INDEX, Function, pointer
from faltung.errors import SettingError
from launching import LARGE, counting, scribbled


@pytest.fixture
def team(monkeypatch):
    """A team without workers yet."""
    team = workers._Team()
    monkeypatch.setattr(workers, "_team", team)
    yield team
    team.end()


# Tasks


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9))
def test_every_task_is_done_once(tasks, threads):
    done = np.zeros(tasks + 2, np.int64)
    workers.launch(counting(), done[1:].ctypes.data, tasks=tasks, work=LARGE, threads=threads)
    assert np.array_equal(done, [0, *[1] * tasks, 0])


def test_every_task_is_done_once_in_many_launches_one_after_the_other():
    done = np.zeros(17, np.int64)
    for _ in range(3000):
        workers.launch(counting(), done.ctypes.data, tasks=17, work=LARGE, threads=3)
    assert np.array_equal(done, np.full(17, 3000))


def test_arguments_of_every_kind_arrive():
    f = Function(
        "arrive", y=pointer(F64), a=F32, b=F64, c=I32, d=I64, e=INDEX, scratch=pointer(F64), first=INDEX, last=INDEX
    )
    y, a, b, c, d, e, *_ = f.arguments
    whole = (f.convert("widen", c, I64), d, f.convert("bits", e, I64))
    numbers = (f.convert("widen", a, F64), b, *(f.convert("to_float", number, F64) for number in whole))
    for n, number in enumerate(numbers):
        f.store(number, y, n)
    function = compile([f], {"arrive"}, host()).functions["arrive"]
    y = np.zeros(5)
    workers.launch(function, y.ctypes.data, 0.5, -1e300, -7, -(1 << 40), 1 << 41, tasks=1, work=0)
    assert y.tolist() == [0.5, -1e300, -7, -(1 << 40), 1 << 41]


def test_arguments_of_another_number_or_kind_are_refused():
    done = np.zeros(3, np.int64)
    with pytest.raises(struct.error, match="expected"):
        workers.launch(counting(), tasks=3, work=0)
    with pytest.raises(struct.error, match="integer"):
        workers.launch(counting(), 1.5, tasks=3, work=0)
    assert not done.any()


def test_places_are_arrays_and_bytes_behind_their_first_number():
    done = np.zeros(6, np.int64)
    workers.launch(counting(), done, tasks=3, work=0)
    workers.launch(counting(), (done, 16), tasks=4, work=0)
    assert done.tolist() == [1, 1, 2, 1, 1, 1]


def test_a_kernel_says_how_its_jobs_are_made():
    assert kernel(counting()) is kernel(counting())
    job = kernel(counting()).job(100, 7, (12345,))
    words = np.frombuffer(job, np.int64, 12)
    assert words[[0, 8, 9, 10, 11]].tolist() == [0, 100, 7, kernel(counting()).address, 12345]


@pytest.mark.parametrize(
    ("processor", "triple", "waiting"),
    [
        ("x86_64", "x86_64-unknown-linux-gnu", "pause"),
        ("aarch64", "aarch64-unknown-linux-gnu", "yield"),
        ("arm64", "arm64-apple-macosx", "yield"),
        ("riscv64", "riscv64-unknown-linux-gnu", ""),
    ],
)
def test_machine_code_for_other_processors_calls_no_library(processor, triple, waiting):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple(triple).create_target_machine(features="+a" if "riscv" in triple else "")
    except RuntimeError:
        pytest.skip(f"this LLVM does not know {triple}")
    module = llvm.parse_assembly(words.llvm(dispatch.text(processor)))
    module.verify()
    assembly = target.emit_assembly(module)
    assert waiting in assembly
    assert not [name for name in ("__atomic", "__sync", "__aarch64") if name in assembly]


# Scratch


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_everybody_has_a_scratch_of_their_own(threads, team):
    for size in (3, 10_000, 40, 200_000):
        assert scribbled(64, size, threads=threads)
    assert len(team.workers) == threads - 1


def test_a_worker_helps(team):
    size = 10_007
    own = arena.scratch(16 * (size + 1))
    mark = ctypes.c_int64.from_address(own.address + 8 * (size + 1) + 8 * size)  # of the worker's scratch, after ours
    mark.value = 0
    for _ in range(50):  # on a busy machine it may come too late
        assert scribbled(400, size, threads=2)
        if mark.value == 4321:
            break
    else:
        pytest.fail("in 50 launches of some milliseconds no worker came")


# How many


def test_little_work_starts_no_thread(team):
    done = np.zeros(100, np.int64)
    workers.launch(counting(), done.ctypes.data, tasks=100, work=0, threads=8)
    workers.launch(counting(), done.ctypes.data, tasks=100, work=workers.WAKING - 1, threads=8)
    workers.launch(counting(), done.ctypes.data, tasks=1, work=LARGE, threads=8)
    workers.launch(counting(), done.ctypes.data, tasks=0, work=LARGE, threads=8)
    workers.launch(counting(), done.ctypes.data, tasks=100, work=LARGE, threads=1)
    assert team.workers == []


def test_the_environment_tells_how_many_threads_work(team, monkeypatch):
    done = np.zeros(100, np.int64)
    for threads, started in ((1, 0), (3, 2), (2, 2), (8, 7)):
        monkeypatch.setenv("FALTUNG_THREADS", str(threads))
        assert workers.count() == threads
        workers.launch(counting(), done.ctypes.data, tasks=100, work=LARGE)
        assert len(team.workers) == started
    assert np.array_equal(done, np.full(100, 4))
    monkeypatch.delenv("FALTUNG_THREADS")
    assert workers.count() == processors.usable() >= 1


@pytest.mark.parametrize("asked", ["", "0", "-1", "two", "1.5", "٣x"])
def test_a_number_of_threads_that_is_none_is_refused(asked, monkeypatch):
    monkeypatch.setenv("FALTUNG_THREADS", asked)
    with pytest.raises(
        SettingError, match=rf"got FALTUNG_THREADS='{asked}', expected a whole number of at least 1; unset FALTUNG_"
    ):
        workers.count()


def test_where_the_system_gives_no_more_threads_those_that_exist_do_the_work(team, monkeypatch):
    start = threading.Thread.start

    def refuse(thread):
        if len(team.workers) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2):
        assert scribbled(50, 100, threads=6)
        assert len(team.workers) == 2


# Where they run

affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")


@pytest.fixture
def place():
    """The processor of this thread, on which it stays for now."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield max(before)
    os.sched_setaffinity(0, before)


@affinity
def test_a_worker_leaves_its_post_when_jobs_come_from_its_own_processor(place):
    post = workers._words()
    post[workers.PATIENCE], post[workers.OTHER] = 1 << 40, place
    dispatch.help(post.ctypes.data)
    assert post[workers.CROWDED] == 1
    post[workers.PATIENCE] = 1000  # and does not leave again for the same job
    dispatch.help(post.ctypes.data)
    assert post[workers.CROWDED] == 0


@affinity
def test_whoever_shares_a_job_says_where(place, team):
    assert scribbled(64, 1000, threads=2)
    assert team.workers[0].post[workers.OTHER] in (place, -1)


@affinity
def test_a_thread_leaves_its_processor_for_another_one():
    allowed, found = os.sched_getaffinity(0), []

    def move():
        here = ctypes.CDLL(None).sched_getcpu()
        processors.leave()
        found.extend([here, ctypes.CDLL(None).sched_getcpu(), os.sched_getaffinity(0)])

    for _ in range(20):
        found.clear()
        thread = threading.Thread(target=move)
        thread.start()
        thread.join()
        if found[0] != found[1]:
            break
    assert (found[0] != found[1]) == (len(allowed) > 1)
    assert found[2] == allowed


@affinity
def test_a_thread_with_one_processor_stays(place):
    processors.leave()
    assert os.sched_getaffinity(0) == {place}


@affinity
@pytest.mark.skipif(hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_a_worker_that_sleeps_is_woken_elsewhere_and_is_free_again(team, monkeypatch):
    kept = []

    def keep_off(thread):
        before, home = os.sched_getaffinity(thread), keep(thread)
        kept.append((before, home, os.sched_getaffinity(thread)))
        return home

    keep = processors.keep_off
    monkeypatch.setattr(processors, "keep_off", keep_off)
    team.call(1)
    [worker] = team.workers
    for _ in range(3):
        deadline = time.monotonic() + 10
        while not worker._sleeps or not worker._calls.empty():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        worker.wake()
        while worker._sleeps and time.monotonic() < deadline:
            time.sleep(0.001)
        while os.sched_getaffinity(worker._thread.native_id) != kept[-1][0]:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert len(kept) == 3
    for before, home, meanwhile in kept:
        assert home == before == os.sched_getaffinity(0)
        assert len(meanwhile) == len(before) - 1


@affinity
def test_a_thread_with_one_processor_is_kept_off_none(place):
    assert processors.keep_off(threading.get_native_id()) == set()
    assert os.sched_getaffinity(0) == {place}


# Others at the same time


def test_python_threads_may_launch_at_the_same_time(team):
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda n: scribbled(30 + n % 7, 300 + n, threads=3), range(200)))


def test_a_team_that_is_busy_is_not_waited_for(team):
    team.busy[0] = 1
    assert scribbled(50, 100, threads=4)
    team.busy[0] = 0
    assert scribbled(50, 100, threads=4)
    assert len(team.workers) == 3


def run_python(code, **environment):
    """What the code prints, in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


LAUNCHING = """
import numpy as np, sys, threading, time
from launching import scribbled
assert scribbled(64, 1000, threads=3)
"""


@pytest.mark.parametrize(
    "end", ["", "time.sleep(0.05)", "sys.exit()", "import atexit; atexit.register(scribbled, 64, 1000, threads=4)"]
)
def test_python_ends_while_workers_are_awake_or_asleep(end):
    run_python(f"{LAUNCHING}\n{end}")


def test_python_ends_while_another_thread_launches():
    run_python(
        f"""{LAUNCHING}
def forever():
    while True:
        scribbled(64, 1000, threads=3)
threading.Thread(target=forever, daemon=True).start()
time.sleep(0.05)
"""
    )


fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_the_child_of_a_fork_has_workers_of_its_own(team):
    assert scribbled(64, 1000, threads=3)
    team.busy[0] = 1
    with team._lock:  # as if other threads launched and started workers just now
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            right = all(scribbled(64, 1000, threads=3) for _ in range(20)) and len(workers._team.workers) == 2
            os._exit(7 if right else 8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    team.busy[0] = 0
    assert scribbled(64, 1000, threads=3)
    assert len(team.workers) == 2


@fork
def test_an_interrupt_leaves_the_workers_ready(team):
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals arrive in the main thread only")
    interrupted = 0
    for _ in range(20):
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.002)
            while True:
                scribbled(64, 1000, threads=3)
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            signal.signal(signal.SIGALRM, before)
        assert scribbled(64, 1000, threads=3)
        assert not team.busy.any()
    assert interrupted == 20


# Processors


def groups(root, lines, **files):
    """Control groups as Linux shows them, below this folder."""
    for name, content in {"proc/self/cgroup": lines, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "900000 100000\n", "a/cpu.max": "300000 100000\n", "cpu.max": "1 1"}, 1),
        ("0::/elsewhere\n", {"cpu.max": "400000 100000\n"}, 4),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ("4:cpu:/a\n0::/\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, None),
        ("4:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("4:cpu:/host/a\n", {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 1),
    ],
)
def test_the_quota_of_a_container_is_rounded_up(lines, files, expected, tmp_path):
    root = groups(tmp_path, lines, **{f"sys/fs/cgroup/{name}": content for name, content in files.items()})
    assert processors.quota(root) == expected


def test_a_system_without_control_groups_has_no_quota(tmp_path):
    assert processors.quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 6), (2, 2), (9, 6)])
def test_as_many_processors_are_used_as_are_allowed_and_paid_for(quota, expected, monkeypatch):
    monkeypatch.setattr(processors, "_allowed", lambda: 6)
    monkeypatch.setattr(processors, "quota", lambda root=Path("/"): quota)
    assert processors.usable.__wrapped__() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_process_that_may_run_on_one_processor_works_alone():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    assert run_python(f"{code} from faltung.engine.host.workers import count; print(count())") == "1\n"
