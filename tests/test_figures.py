"""The figures in the documentation are those that the package draws."""

import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from faltung.draw.products import products

ROOT = Path(__file__).parent.parent


def drawn():
    spec = importlib.util.spec_from_file_location("draw_figures", ROOT / "tools" / "draw_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DRAWN


@pytest.mark.parametrize("name", sorted(drawn()))
def test_committed_figure_is_what_the_package_draws(name):
    assert (ROOT / "docs" / "figures" / name).read_text(encoding="utf-8") == drawn()[name]()


def test_products_shows_the_numbers_that_it_multiplies_and_marks_one_tap():
    rng = np.random.default_rng(0)
    x, w, dy = (rng.integers(-9, 10, shape).astype(float) for shape in ((4, 5), (2, 3), (3, 3)))
    picture = ElementTree.fromstring(products(x, w, dy, position=(2, 1), tap=(1, 2)))
    cells = [text.text or "" for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    y = np.sum([w[i, j] * x[i : i + 3, j : j + 3] for i in range(2) for j in range(3)], axis=0)
    bold = [t.text for t in picture.iter("{http://www.w3.org/2000/svg}text") if t.get("font-weight") == "700"]
    shown = {f"{value:g}".replace("-", "\u2212") for value in np.ravel(y)}
    assert shown <= set(cells)
    assert bold[:3] == [f"{value:g}".replace("-", "\u2212") for value in (x[3, 3], w[1, 2], y[2, 1])]
