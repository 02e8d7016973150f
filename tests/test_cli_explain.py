"""``faltung explain``: what it says of a plan, and what it refuses."""

import re

import numpy as np
import pytest

import faltung as ft
from commands import run
from faltung.exchange.modelfile import save_model


@pytest.fixture
def model(tmp_path):
    network = ft.Chain(
        conv=ft.Conv(5, kernel=3), relu=ft.ReLU(), pool=ft.MaxPool(2), flat=ft.Flatten(), dense=ft.Affine(4)
    ).on((8, 8, 2))  # fmt: skip
    save_model(tmp_path / "model.safetensors", network, network.initial(0))
    return tmp_path / "model.safetensors"


def test_every_call_of_a_step_with_its_time(capsys, model):
    outcome = run(capsys, "explain", model, "--batch", "20")
    assert (outcome.code, outcome.err) == (0, "")
    assert "asked for" in outcome.out
    assert "a step of training with 20 examples" in outcome.out
    assert re.search(r"deep: 7 slices of 3 of 20 examples, \d at a time", outcome.out)
    rows = [line.split() for line in outcome.out.splitlines() if re.match(r" +\d+  ", line)]
    assert {"conv", "dense"} <= {name for row in rows for name in row}
    assert all(float(row[-2].replace(",", "")) > 0 for row in rows)
    assert re.search(r"[\d.]+ us an example, and [\d.]+ us once, on one thread\n$", outcome.out)


def test_a_prediction_of_one_example_is_flat(capsys, model):
    out = run(capsys, "explain", model, "--batch", "1", "--predict").out
    assert "a prediction of 1 examples" in out
    assert "flat: one call after the other" in out


def test_a_predictor(capsys, tmp_path):
    network = ft.Chain(
        first=ft.Conv(32, kernel=3, padding=1), norm=ft.BatchNorm(), relu=ft.ReLU(), second=ft.Conv(32, kernel=3),
    ).on((16, 16, 16))  # fmt: skip
    save_model(tmp_path / "model.safetensors", network, network.initial(0))
    facts, rows = parts(run(capsys, "explain", tmp_path / "model.safetensors", "--batch", "8", "--predictor").out)
    assert facts["asked for"] == "a predictor's call of 8 examples"
    assert facts["folded"] == "norm"
    assert facts["fewer multiplications"] == "first + relu, second"
    kilobytes = 16 * (16 + 32) * 32 * 4 / 1024  # of weights; tables and biases are small
    assert kilobytes < float(facts["packed weights and constants"].removesuffix(" KB")) < kilobytes + 4
    assert [row[1:4] for row in rows] == [["first", "+", "relu"], ["second", "convolve", rows[1][3]]]
    facts, rows = parts(run(capsys, "explain", tmp_path / "model.safetensors", "--batch", "8", "--predict").out)
    assert "folded" not in facts
    assert "fewer multiplications" not in facts
    assert "pack" in {name for row in rows for name in row}


def parts(out: str) -> tuple[dict[str, str], list[list[str]]]:
    """What is said of a program, by name, and the rows of its calls."""
    head, table = out.split("\n\n", 1)
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in head.splitlines())
    return facts, [line.split() for line in table.splitlines() if re.match(r" +\d+  ", line)]


def test_the_loops_of_a_node(capsys, model):
    outcome = run(capsys, "explain", model, "--ir", "dense")
    assert outcome.code == 0
    assert "for kh in 0 .. h_count" in outcome.out
    assert "fma(" in outcome.out


def test_open_axes_are_given_a_size(capsys, tmp_path):
    network = ft.Chain(conv=ft.Conv(3, kernel=3), pool=ft.GlobalPool("mean")).on((None, None, 1))
    save_model(tmp_path / "open.safetensors", network, network.initial(0))
    assert run(capsys, "explain", tmp_path / "open.safetensors", "--size", "9x12").code == 0
    outcome = run(capsys, "explain", tmp_path / "open.safetensors")
    assert outcome.code == 2
    assert outcome.err == (
        "faltung: error: got no size for the input 'x' of (None, None, 1), expected 2 open axes; "
        "give --size HxW for the open axes, and only for them\n"
    )


def test_a_size_for_no_open_axis_is_refused(capsys, model):
    outcome = run(capsys, "explain", model, "--size", "9x12")
    assert outcome.code == 2
    assert "got the size 9x12 for the input 'x' of (8, 8, 2), expected 0 open axes" in outcome.err


def test_an_unknown_node_is_refused(capsys, model):
    outcome = run(capsys, "explain", model, "--ir", "nodes")
    assert outcome.code == 2
    assert "got the node 'nodes', expected one that has kernels: conv, " in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_network_without_a_program_says_so(capsys, model, monkeypatch):
    monkeypatch.setattr("faltung.engine.networks.plans.newest", lambda network: None)
    outcome = run(capsys, "explain", model)
    assert outcome.code == 2
    assert "this network runs element by element" in outcome.err


def test_what_is_explained_is_what_runs(capsys, model):
    from faltung.engine.networks import plans
    from faltung.engine.programs.explain import rows
    from faltung.exchange.modelfile import load_model

    network, params, _ = load_model(model)
    x, labels = np.zeros((20, 8, 8, 2), np.float32), np.zeros(20, int)
    network.backpropagate(params, x, labels, cost=ft.CrossEntropy(), keep=())
    plan = plans.newest(network)
    assert plan is not None
    found = rows(plan.planned)
    assert sum(row.node == "conv" and row.deep for row in found) >= 2
    assert {row.examples for row in found if row.deep} == {3}
    assert all(row.predicted >= 0 and row.measured > 0 for row in found)
