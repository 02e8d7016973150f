"""Look at sound files for a figure: ``python tools/draw_speech.py "original=a.flac" "generated=b.wav"``.

What it sees goes into docs/figures/speech.json, from which ``draw_figures.py`` draws the picture: the sounds, whose
licence is not ours, are not needed then.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from faltung.data.audio import read_wave
from faltung.draw.sound import summary

SEEN = Path(__file__).parent.parent / "docs" / "figures" / "speech.json"
RATE = 16_000

if __name__ == "__main__":
    pairs = [argument.partition("=") for argument in sys.argv[1:]]
    rows = [asdict(summary(name, read_wave(path, RATE), RATE)) for name, _, path in pairs]
    SEEN.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")
