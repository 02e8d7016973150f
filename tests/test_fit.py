"""Training: what it computes, what it writes, what it says, and what it refuses."""

import errno
import json
import os
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from faltung.data import Arrays
from faltung.elements import Affine, Conv, CrossEntropy, Pointwise, Pool, ReLU, Run, SquaredError
from faltung.errors import (
    DataError,
    FileError,
    ModelFileError,
    NetworkError,
    NonFiniteError,
    SettingError,
    ShapeError,
)
from faltung.exchange import tensorfile
from faltung.exchange.modelfile import load_model
from faltung.network import Chain
from faltung.training import SGD, Adam, Averaged, evaluate, fit
from faltung.training.job import order
from tiny_training import NETWORK, images, settings

TRAIN, TEST = images(20), images(12, seed=1)
PARAMS = NETWORK.initial(0)


def test_every_step_is_backpropagation_and_update():
    fitted = fit(NETWORK, PARAMS, TRAIN, **settings(seed=5, optimiser=Adam(0.01), epochs=2))
    params, step, costs = dict(PARAMS), 0, []
    slots = Adam(0.01).slots({name: params[name] for name in NETWORK.parameters})
    for epoch in range(2):
        sequence = np.random.Generator(np.random.PCG64([5, epoch])).permutation(20)
        for chosen in (sequence[:8], sequence[8:16], sequence[16:]):
            x, labels = TRAIN[chosen]
            run = Run(training=True, seed=5, step=step)
            back = NETWORK.backpropagate(params, x, labels, cost=CrossEntropy(), run=run)
            params, slots = Adam(0.01).update(params, back.gradients, slots, step)
            params |= back.state
            costs.append(back.cost * len(chosen))
            step += 1
    assert fitted.params.keys() == params.keys()
    assert all(np.array_equal(w, params[name]) for name, w in fitted.params.items())
    assert [row["cost"] for row in fitted.history] == pytest.approx([sum(costs[:3]) / 20, sum(costs[3:]) / 20])
    assert [(row["epoch"], row["step"]) for row in fitted.history] == [(1, 3), (2, 6)]


def test_the_given_parameters_stay_as_they_were():
    before = {name: w.copy() for name, w in PARAMS.items()}
    fit(NETWORK, PARAMS, TRAIN, **settings())
    assert all(np.array_equal(w, before[name]) for name, w in PARAMS.items())


def test_it_learns():
    fitted = fit(NETWORK, PARAMS, images(200), **settings(test=images(100, seed=1), epochs=8))
    first, last = fitted.history[0], fitted.history[-1]
    assert last["cost"] < first["cost"] / 2
    assert last["test_accuracy"] > 0.95
    assert fitted.params["conv.w"].dtype == np.float32


def test_the_rows_say_what_evaluate_says():
    fitted = fit(NETWORK, PARAMS, TRAIN, **settings(test=TEST, epochs=1))
    found = evaluate(NETWORK, fitted.params, TEST, cost=CrossEntropy(), batch=8)
    (row,) = fitted.history
    assert (row["test_cost"], row["test_accuracy"]) == (found["cost"], found["accuracy"])
    assert row["seconds"] >= 0
    assert row["examples_per_second"] > 0


def test_the_average_is_evaluated_and_saved_and_training_goes_on_without_it(tmp_path):
    plain = fit(NETWORK, PARAMS, TRAIN, **settings(optimiser=Adam(0.05)))
    averaged = Averaged(Adam(0.05), decay=0.7)
    fitted = fit(NETWORK, PARAMS, TRAIN, **settings(optimiser=averaged, test=TEST, out=tmp_path))
    tensors, _ = tensorfile.read(tmp_path / "checkpoint.safetensors", "faltung checkpoint")
    assert all(np.array_equal(w, tensors[f"params/{name}"]) for name, w in plain.params.items())
    slots = {"average": {name: tensors[f"slots/average/{name}"] for name in NETWORK.parameters}}
    expected = averaged.result(plain.params, slots, 9)
    assert not np.array_equal(expected["conv.w"], plain.params["conv.w"])
    for params in (fitted.params, load_model(tmp_path / "model.safetensors")[1]):
        assert all(np.array_equal(w, expected[name]) for name, w in params.items())
    found = evaluate(NETWORK, expected, TEST, cost=CrossEntropy(), batch=8)
    assert fitted.history[-1]["test_cost"] == found["cost"]


