"""A run that was stopped anywhere and resumed is, bit for bit, the run that was not."""

import json
import signal
import threading

import numpy as np
import pytest

from faltung.data import Arrays, Data
from faltung.elements import Affine, Conv, Flatten, SquaredError
from faltung.errors import ModelFileError, SettingError
from faltung.exchange import tensorfile
from faltung.exchange.modelfile import load_model
from faltung.network import Chain
from faltung.training import SGD, Adam, AdamW, Averaged, Cosine, Interrupted, fit, folder
from tiny_training import NETWORK, Signalling, images, settings, without_times

TRAIN, TEST = images(20), images(12, seed=1)
OPTIMISERS = {
    "momentum": SGD(Cosine(0.1, 9), momentum=0.9),
    "nesterov": SGD(0.1, momentum=0.5, nesterov=True, weight_decay=0.01),
    "adam": Adam(0.01),
    "adamw": AdamW(Cosine(0.01, 9)),
    "averaged": Averaged(Adam(0.01), decay=0.8),
}


def run(out, data: Data = TRAIN, test: Data | None = TEST, dtype=np.float32, **more):
    return fit(NETWORK, NETWORK.initial(0, dtype), data, out=out, **settings(test=test, seed=7, **more))


def tensors(out):
    return tensorfile.read(out / "checkpoint.safetensors", "faltung checkpoint")[0]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        assert np.array_equal(array, other[name]), name


def history(out):
    return without_times(json.loads(line) for line in (out / "log.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("momentum", np.float32),
        ("nesterov", np.float64),
        ("adam", np.float32),
        ("adam", np.float64),
        ("adamw", np.float32),
        ("averaged", np.float32),
    ],
)
def test_stopped_after_every_step_and_resumed(tmp_path, name, dtype):
    optimiser = OPTIMISERS[name]
    whole = run(tmp_path / "whole", optimiser=optimiser, dtype=dtype)
    for stop in range(1, 10):  # nine steps; 3, 6 and 9 are the ends of epochs
        out = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            run(out, Signalling(TRAIN, stop), optimiser=optimiser, dtype=dtype)
        again = run(out, optimiser=optimiser, dtype=dtype, resume=True)
        assert_same(again.params, whole.params)
        assert_same(tensors(out), tensors(tmp_path / "whole"))
        assert without_times(again.history) == without_times(whole.history)
        assert history(out) == without_times(whole.history)
        assert_same(load_model(out / "model.safetensors")[1], whole.params)


def test_stopped_again_and_again(tmp_path):
    whole = run(tmp_path / "whole")
    for attempt in range(9):
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", Signalling(TRAIN, 1), resume=attempt > 0)
    parts = run(tmp_path / "parts", resume=True)
    assert_same(parts.params, whole.params)
    assert without_times(parts.history) == without_times(whole.history)


@pytest.mark.parametrize("batch", [1, 2])
def test_stopped_during_the_test(tmp_path, batch):
    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted, match=r"stopped at epoch 1, step 3; resume with out='.*parts', resume=True$"):
        run(tmp_path / "parts", test=Signalling(TEST, batch))
    assert not (tmp_path / "parts" / "log.jsonl").exists()
    parts = run(tmp_path / "parts", resume=True)
    assert_same(parts.params, whole.params)
    assert without_times(parts.history) == without_times(whole.history)


def test_killed_between_two_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt) as caught:  # the second signal acts at once, in the middle of step 5
        run(tmp_path / "parts", Signalling(TRAIN, 5, signal.SIGINT, signal.SIGINT))
    assert not isinstance(caught.value, Interrupted)
    _, texts = tensorfile.read(tmp_path / "parts" / "checkpoint.safetensors", "faltung checkpoint")
    assert json.loads(texts["progress"])["step"] == 4
    parts = run(tmp_path / "parts", resume=True)
    assert_same(tensors(tmp_path / "parts"), tensors(tmp_path / "whole"))
    assert without_times(parts.history) == without_times(whole.history)


