"""Initial parameters: the distribution of each rule, and what they depend on."""

import numpy as np
import pytest

import faltung as ft
from faltung.elements import element
from faltung.errors import SettingError
from faltung.initial import RULES, draw

SHAPE, FANS = (5, 5, 20, 40), (500, 1000)


def drawn(rule, shape=SHAPE, fans=FANS, seed=0, name="conv.w"):
    return draw(rule, shape, fans, seed, name)


@pytest.mark.parametrize(
    ("rule", "limit"), [("glorot", np.sqrt(6 / 1500)), ("ufldl dense", np.sqrt(6 / (500 + 1000 + 1)))]
)
def test_uniform_rules_fill_their_interval(rule, limit):
    w = drawn("glorot") if rule == "glorot" else drawn("ufldl", shape=(500, 1000))
    assert abs(w).max() <= limit
    assert abs(w).max() == pytest.approx(limit, rel=1e-3)
    assert w.mean() == pytest.approx(0, abs=6 * limit / np.sqrt(3 * w.size))
    assert w.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)


@pytest.mark.parametrize(("rule", "deviation"), [("he", np.sqrt(2 / 500)), ("ufldl", 0.1), ("normal", 1.0)])
def test_normal_rules_have_their_deviation(rule, deviation):
    w = drawn(rule)
    assert w.mean() == pytest.approx(0, abs=6 * deviation / np.sqrt(w.size))
    assert w.std() == pytest.approx(deviation, rel=0.03)
    assert np.mean(abs(w) > 2 * deviation) == pytest.approx(0.0455, abs=0.01)  # uniform numbers would have none


def test_zeros_and_ones():
    assert not drawn("zeros").any()
    assert (drawn("ones") == 1).all()


@pytest.mark.parametrize(("taps", "expected"), [(2, [0.5, 0.5]), (4, [0.25, 0.75, 0.75, 0.25]), (3, [0.5, 1.0, 0.5])])
def test_bilinear_kernels(taps, expected):
    line = drawn("bilinear", shape=(taps, 2, 2))
    assert line[:, 0, 0].tolist() == line[:, 1, 1].tolist() == expected
    assert not line[:, 0, 1].any()
    plane = drawn("bilinear", shape=(taps, taps, 1, 1))[..., 0, 0]
    assert np.array_equal(plane, np.outer(expected, expected))


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_bilinear_upsampling_keeps_a_constant_picture(stride):
    net = ft.Chain(
        up=ft.ConvTranspose(2, kernel=2 * stride, stride=stride, padding=stride // 2, bias=False, initial="bilinear")
    ).on((5, 5, 2))
    y = net.predict(net.initial(dtype=np.float64), np.ones((1, 5, 5, 2)))
    inside = y[:, stride:-stride, stride:-stride]
    np.testing.assert_allclose(inside, 1, rtol=1e-15)


@pytest.mark.parametrize("rule", sorted({"glorot", "he", "ufldl", "normal"}))
def test_numbers_depend_on_seed_and_name_alone(rule):
    w = drawn(rule)
    assert np.array_equal(w, drawn(rule))
    assert not np.array_equal(w, drawn(rule, seed=1))
    assert not np.array_equal(w, drawn(rule, name="conv2.w"))


def test_the_random_stream_is_the_one_that_models_were_made_with():
    """Another stream would silently change every published number: this must fail then."""
    w = draw("he", (3,), (2, 1), seed=0, name="conv.w")
    assert w.round(6).tolist() == [0.297592, -0.345784, -1.1465]


def test_a_further_node_leaves_the_others_as_they_were():
    small = ft.Chain(conv=ft.Conv(2, kernel=3), flat=ft.Flatten(), dense=ft.Affine(3)).on((6, 6, 1))
    large = ft.Chain(
        conv=ft.Conv(2, kernel=3), more=ft.Conv(2, kernel=3, padding=1), flat=ft.Flatten(), dense=ft.Affine(3)
    ).on((6, 6, 1))
    one, other = small.initial(seed=7), large.initial(seed=7)
    for name, w in one.items():
        assert np.array_equal(w, other[name])


def test_float32_parameters_are_the_rounded_float64_ones():
    net = ft.Chain(dense=ft.Affine(3)).on((4,))
    wide, narrow = net.initial(seed=0, dtype=np.float64), net.initial(seed=0)
    assert narrow["dense.w"].dtype == np.float32
    assert np.array_equal(wide["dense.w"].astype(np.float32), narrow["dense.w"])


def test_every_rule_can_be_asked_for_and_no_other():
    assert set(RULES) == {"glorot", "he", "ufldl", "normal", "zeros", "ones", "bilinear"}
    for rule in RULES:
        asked = ft.Conv(2, kernel=3, initial=rule).parameters((5, 5, 2))["w"]
        assert isinstance(asked, element.Parameter)
        assert drawn(asked.rule, asked.shape, asked.fans).shape == (3, 3, 2, 2)
    with pytest.raises(SettingError, match="got initial='xavier', expected one of 'glorot', 'he', 'ufldl'"):
        ft.Conv(2, kernel=3, initial="xavier")


@pytest.mark.parametrize("seed", [-1, 0.5, "zero", None, True])
def test_what_is_no_seed_is_refused(seed):
    message = f"got seed={seed!r}, expected a whole number from 0; choose another seed"
    net = ft.Chain(dense=ft.Affine(3)).on((4,))
    with pytest.raises(SettingError, match=message):
        net.initial(seed=seed)
    with pytest.raises(SettingError, match=message):
        ft.check.element_check(ft.Affine(3), (4,), seed=seed)
    with pytest.raises(SettingError, match=message):
        ft.check.adjoint_check(ft.Affine(3), (4,), seed=seed)
    x = np.ones((1, 4))
    with pytest.raises(SettingError, match=message):
        ft.check.gradient_check(net, net.initial(), x, np.ones((1, 3)), cost=ft.SquaredError(), seed=seed)