class Halves:
    """The first ten examples in even epochs, the others in odd ones."""

    def __init__(self, number=0):
        self.number = number

    def epoch(self, number):
        return Halves(number)

    def __len__(self):
        return 10

    def __getitem__(self, indices):
        return TRAIN[np.arange(10)[indices] + 10 * (self.number % 2)]


def test_data_may_be_drawn_anew_for_each_epoch():
    fitted = fit(NETWORK, PARAMS, Halves(), **settings(epochs=2, batch=4, seed=3))
    params, step = dict(PARAMS), 0
    slots = SGD(0.1, momentum=0.9).slots({name: params[name] for name in NETWORK.parameters})
    for epoch in range(2):
        sequence = order(3, epoch, 10) + 10 * epoch
        for chosen in (sequence[:4], sequence[4:8], sequence[8:]):
            run = Run(training=True, seed=3, step=step)
            back = NETWORK.backpropagate(params, *TRAIN[chosen], cost=CrossEntropy(), run=run)
            params, slots = SGD(0.1, momentum=0.9).update(params, back.gradients, slots, step)
            params, step = params | back.state, step + 1
    assert all(np.array_equal(w, params[name]) for name, w in fitted.params.items())


def test_a_view_of_ones_own_hears_of_all_steps_after_they_are_safe(tmp_path):
    heard = []

    class View:
        def __enter__(self):
            heard.append("begin")

        def __exit__(self, *error):
            heard.append("end")

        def step(self, state):
            heard.append(state.step)

        def epoch(self, state):
            rows = (tmp_path / "log.jsonl").read_text().splitlines()
            heard.append(("epoch", len(state.history), len(rows)))

    fit(NETWORK, PARAMS, TRAIN, **settings(epochs=2, out=tmp_path, progress=View()))
    assert heard == ["begin", 1, 2, 3, ("epoch", 1, 1), 4, 5, 6, ("epoch", 2, 2), "end"]


def test_drop_last_leaves_out_what_does_not_fill_a_batch():
    fitted = fit(NETWORK, PARAMS, TRAIN, **settings(drop_last=True))
    assert [row["step"] for row in fitted.history] == [2, 4, 6]


def test_an_order_is_a_permutation_by_seed_and_epoch():
    orders = {(seed, epoch): tuple(order(seed, epoch, 50)) for seed in range(3) for epoch in range(3)}
    assert all(sorted(found) == list(range(50)) for found in orders.values())
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == tuple(order(1, 2, 50))


# What it writes


def test_the_files_of_a_run(tmp_path):
    out = tmp_path / "runs" / "one"
    fitted = fit(NETWORK, PARAMS, TRAIN, **settings(test=TEST, out=str(out), about={"classes": ["lies", "stands"]}))
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoint.safetensors",
        "curve.svg",
        "log.jsonl",
        "model.safetensors",
    ]
    network, params, about = load_model(out / "model.safetensors")
    assert network.composite == NETWORK.composite
    assert all(np.array_equal(w, fitted.params[name]) for name, w in params.items())
    assert about == {"classes": ["lies", "stands"], "history": list(fitted.history)}
    assert [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()] == list(fitted.history)
    assert len(ElementTree.parse(out / "curve.svg").findall("{*}polyline")) == 3


