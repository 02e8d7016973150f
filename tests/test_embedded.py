"""The embedded data set: balanced, unchanged, small, licensed, and rebuilt by its script."""

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from faltung.data import fashion

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "src/faltung/data/fashion"


def test_the_classes_are_balanced():
    train, test = fashion()
    assert np.bincount(train.labels).tolist() == [1000] * 10
    assert np.bincount(test.labels).tolist() == [200] * 10
    assert train.classes == test.classes
    assert (len(train.classes), train.classes[0], train.classes[9]) == (10, "T-shirt/top", "Ankle boot")
    assert train.pixels.shape == (10_000, 28, 28, 1)
    assert test.pixels.shape == (2_000, 28, 28, 1)


def test_no_pixel_and_no_label_has_changed():
    digests = [hashlib.sha256(part.pixels.tobytes() + part.labels.tobytes()).hexdigest() for part in fashion()]
    assert digests == [
        "73194a0c06a93deab58b95e00e618cc5c80fb5c9a84df26bbc429eeb3507846a",
        "8e8b02fc2db0ff9ed2d481ff30f8bd7cc5c88205cb131d7f4a0c19448f6957c9",
    ]


def test_it_is_small_and_carries_its_licence():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 6_000_000
    assert "Copyright (c) 2017 Zalando SE" in (FOLDER / "LICENSE").read_text()


@pytest.mark.slow
def test_the_script_builds_the_same_files_again(full_data, tmp_path):
    script = [sys.executable, str(ROOT / "tools/build_fashion.py"), str(full_data / "fashion_mnist")]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        subprocess.run([*script, str(tmp_path / name)], check=True)
    for old in FOLDER.glob("*.gz"):
        one, two = ((tmp_path / name / old.name).read_bytes() for name in ("one", "two"))
        assert one == two
        assert gzip.decompress(one) == gzip.decompress(
            old.read_bytes()
        )  # another zlib may pack the same bytes otherwise


@pytest.mark.slow
def test_the_script_refuses_another_data_set(full_data, tmp_path):
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools/build_fashion.py"), str(FOLDER), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "expected 60000 of 28 x 28" in run.stderr
    assert not list(tmp_path.iterdir())
