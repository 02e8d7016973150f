"""The example of WaveNet learns from a folder, and what it learned can be saved and heard."""

import numpy as np
import pytest

from example_files import FOLDER, load_example
from faltung.data.audio import read_wave, write_wav
from faltung.models.wavenet import Settings, WaveNet

FILE = FOLDER / "wavenet.py"


@pytest.fixture(scope="module")
def example():
    return load_example("wavenet")


def test_it_learns_from_a_folder_and_speaks(example, tmp_path, capsys):
    for number, period in enumerate((20, 30, 50)):
        tone = 0.5 * np.sin(2 * np.pi * np.arange(3000) / period)
        write_wav(tmp_path / f"tone{number}.wav", tone, 4000)
    settings = Settings((1, 2, 4), residual=4, gate=4, skip=4, classes=16, rate=4000)
    model = example.learn(str(tmp_path), settings, steps=30, length=100)
    assert "cost" in "".join(capsys.readouterr())
    model.save(tmp_path / "model.safetensors")
    again = WaveNet.load(tmp_path / "model.safetensors")
    assert all(np.array_equal(w, again.params[name]) for name, w in model.params.items())
    said = np.concatenate(list(example.generate(again, samples=500, seed=0)), axis=1)
    write_wav(tmp_path / "said.wav", said[0], settings.rate)
    assert np.allclose(read_wave(tmp_path / "said.wav", 4000), said[0], rtol=0, atol=1e-4)


def test_it_is_short():
    lines = FILE.read_text(encoding="utf-8").split('"""', 2)[2].splitlines()
    code = [line for line in lines if line.strip() and not line.startswith(("import", "from"))]
    assert len(code) <= 20