def test_a_run_is_never_written_over(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    fit(NETWORK, PARAMS, TRAIN, **settings(out=tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    message = (
        r"got out='.*', which already holds a run \(checkpoint.safetensors, .*\); use resume=True, or another folder"
    )
    with pytest.raises(SettingError, match=message):
        fit(NETWORK, PARAMS, TRAIN, **settings(out=tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"cannot make the folder .*file: File exists; choose a folder"):
        fit(NETWORK, PARAMS, TRAIN, **settings(out=tmp_path / "file"))
    with pytest.raises(FileError, match=r"cannot make the folder .*: Not a directory"):
        fit(NETWORK, PARAMS, TRAIN, **settings(out=tmp_path / "file" / "inside"))

    def refuse(*_):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.open", refuse)  # root may write anywhere
    with pytest.raises(
        FileError, match=r"checkpoint.safetensors: Permission denied; choose a folder that you may write"
    ):
        fit(NETWORK, PARAMS, TRAIN, **settings(out=tmp_path))


def test_a_full_disk_leaves_the_checkpoint_of_before(tmp_path, monkeypatch):
    whole = fit(NETWORK, PARAMS, TRAIN, **settings())
    sync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 8:  # two a file, for file and folder: the checkpoint of the second epoch is the fifth
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sync(handle)

    monkeypatch.setattr("os.fsync", full)
    message = r"cannot write .*checkpoint.safetensors: No space left on device \(the previous file is untouched\); free"
    with pytest.raises(FileError, match=message):
        fit(NETWORK, PARAMS, TRAIN, **settings(out=tmp_path))
    monkeypatch.undo()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1
    again = fit(NETWORK, PARAMS, TRAIN, **settings(out=tmp_path, resume=True))
    assert all(np.array_equal(w, whole.params[name]) for name, w in again.params.items())


def test_a_network_that_cannot_be_saved_is_refused_before_it_is_trained(tmp_path):
    network = Chain(pool=Pool(6, lambda x: x.sum(-1), np.ones_like), dense=Affine(2)).on((6, 1))
    data = Arrays(np.ones((4, 6, 1)), np.zeros((4, 1), int))
    with pytest.raises(ModelFileError, match="'pool': got g=<function"):
        fit(network, network.initial(0), data, **settings(out=tmp_path / "run"))
    with pytest.raises(ModelFileError, match=r"got about=.*expected what JSON can say"):
        fit(NETWORK, PARAMS, TRAIN, **settings(out=tmp_path / "run", about={"when": object()}))
    assert not (tmp_path / "run").exists()
    assert len(fit(network, network.initial(0), data, **settings()).history) == 3


# What it says


def test_one_line_an_epoch_where_there_is_no_terminal(capsys):
    fit(NETWORK, PARAMS, TRAIN, **settings(test=TEST, progress=True))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3
    number = r"[\d.]+"
    line = rf"epoch 2/3  cost {number}  test cost {number}  test accuracy {number} %  [\d,]+ examples/s  {number} s"
    assert re.fullmatch(line, lines[1])


def test_a_bar_where_there_is_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    fit(NETWORK, PARAMS, TRAIN, **settings(progress=True))
    _, err = capsys.readouterr()
    assert "epoch 3/3" in err
    assert "\x1b[" in err


def test_nothing_is_said_without_progress(capsys):
    fit(NETWORK, PARAMS, TRAIN, **settings())
    assert capsys.readouterr() == ("", "")


# NaN


def broken(network, data, **more):
    with pytest.raises(NonFiniteError) as caught:
        fit(network, more.pop("params", None) or network.initial(0), data, **settings(**more))
    return str(caught.value)


LINE = Chain(first=Affine(2), relu=ReLU(), last=Affine(1)).on((3,))


def vectors(**changes):
    """Sixteen vectors of three numbers."""
    x, target = np.random.default_rng(0).normal(size=(2, 16, 3))
    target = target[:, :1]
    for index, number in changes.get("x", {}).items():
        x[index] = number
    for index, number in changes.get("target", {}).items():
        target[index] = number
    return Arrays(x, target)


def test_nan_names_the_node_the_example_and_the_step():
    network = Chain(conv=Conv(2, kernel=3), root=Pointwise("log(x)"), tail=Conv(1, kernel=4)).on((6, 6, 1))
    params = {name: np.ones_like(w) for name, w in network.initial(0).items()}
    x = np.ones((20, 6, 6, 1))
    x[13, 4, 5, 0] = -30  # its log is met in the windows that end there
    position = list(order(0, 0, 20)).index(13)
    message = broken(
        network, Arrays(x, np.zeros((20, 1, 1, 1))), params=params, cost=SquaredError(), optimiser=SGD(1e-9)
    )
    assert message == (
        "Pointwise('log(x)') 'root': the value is NaN first here, at example 13, position (2, 3, 0), "
        f"in step {position // 8 + 1} of epoch 1; lower the rate, or scale the inputs to about 1"
    )


def test_a_rate_too_high_ends_in_a_clear_message(tmp_path):
    message = broken(LINE, vectors(), cost=SquaredError(), optimiser=SGD(100.0), out=tmp_path, epochs=99)
    assert re.match(
        r"Affine\(\d\) '[\w.]+': the \w+( signal)? is -?(NaN|inf) first here, at .*, in step \d of epoch \d", message
    )
    assert message.endswith(f"; the last checkpoint is kept in {tmp_path / 'checkpoint.safetensors'}")
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_nan_among_the_inputs_is_called_so():
    message = broken(LINE, vectors(x={(11, 2): np.nan}), cost=SquaredError())
    assert re.fullmatch(
        r"input 'x': it is NaN first here, at example 11, position \(2\), in step \d of epoch 1; give finite inputs",
        message,
    )


def test_infinity_among_the_targets_is_called_so():
    message = broken(LINE, vectors(target={(3, 0): -np.inf}), cost=SquaredError())
    assert re.fullmatch(
        r"target: it is -inf first here, at example 3, position \(0\), in .*; give finite targets", message
    )


def test_nan_among_the_parameters_is_called_so():
    params = LINE.initial(0)
    params["last.w"][1, 0] = np.nan
    message = broken(LINE, vectors(), cost=SquaredError(), params=params)
    assert message == (
        "Affine(1) 'last.w': the parameter is NaN first here, at entry (1, 0), in step 1 of epoch 1; "
        "begin with finite parameters"
    )


def test_an_error_signal_or_gradient_that_overflows_is_called_so():
    network = Chain(dense=Affine(1, bias=False)).on((1,))
    data = Arrays(np.full((8, 1), 1e30), np.full((8, 1), -1e30))
    message = broken(network, data, params={"dense.w": np.ones((1, 1), np.float32)}, cost=SquaredError())
    assert message.startswith(
        "Affine(1, bias=False) 'dense.w': the gradient is inf first here, at entry (0, 0), in step 1"
    )


def test_an_update_that_overflows_is_called_so():
    data = Arrays(np.ones((8, 1)), np.full((8, 1), -1e19))
    network = Chain(dense=Affine(1)).on((1,))
    message = broken(network, data, cost=SquaredError(), optimiser=SGD(1e25))
    assert message == "the update of dense.w overflows in step 1 of epoch 1; lower the rate"
    message = broken(network, Arrays(np.ones((8, 1)), np.full((8, 1), -1e21)), cost=SquaredError(), optimiser=Adam(0.1))
    assert message == "the update of dense.w overflows in step 1 of epoch 1; lower the rate"  # Adam's square


def test_a_cost_that_overflows_is_called_so():
    data = Arrays(np.ones((8, 1)), np.full((8, 1), -1e200))
    network = Chain(dense=Affine(1)).on((1,))
    message = broken(network, data, params=network.initial(0, np.float64), cost=SquaredError())
    assert message == "the cost of finite values overflows in step 1 of epoch 1; lower the rate"


def test_a_test_cost_that_is_not_finite_does_not_stop_the_training(tmp_path):
    test = vectors(x={(0, 0): np.nan})
    fitted = fit(LINE, LINE.initial(0), vectors(), **settings(cost=SquaredError(), test=test, out=tmp_path))
    assert [row["test_cost"] for row in fitted.history] == [None] * 3
    assert "NaN" not in (tmp_path / "log.jsonl").read_text()


# What it refuses


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"epochs": 0}, SettingError, "fit: got epochs=0, expected a whole number of at least 1"),
        ({"batch": 0}, SettingError, "fit: got batch=0, expected a whole number of at least 1"),
        ({"batch": 2.5}, SettingError, "got batch=2.5"),
        ({"seed": -1}, SettingError, "got seed=-1, expected a whole number from 0; choose another seed"),
        (
            {"cost": {"dense": CrossEntropy()}},
            SettingError,
            r"expected one cost, such as CrossEntropy\(\); for several",
        ),
        ({"optimiser": 0.1}, SettingError, r"got optimiser=0.1, expected one; write optimiser=SGD\(0.1\)"),
        (
            {"drop_last": True, "batch": 21},
            DataError,
            "20 examples do not fill one batch of 21; use a smaller",
        ),
        ({"test": images(4).x[:0]}, DataError, "got test of no examples, expected at least one"),
        ({"test": Arrays(np.ones((2, 5, 6, 1)), np.zeros(2, int))}, ShapeError, "x"),
        ({"test": Arrays(np.ones((2, 6, 6, 1)), np.full(2, 2))}, DataError, "label"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, more, error, message):
    with pytest.raises(error, match=message):
        fit(NETWORK, PARAMS, TRAIN, **settings(**more, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_parameters_of_another_network():
    message = r"the parameters are not those of the network: missing dense.b; make them with network.initial\(seed\)"
    with pytest.raises(NetworkError, match=message):
        fit(NETWORK, {name: w for name, w in PARAMS.items() if name != "dense.b"}, TRAIN, **settings())


def test_labels_that_do_not_fit_are_named_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match="label"):
        fit(NETWORK, PARAMS, Arrays(TRAIN.x, TRAIN.target + 2), **settings(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
