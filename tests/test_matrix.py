"""The sparse matrix of a convolution against the convolution itself, exactly, and against the slides."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings

from convolutions import cases, reads
from faltung.elements import Conv, ConvTranspose
from faltung.errors import MissingExtraError, SettingError, ShapeError
from faltung.matrix import matrix, render, symbolic

SLIDES = """
w00 0   0   0
w01 w00 0   0
w02 w01 0   0
0   w02 0   0
w10 0   w00 0
w11 w10 w01 w00
w12 w11 w02 w01
0   w12 0   w02
w20 0   w10 0
w21 w20 w11 w10
w22 w21 w12 w11
0   w22 0   w12
0   0   w20 0
0   0   w21 w20
0   0   w22 w21
0   0   0   w22
"""


def test_the_matrix_of_the_slides():
    """4x4 input, 3x3 kernel: 4x16, shown transposed."""
    C = symbolic(Conv(1, kernel=3), (4, 4, 1))
    assert C.shape == (4, 16)
    transposed = [[name.replace(",", "") for name in row] for row in C.T]
    assert transposed == [row.split() for row in SLIDES.strip().splitlines()]
    rows = [row.split() for row in render(C).splitlines()]
    assert rows == C.tolist()
    assert len({len(line) for line in render(C).splitlines()}) == 1


def test_the_numbers_stand_where_the_names_do():
    conv, shape = Conv(4, kernel=(2, 3), stride=2, padding=1, groups=2), (4, 5, 6)
    w = np.arange(1.0, 1 + 2 * 3 * 3 * 4).reshape(2, 3, 3, 4)
    C, names = matrix(conv, shape, w).toarray(), symbolic(conv, shape)
    named = {"0": 0.0} | {"w" + ",".join(map(str, at)): float(w[at]) for at in np.ndindex(w.shape)}
    assert np.array_equal(C, [[named[name] for name in row] for row in names])


@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_forward_is_a_product_and_error_that_of_the_transpose(case):
    conv = Conv(case.filters, **case.settings, bias=False)
    w = case.integers(conv.parameters(case.shape)["w"].shape)
    C = matrix(conv, case.shape, w)
    x = case.integers((1, *case.shape), 1)
    y, kept = conv.forward({"w": w}, x)
    dy = case.integers(y.shape, 2)
    assert C.shape == (y.size, x.size)
    assert np.array_equal(C @ x.ravel(), y.ravel())
    assert np.array_equal(C.T @ dy.ravel(), conv.error({"w": w}, kept, dy).ravel())


@given(case=cases())
@settings(max_examples=30, deadline=None)
def test_no_entry_reads_the_padding(case):
    """As many entries as there are pairs (position, tap) inside the input, for each filter and channel of its group."""
    conv = Conv(case.filters, **case.settings)
    w = np.zeros(conv.parameters(case.shape)["w"].shape)  # entries of the value 0 are entries
    inside = 1
    for window, size in zip(case.windows, case.shape, strict=False):
        inside *= sum(map(len, reads(window, size)))
    assert matrix(conv, case.shape, w).nnz == inside * case.shape[-1] // case.groups * case.filters


@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_the_transposed_convolution_has_the_transposed_matrix(case):
    conv = Conv(case.filters, **case.settings, bias=False)
    between = conv.output(case.shape)
    assert None not in between
    shape = tuple(size for size in between if size is not None)
    up = ConvTranspose(case.shape[-1], **case.settings, bias=False, size=case.shape[:-1])
    w = case.integers(conv.parameters(case.shape)["w"].shape)
    C = matrix(up, shape, w)
    assert np.array_equal(C.toarray(), matrix(conv, case.shape, w).toarray().T)
    x = case.integers((1, *shape), 1)
    assert np.array_equal(C @ x.ravel(), up.forward({"w": w}, x)[0].ravel())
    assert np.array_equal(symbolic(up, shape), symbolic(conv, case.shape).T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_kind(dtype):
    C = matrix(Conv(2, kernel=3, padding="same"), (20, 20, 3), np.ones((3, 3, 3, 2), dtype))
    assert C.dtype == dtype
    assert C.format == "csr"
    assert C.shape == (800, 1200)
    assert C.nnz == (3 * 20 - 2) ** 2 * 3 * 2


def test_wrong_arguments():
    conv = Conv(1, kernel=3)
    with pytest.raises(
        ShapeError, match=r"^Conv\(1, kernel=3\): got w of shape \(3, 1, 1\), expected \(3, 3, 1, 1\); give"
    ):
        matrix(conv, (4, 4, 1), np.ones((3, 1, 1)))
    with pytest.raises(ShapeError, match="the kernel spans 3, the padded input only 2"):
        symbolic(conv, (2, 2, 1))
    with pytest.raises(ShapeError, match=r"got an input of \(None, 4, 1\), expected known sizes; close all axes"):
        symbolic(conv, (None, 4, 1))  # pyright: ignore[reportArgumentType] -- on purpose
    with pytest.raises(
        SettingError, match="got a size that a second input gives, expected a known one; name it by size="
    ):
        symbolic(ConvTranspose(1, kernel=3, size="like"), (4, 1))


def test_without_scipy(monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == "scipy":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"got no SciPy; pip install 'faltung\[matrix\]'$"):
        matrix(Conv(1, kernel=3), (4, 1), np.ones((3, 1, 1)))
    assert render(symbolic(Conv(1, kernel=3), (4, 1))) == "w0 w1 w2  0\n 0 w0 w1 w2"
