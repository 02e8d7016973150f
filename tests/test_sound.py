"""Pictures of sounds show what is heard: when, how loud, and at which frequencies."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from faltung.draw.sound import BANDS, COLUMNS, LEVELS, sounds, summary
from faltung.errors import DataError

RATE = 16_000
TIME = np.arange(2 * RATE) / RATE


def test_a_tone_lies_at_its_frequency_while_it_lasts():
    wave = np.where(TIME < 1, 0.5 * np.sin(2 * np.pi * 3100 * TIME), 0.25 * np.sin(2 * np.pi * 700 * TIME))
    seen = summary("tones", wave, RATE)
    assert seen.seconds == 2.0
    assert len(seen.levels) == BANDS
    assert {len(row) for row in seen.levels} == {COLUMNS}
    first, second = ([int(row[column]) for row in seen.levels] for column in (50, 170))
    assert np.argmax(first) == 3100 // 200
    assert first[3100 // 200] == LEVELS - 1
    assert np.argmax(second) == 700 // 200
    assert second[700 // 200] == LEVELS - 1 - 6 // 9  # 6 dB less is no level less
    assert sum(level > 0 for level in first) < 8
    assert seen.high[50] == 50
    assert seen.low[170] == -25


def test_silence_is_empty():
    seen = summary("silence", np.zeros(RATE), RATE)
    assert set("".join(seen.levels)) == {"0"}
    assert set(seen.low) | set(seen.high) == {0}


def test_the_picture_has_one_panel_a_sound_and_keeps_their_lengths():
    wave = 0.5 * np.sin(2 * np.pi * 500 * TIME)
    drawn = sounds([summary("original <1>", wave, RATE), summary("generated", wave[:RATE], RATE)])
    picture = ElementTree.fromstring(drawn)
    words = ["".join(part.itertext()) for part in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "original <1>   2.00 s" in words
    assert "generated   1.00 s" in words
    assert words.count("8 kHz") == 2
    assert float(picture.get("height") or 0) > 400


def test_a_picture_follows_from_its_numbers():
    seen = summary("noise", np.random.default_rng(0).uniform(-1, 1, RATE), RATE)
    assert sounds([seen]) == sounds([replace(seen, levels=list(seen.levels))])
    assert sounds([seen]) != sounds([replace(seen, levels=["0" * COLUMNS] * BANDS)])


@pytest.mark.parametrize("wave", [np.zeros(COLUMNS - 1), np.zeros((300, 2)), np.full(300, np.nan)])
def test_what_cannot_be_drawn_is_refused(wave):
    with pytest.raises(
        DataError, match=r"'noise': got a wave of shape .*, expected at least 220 finite samples in a r"
    ):
        summary("noise", wave, RATE)
