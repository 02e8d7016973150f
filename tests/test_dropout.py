import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.elements.dropout import Dropout
from faltung.elements.element import Run, example
from faltung.errors import SettingError
from faltung.randomness import philox, uniform

LOW = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((LOW, LOW, LOW, LOW), (LOW, LOW), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    words = philox(counter, key)
    assert words.dtype == np.uint32
    assert " ".join(f"{word:08x}" for word in words) == expected


word = st.integers(0, LOW)


@given(st.tuples(word, word, word, word), st.tuples(word, word))
@settings(max_examples=50)
def test_philox_is_the_cipher_written_with_python_integers(counter, key):
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        left, right = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = right >> 32 ^ c1 ^ k0, right & LOW, left >> 32 ^ c3 ^ k1, left & LOW
        k0, k1 = (k0 + 0x9E3779B9) & LOW, (k1 + 0xBB67AE85) & LOW
    assert philox(counter, key).tolist() == [c0, c1, c2, c3]


def test_philox_words_broadcast():
    words = philox((np.arange(3), np.arange(2)[:, None], 7, 8), (9, 10))
    assert words.shape == (2, 3, 4)
    assert np.array_equal(words[1, 2], philox((2, 1, 7, 8), (9, 10)))


@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    step=st.integers(0, 2**40),
    first=st.integers(0, 1000),
    cut=st.integers(0, 5),
    entries=st.integers(0, 11),
)
@settings(max_examples=50)
def test_numbers_do_not_depend_on_the_examples_or_entries_around_them(seed, step, first, cut, entries):
    whole = uniform(range(first, first + 5), 11, seed=seed, step=step, node="a")
    part = uniform(range(first + cut, first + 5), entries, seed=seed, step=step, node="a")
    assert np.array_equal(whole[cut:, :entries], part)


def test_numbers_depend_on_seed_step_node_and_example():
    def draw(example=3, seed=4, step=5, node="a"):
        return uniform(range(example, example + 1), 8, seed=seed, step=step, node=node).tobytes()

    others = [draw(example=4), draw(seed=5), draw(seed=4 + (2 << 32)), draw(step=6), draw(step=5 + (1 << 32))]
    assert len({draw(), *others, draw(node="b")}) == 7


def test_numbers_are_uniform_and_have_24_bits():
    u = uniform(range(50), 1000, seed=0, step=0, node="")
    assert u.dtype == np.float64
    assert u.min() >= 0
    assert u.max() < 1
    assert np.array_equal(u, u.astype(np.float32))
    assert np.array_equal(u * 2**24, np.floor(u * 2**24))
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert np.sum((counts - 2500) ** 2 / 2500) < 43.8  # chi square of 19 degrees of freedom at 0.999
    assert abs(np.corrcoef(u[:, 0::4].ravel(), u[:, 1::4].ravel())[0, 1]) < 4 / np.sqrt(12500)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_zeroes_at_the_rate_and_scales_the_rest(dtype):
    x = np.random.default_rng(0).normal(size=(40, 10, 10, 5)).astype(dtype)
    y, m = Dropout(0.2).forward({}, x, Run(training=True, seed=1, node="drop"))
    assert m is not None
    assert y.dtype == m.dtype == dtype
    assert set(np.unique(m)) == {dtype(0), dtype(1.25)}
    assert abs(np.mean(m == 0) - 0.2) < 4 * np.sqrt(0.2 * 0.8 / x.size)
    assert np.array_equal(y, x * m)
    dy = np.random.default_rng(1).normal(size=x.shape).astype(dtype)
    dx = Dropout(0.2).error({}, m, dy)
    assert dx.dtype == dtype
    assert np.array_equal(dx, dy * m)


def test_the_mask_is_the_same_in_float32_and_float64():
    x, run = np.ones((3, 1001)), Run(training=True, seed=7)
    wide, narrow = (Dropout(0.3).forward({}, x.astype(dtype), run)[0] for dtype in (np.float64, np.float32))
    assert np.array_equal(wide == 0, narrow == 0)


def test_splitting_a_batch_gives_the_same_bits():
    x = np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)
    whole, kept = Dropout(0.5).forward({}, x, Run(training=True, seed=1, step=9, node="drop"))
    assert kept is not None
    for first, stop in ((0, 1), (1, 4), (4, 7)):
        run = Run(training=True, seed=1, step=9, node="drop", first=first)
        y, part = Dropout(0.5).forward({}, x[first:stop], run)
        assert part is not None
        assert np.array_equal(y, whole[first:stop])
        assert np.array_equal(part, kept[first:stop])
    assert np.array_equal(example(kept, 2), kept[2:3])


def test_the_mask_depends_on_seed_step_and_node_of_the_run():
    runs = [Run(training=True), Run(True, seed=1), Run(True, step=1), Run(True, node="drop"), Run(True, first=1)]
    assert len({Dropout(0.5).forward({}, np.ones((1, 64)), run)[0].tobytes() for run in runs}) == 5


def test_out_of_training_it_is_the_identity():
    x = np.random.default_rng(0).normal(size=(2, 3))
    y, kept = Dropout(0.9).forward({}, x)
    assert np.array_equal(y, x)
    assert example(kept, 1) is None
    assert np.array_equal(Dropout(0.9).error({}, kept, 2 * x), 2 * x)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 3), (3,), (1, 1)])
def test_edge_sizes(shape):
    y, _ = Dropout(0).forward({}, np.ones(shape), Run(training=True))
    assert np.array_equal(y, np.ones(shape))
    assert Dropout(0.5).output((None, 3)) == (None, 3)


@pytest.mark.parametrize("rate", [1, 1.5, -0.1, "0.5", None, True, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(SettingError, match=r"Dropout\(.*\): got rate=.*, expected a number of at least 0 and below 1"):
        Dropout(rate)


def test_repr_is_the_call():
    assert repr(Dropout(0.25)) == "Dropout(0.25)"
