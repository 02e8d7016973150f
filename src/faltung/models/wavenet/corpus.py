"""A folder of recordings as training, validation and test clips."""

import os
from dataclasses import dataclass

from faltung.data.audio import Skipped, audio_files, read_recordings
from faltung.errors import DataError
from faltung.models.wavenet.settings import Settings
from faltung.models.wavenet.windows import Clip, clip, countable

TRAINING, VALIDATION, TEST = PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Entry:
    """One file of a folder: where it belongs, how long it is without its silent ends, and what else is to be said."""

    name: str
    part: str
    seconds: float
    note: str = ""


@dataclass(frozen=True, eq=False)
class Corpus:
    """The clips of each part, and what was found in the folder, file by file."""

    clips: dict[str, list[Clip]]
    entries: list[Entry]


def part_of(index: int, count: int) -> str:
    """Where a file belongs, by its place in the order of all names.

    Of ten files, the ninth is for validation and the tenth for the test; of fewer than nine, the last for validation.

    >>> [part_of(index, 20) for index in (0, 7, 8, 9, 10)], part_of(2, 3)
    (['training', 'training', 'validation', 'test', 'training'], 'validation')
    """
    if count < 9:
        return VALIDATION if index == count - 1 else TRAINING
    return {8: VALIDATION, 9: TEST}.get(index % 10, TRAINING)


def read_corpus(folder: str | os.PathLike[str], settings: Settings) -> Corpus:
    """Read all WAV and FLAC files of a folder as clips for these settings.

    Files that cannot be read are skipped, with a note in their entry.
    Raises: DataError where there are no recordings, or none long enough for training or for validation.
    """
    names = audio_files(folder)
    clips: dict[str, list[Clip]] = {part: [] for part in PARTS}
    entries = []
    for index, found in enumerate(read_recordings(folder, names, rate=settings.rate)):
        part = part_of(index, len(names))
        if isinstance(found, Skipped):
            entries.append(Entry(found.name, part, 0.0, f"skipped: {found.why}"))
            continue
        own = clip(found.wave, settings)
        notes = [f"{found.rate:,} Hz"] * (found.rate != settings.rate)
        notes += [f"{found.channels} channels"] * (found.channels > 1)
        if countable(own, settings):
            clips[part].append(own)
        else:
            notes.append("skipped: too short for what the network sees")
        entries.append(Entry(found.name, part, len(found.wave) / settings.rate, ", ".join(notes)))
    for part in (TRAINING, VALIDATION):
        if not clips[part]:
            last = next((entry for entry in reversed(entries) if entry.note and entry.part == part), None)
            example = f" ({last.name}: {last.note})" if last else ""
            raise DataError(
                f"{folder}: of {len(names)} recordings, none is left for {part}{example}",
                way_out="add recordings, or cut a long one into several files",
            )
    return Corpus(clips, entries)
