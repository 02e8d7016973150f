"""Reading recordings: rates, channels, silence, and files that cannot be read."""

import sys

import numpy as np
import pytest
import soundfile

from faltung.data import audio
from faltung.data.audio import Recording, Skipped, audio_files, read_recordings, read_wave, trim, write_wav
from faltung.errors import DataError, FileError, MissingExtraError, SettingError

RATE = 16000


def tone(seconds=0.5, rate=RATE, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz / rate * np.arange(round(seconds * rate)))).astype(np.float32)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_is_read_as_it_was_written(tmp_path, suffix):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(), RATE)
    assert read_wave(path, RATE) == pytest.approx(tone(), abs=2**-15)
    assert read_wave(path, RATE).dtype == np.float32


def test_write_wav_is_read_back_and_cuts_what_is_too_loud(tmp_path):
    write_wav(tmp_path / "a.wav", np.array([0.0, 0.5, -0.25, 3.0, -3.0]), RATE)
    samples, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == RATE
    assert samples == pytest.approx([0.0, 0.5, -0.25, 1.0, -1.0], abs=2**-14)


def test_write_wav_into_a_folder_that_is_missing(tmp_path):
    with pytest.raises(FileError, match=r"cannot write .*a\.wav: No such file or directory; make the folder first"):
        write_wav(tmp_path / "missing" / "a.wav", tone(), RATE)


def test_stereo_is_mixed_down(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), np.zeros_like(tone())], 1), RATE, subtype="FLOAT")
    assert read_wave(tmp_path / "a.wav", RATE) == pytest.approx(tone() / 2, abs=1e-6)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_are_resampled(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(rate=rate), rate, subtype="FLOAT")
    found = read_wave(tmp_path / "a.wav", RATE)
    assert len(found) == 8000
    middle = slice(1000, -1000)
    assert found[middle] == pytest.approx(tone()[middle], abs=0.005)


def test_silence_at_both_ends_is_cut_and_inside_is_kept():
    rng = np.random.default_rng(0)
    loud, quiet = rng.uniform(-1, 1, 3200).astype(np.float32), rng.uniform(-0.005, 0.005, 6400).astype(np.float32)
    assert np.array_equal(
        trim(np.concatenate([quiet, loud, quiet, loud, quiet]), RATE), np.concatenate([loud, quiet, loud])
    )
    assert np.array_equal(trim(loud[:3000], RATE), loud[:3000])


def test_files_are_listed_by_name_with_folders(tmp_path):
    (tmp_path / "b" / ".hidden").mkdir(parents=True)
    for name in ("c.WAV", "a.flac", "b/d.wav", ".e.wav", "b/.hidden/f.wav", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert audio_files(tmp_path) == ["a.flac", "b/d.wav", "c.WAV"]


def test_a_folder_without_recordings(tmp_path):
    with pytest.raises(DataError, match=r"there is no WAV or FLAC file; name a folder of recordings"):
        audio_files(tmp_path)
    with pytest.raises(DataError, match=r"missing is no folder; name a folder of WAV or FLAC files"):
        audio_files(tmp_path / "missing")


def bad_files(folder):
    """A file of each kind that cannot be used, by name, and what is said of it."""
    soundfile.write(folder / "good.flac", np.random.default_rng(0).uniform(-1, 1, 50_000), RATE)
    whole = (folder / "good.flac").read_bytes()
    (folder / "truncated.flac").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.wav").write_bytes(b"not a wave at all")
    (folder / "nothing.wav").write_bytes(b"")
    soundfile.write(folder / "silent.wav", np.zeros(5000), RATE)
    soundfile.write(folder / "empty.wav", np.zeros(0), RATE)
    broken = tone()
    broken[7] = np.nan
    soundfile.write(folder / "nan.wav", broken, RATE, subtype="FLOAT")
    return {
        "truncated.flac": "cannot be read|is cut off after",
        "noise.wav": "cannot be read",
        "nothing.wav": "cannot be read",
        "silent.wav": "is silent",
        "empty.wav": "is empty",
        "nan.wav": "sample 7 is nan, no finite number",
    }


def test_what_cannot_be_used_is_named_and_skipped(tmp_path):
    expected = bad_files(tmp_path)
    found = list(read_recordings(tmp_path, audio_files(tmp_path), rate=RATE))
    assert [part.name for part in found if isinstance(part, Recording)] == ["good.flac"]
    skipped = {part.name: part.why for part in found if isinstance(part, Skipped)}
    assert skipped.keys() == expected.keys()
    for name, why in expected.items():
        assert any(word in skipped[name] for word in why.split("|")), skipped[name]
        assert str(tmp_path) not in skipped[name]
        with pytest.raises(DataError, match=why):
            read_wave(tmp_path / name, RATE)


def test_of_a_wave_file_that_was_cut_off_what_is_left_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[: len(whole) // 2])
    assert read_wave(tmp_path / "a.wav", RATE) == pytest.approx(tone()[:3989], abs=2**-15)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.wav: cannot be read \(.*\); fetch or convert it again"):
        read_wave(tmp_path / "gone.wav", RATE)


def test_a_wrong_rate(tmp_path):
    with pytest.raises(SettingError, match=r"got rate=0, expected a whole number of samples a second"):
        read_wave(tmp_path / "a.wav", 0)


@pytest.mark.parametrize("name", ["soundfile", "scipy.signal"])
def test_without_the_libraries_the_way_out_is_said(tmp_path, monkeypatch, name):
    soundfile.write(tmp_path / "a.wav", tone(rate=8000), 8000)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtraError, match=r"reading audio needs (soundfile|scipy), .*; pip install 'faltung\[audio\]'"
    ):
        read_wave(tmp_path / "a.wav", RATE)


def test_files_cut_off_are_told_from_whole_ones(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    real = soundfile.SoundFile.read
    monkeypatch.setattr(audio._library("soundfile").SoundFile, "read", lambda file, **kind: real(file, 100, **kind))
    with pytest.raises(DataError, match=r"a\.wav: is cut off after 100 of 8,000 samples; fetch or convert it again"):
        read_wave(tmp_path / "a.wav", RATE)
