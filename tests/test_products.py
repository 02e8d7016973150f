"""The pair unfold and fold, and the three products of a convolution, against plain loops and against each other."""

import numpy as np
from hypothesis import given, settings

from convolutions import cases, products, reads
from faltung.elements.products import correlate, correlate_error, correlate_gradient
from faltung.elements.windows import fold, unfold
from faltung.geometry import Window


def inner(a, b):
    return float(np.vdot(a, b))


@given(cases())
@settings(max_examples=60)
def test_unfold_reads_what_the_windows_say_and_the_fill_elsewhere(case):
    x = case.integers((2, *case.shape))
    u = unfold(x, case.windows, fill=-np.inf)
    expected = np.full(u.shape, -np.inf)
    by_axis = [reads(window, size) for window, size in zip(case.windows, case.shape, strict=False)]
    assert u.shape[1 : 1 + len(by_axis)] == tuple(map(len, by_axis))
    for t in np.ndindex(*map(len, by_axis)):
        taps = [axis[position] for axis, position in zip(by_axis, t, strict=True)]
        for chosen in np.ndindex(*map(len, taps)):
            pairs = [axis[place] for axis, place in zip(taps, chosen, strict=True)]
            k, read = zip(*pairs, strict=True)
            expected[:, *t, *k, :] = x[:, *read, :]
    assert np.array_equal(u, expected)


@given(cases())
@settings(max_examples=60)
def test_fold_is_the_adjoint_of_unfold(case):
    x = case.integers((2, *case.shape))
    u = unfold(x, case.windows)
    du = case.integers(u.shape, salt=1)
    dx = fold(du, case.windows, case.shape[:-1])
    assert dx.shape == x.shape
    assert inner(du, u) == inner(dx, x)


@given(cases())
@settings(max_examples=40, deadline=None)
def test_the_three_products_are_their_loops_and_one_number(case):
    x = case.integers((2, *case.shape))
    w = case.integers((*(v.kernel for v in case.windows), case.shape[-1] // case.groups, case.filters), salt=1)
    y = correlate(x, w, case.windows, case.groups)
    assert np.array_equal(y, products(x, w, case.windows, case.groups))
    dy = case.integers(y.shape, salt=2)
    dx = correlate_error(dy, w, case.windows, case.groups, case.shape[:-1])
    dw = correlate_gradient(x, dy, case.windows, case.groups)
    for got, expected in zip((dx, dw), products(x, w, case.windows, case.groups, dy), strict=True):
        assert np.array_equal(got, expected)
    assert inner(dy, y) == inner(dx, x) == inner(dw, w)


def test_a_window_that_reads_only_padding_gives_zero():
    windows = (Window(kernel=2, stride=3, padding=(2, 3)),)
    x = np.array([5.0, 7.0]).reshape(1, 2, 1)
    assert unfold(x, windows)[0, :, :, 0].tolist() == [[0, 0], [7, 0]]
    y = correlate(x, np.array([2.0, 3.0]).reshape(2, 1, 1), windows, 1)
    assert y.ravel().tolist() == [0, 14]


def test_unfold_copies_nothing_where_nothing_is_padded():
    x = np.arange(12.0).reshape(1, 6, 2)
    u = unfold(x, (Window(kernel=3, stride=2),))
    assert np.shares_memory(u, x)
    assert not np.shares_memory(unfold(x, (Window(kernel=3, padding=1),)), x)


def test_the_empty_batch():
    windows = (Window(kernel=3, padding=1), Window(kernel=2))
    x, w = np.zeros((0, 4, 4, 2)), np.ones((3, 2, 2, 3))
    y = correlate(x, w, windows, 1)
    assert y.shape == (0, 4, 3, 3)
    assert correlate_error(y, w, windows, 1, (4, 4)).shape == x.shape
    assert np.array_equal(correlate_gradient(x, y, windows, 1), np.zeros_like(w))
