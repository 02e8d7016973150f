"""Object code is the same whoever makes it, and however many at once."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

import faltung as ft
from faltung.engine.host import arena, compile, emit, quick
from faltung.engine.host.machine import host
from faltung.engine.host.modes import flushed

TEXT = """
define void @f{n}(ptr %y) nounwind {{
  store double {n}.5, ptr %y
  ret void
}}
"""
TEXTS = [TEXT.format(n=n) for n in range(9)]


def compilers() -> int:
    return sum(thread.name == "faltung compiler" for thread in threading.enumerate())


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_same_code_comes_from_several_threads(threads):
    assert emit.emit_all(TEXTS, host(), threads) == {text: emit.emit(text, host()) for text in TEXTS}
    assert compilers() == 0


def test_others_begin_while_texts_are_written(monkeypatch):
    begun, made, first = threading.Event(), emit.emit, TEXTS[0]

    def emitted(text, machine):
        begun.set()
        return made(text, machine)

    def texts() -> Iterator[str]:
        yield first
        assert begun.wait(20)
        yield TEXTS[1]

    monkeypatch.setattr(emit, "emit", emitted)
    assert emit.emit_all(texts(), host(), 2).keys() == {first, TEXTS[1]}


@pytest.mark.parametrize("threads", [1, 3])
def test_a_text_that_llvm_refuses_is_reported(threads):
    with pytest.raises(RuntimeError, match="expected top-level entity"):
        emit.emit_all([*TEXTS, "nonsense", *TEXTS], host(), threads)
    assert compilers() == 0


def test_where_a_text_cannot_be_written_nobody_waits_for_it():
    def texts() -> Iterator[str]:
        yield TEXTS[0]
        raise KeyError("a text")

    with pytest.raises(KeyError, match="a text"):
        emit.emit_all(texts(), host(), 3)
    assert compilers() == 0


def test_without_threads_the_caller_does_it(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert len(emit.emit_all(TEXTS, host(), 3)) == len(TEXTS)


@pytest.mark.parametrize(("threads", "channels"), [(1, 7), (2, 9)])
def test_a_program_has_all_its_kernels_made_in_one_go(threads, channels, tmp_path, monkeypatch):
    together, alone, emit_all, emit_one = [], [], emit.emit_all, emit.emit

    def several(texts, machine, threads):
        with monkeypatch.context() as patch:
            patch.setattr(emit, "emit", emit_one)
            done = emit_all(texts, machine, threads)
        together.append((len(done), threads))
        return done

    def single(text, machine):
        alone.append(text)
        return emit_one(text, machine)

    tmp_path.chmod(0o700)
    net = ft.Chain(conv=ft.Conv(channels, kernel=(3, 5)), tanh=ft.Tanh(), pool=ft.MeanPool(3)).on((11, 13, 2))
    params, x = net.initial(seed=0), np.random.default_rng(0).random((6, 11, 13, 2), np.float32)
    target, sgd = net.on_executor("reference").predict(params, x) + 1, ft.SGD(0.1)
    arena.empty((1 << 16,), np.float32)
    if quick.possible():
        quick._code()
    with flushed():  # what is compiled by itself: the pool, quick calls, and modes
        monkeypatch.setenv("FALTUNG_CACHE", str(tmp_path))
        monkeypatch.setenv("FALTUNG_THREADS", str(threads))
        monkeypatch.setattr(compile, "counters", compile.Counters())
        monkeypatch.setattr(compile, "_seen", set())  # whatever other tests have loaded
        monkeypatch.setattr(emit, "emit_all", several)
        monkeypatch.setattr(emit, "emit", single)
        net.train_step(params, sgd.slots(params), x, target, cost=ft.SquaredError(), optimiser=sgd)
    [(count, asked)] = together
    assert (alone, asked) == ([], threads)
    assert count >= compile.counters.compiled >= 2
    assert not compile._emitted