def test_killed_between_checkpoint_and_log(tmp_path):
    whole = run(tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    for content in (b"", log.read_bytes()[:-9], log.read_bytes() * 2):
        log.write_bytes(content)
        run(tmp_path / "run", resume=True)
        assert history(tmp_path / "run") == without_times(whole.history)


def test_more_epochs_continue_the_same_run(tmp_path):
    whole = run(tmp_path / "whole", epochs=5)
    run(tmp_path / "parts", epochs=2)
    parts = run(tmp_path / "parts", epochs=5, resume=True)
    assert_same(parts.params, whole.params)
    assert without_times(parts.history) == without_times(whole.history)


def test_a_complete_run_is_handed_out_again(tmp_path):
    whole = run(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    again = run(tmp_path / "run", resume=True)
    assert_same(again.params, whole.params)
    assert again.history == whole.history
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_fewer_epochs_than_are_done_change_nothing(tmp_path):
    run(tmp_path)
    (tmp_path / "log.jsonl").write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SettingError, match=r"got epochs=2, but the run in .* has done 3; ask for at least 3"):
        run(tmp_path, epochs=2, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_seed_matters(tmp_path):
    one, other = run(tmp_path / "one"), fit(NETWORK, NETWORK.initial(0), TRAIN, **settings(test=TEST, seed=8))
    assert not np.array_equal(one.params["conv.w"], other.params["conv.w"])


# Signals


def test_sigterm_stops_too_and_handlers_are_restored(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match="stopped at epoch 2, step 1; resume with") as caught:
        run(tmp_path / "run", Signalling(TRAIN, 4, signal.SIGTERM))
    assert caught.value.signal == signal.SIGTERM
    assert len(caught.value.history) == 1
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_without_a_folder_the_parameters_come_with_the_exception():
    with pytest.raises(
        Interrupted, match="stopped at epoch 1, step 2; nothing is written, as there is no out"
    ) as caught:
        run(None, Signalling(TRAIN, 2))
    assert not np.array_equal(caught.value.params["conv.w"], NETWORK.initial(0)["conv.w"])


def test_a_signal_too_late_to_stop_anything_is_not_lost(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught:  # in the last batch of the last test
        run(tmp_path / "run", Signalling(TRAIN, 9), test=None)
    assert not isinstance(caught.value, Interrupted)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert len(run(tmp_path / "run", Signalling(TRAIN, 4)).history) == 3
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_train_without_handlers(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(run(tmp_path / "thread")))
    thread.start()
    thread.join()
    assert_same(found[0].params, run(tmp_path / "main").params)


# What cannot be resumed


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Interrupted):
        run(out, Signalling(TRAIN, 5))
    return (out / "checkpoint.safetensors").read_bytes()


OTHER = Chain(conv=Conv(3, kernel=3), flat=Flatten(), dense=Affine(2)).on((6, 6, 1))
VECTORS = Arrays(TRAIN.x, np.zeros((20, 2)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"batch": 4},
            r"the checkpoint is of another run: batch is 8 there, and 4 here; resume with the same settings",
        ),
        ({"seed": 8}, "seed is 7 there, and 8 here"),
        ({"drop_last": True}, "drop_last is false there, and true here"),
        ({"optimiser": SGD(0.2, momentum=0.9)}, r"optimiser.rate is 0.1 there, and 0.2 here"),
        ({"optimiser": Adam()}, r'optimiser.type is "SGD" there, and "Adam" here'),
        ({"cost": SquaredError(), "data": VECTORS, "test": None}, r'cost.type is "CrossEntropy" there'),
        ({"data": images(21)}, ": examples is 20 there, and 21 here"),
        ({"test": None}, "test examples is 12 there, and 0 here"),
        (
            {"params": NETWORK.initial(0, np.float64)},
            r'params/conv.w is "float32 \(3, .*" there, and "float64 .*" here',
        ),
        ({"network": OTHER, "params": OTHER.initial(0)}, r"network.composite.nodes is \[.*\.\.\. there, and \[.* here"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_a_checkpoint_of_another_run(tmp_path, stopped, more, message):
    (tmp_path / "checkpoint.safetensors").write_bytes(stopped)
    usual = {"network": NETWORK, "params": NETWORK.initial(0), "data": TRAIN, "test": TEST, "seed": 7}
    with pytest.raises(ModelFileError, match=message):
        fit(**settings(**usual | more, out=tmp_path, resume=True))


def test_a_damaged_checkpoint(tmp_path, stopped):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(stopped[:-1])
    with pytest.raises(ModelFileError, match=r"checkpoint.safetensors: the file is damaged"):
        run(tmp_path, resume=True)
    path.write_bytes(stopped)
    arrays, texts = tensorfile.read(path, "faltung checkpoint")
    settings_text = texts["settings"]
    for progress in (
        "[]",
        "{",
        '{"step": "x"}',
        '{"step": 1, "tally": [1, 2, 3]}',
        '{"step": 1, "tally": [], "seconds": 1, "history": [{}]}',
    ):
        tensorfile.write(path, "faltung checkpoint", arrays, {"settings": settings_text, "progress": progress})
        with pytest.raises(
            ModelFileError, match=r"checkpoint.safetensors: the checkpoint is damaged \(.*\); take an und"
        ):
            run(tmp_path, resume=True)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(
        SettingError, match=r"got resume=True, but there is no checkpoint in .*; leave resume out to begin"
    ):
        run(tmp_path, resume=True)
    with pytest.raises(SettingError, match=r"got resume=True without out, expected the folder of the run; write out="):
        run(None, resume=True)
