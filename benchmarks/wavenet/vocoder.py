"""From log-mel spectrograms back to sound: a trained vocoder beside Griffin and Lim's iteration.

python -m benchmarks.wavenet.vocoder MODEL FOLDER [--prompts 10] [--out FILE.json] [--waves FOLDER]

MODEL was trained by ``faltung wavenet train FOLDER --mel``; the first recordings of FOLDER that are left for tests are
made anew from their spectrograms. The distance to the original is that of log-mel spectrograms, root of the mean
square over bands and frames, in decibels; once over all of them, and once over those that are at most 40 dB below the
loudest. ``mu-law`` is the original in 256 codes: no WaveNet of 256 classes is nearer.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from faltung.data.audio import write_wav
from faltung.data.mel import fft_size, filters, hann, log_mel, spectrum
from faltung.models.wavenet import WaveNet, decode, generate
from faltung.models.wavenet.corpus import TEST, read_corpus

ITERATIONS, MOMENTUM = 100, 0.99
LOUD = 40
"""So many decibels below the loudest entry of a spectrogram is still loud."""


def inverse(spectra, hop, count):
    """The wave whose windows have these spectra as nearly as can be (least squares)."""
    window, size = hann(hop), 4 * hop
    wave, weight = np.zeros((2, len(spectra) * hop + size))
    for j, part in enumerate(np.fft.irfft(spectra, fft_size(hop))[:, :size]):
        wave[j * hop : j * hop + size] += part * window
        weight[j * hop : j * hop + size] += window**2
    before = (size - hop) // 2
    return (wave / np.maximum(weight, 1e-3 * weight.max()))[before : before + count]


def griffin_lim(mels, settings, count):
    """A wave of this log-mel spectrogram: loudness by least squares from the bands, then phases that fit each other.

    Griffin & Lim 1984, with the momentum of Perraudin, Balazs & Sondergaard 2013.
    """
    bands = filters(settings.local, settings.rate, fft_size(settings.hop))
    loudness = np.maximum(10 ** mels.astype(float) @ np.linalg.pinv(bands), 1e-8)
    random = np.random.default_rng(0)
    spectra = loudness * np.exp(2j * np.pi * random.random(loudness.shape))
    last = np.zeros_like(spectra)
    for _ in range(ITERATIONS):
        now = spectrum(inverse(spectra, settings.hop, count), settings.hop)
        ahead = now + MOMENTUM * (now - last)
        spectra, last = loudness * np.exp(1j * np.angle(ahead)), now
    return inverse(spectra, settings.hop, count)


def distances(wave, mels, settings):
    """Decibels between the spectrogram of a wave and another: everywhere, and where the other is loud."""
    found = log_mel(wave, rate=settings.rate, hop=settings.hop, mels=settings.local)
    squares = np.square(20 * (found - mels), dtype=float)
    loud = mels > mels.max() - LOUD / 20
    return {"all": float(np.sqrt(squares.mean())), "loud": float(np.sqrt(squares[loud].mean()))}


def main():
    """Make all prompts anew, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--waves", type=Path)
    options = parser.parse_args()
    model = WaveNet.load(options.model)
    settings, rows = model.settings, []
    corpus = read_corpus(options.folder, settings)
    names = [entry.name for entry in corpus.entries if entry.part == TEST and "skipped" not in entry.note]
    for name, clip in list(zip(names, corpus.clips[TEST], strict=True))[: options.prompts]:
        count, coded = len(clip.codes), decode(clip.codes)
        mels = (clip.local - 1) * 5
        begun = time.perf_counter()
        said = generate(model, count, local=clip.local[None], temperature=options.temperature)
        waves = {"vocoder": np.concatenate(list(said), axis=1)[0]}
        middle = time.perf_counter()
        waves |= {"griffin-lim": griffin_lim(mels, settings, count), "mu-law": coded}
        row = {"file": name, "seconds": count / settings.rate, "vocoder took": middle - begun}
        row |= {"griffin-lim took": time.perf_counter() - middle}
        for side, wave in waves.items():
            row |= {f"{side}, {part}": found for part, found in distances(wave, mels, settings).items()}
        rows.append(row)
        print({key: value if isinstance(value, str) else round(value, 2) for key, value in row.items()}, flush=True)
        if options.waves:
            options.waves.mkdir(parents=True, exist_ok=True)
            for side, wave in waves.items():
                write_wav(options.waves / f"{Path(name).stem}-{side}.wav", wave, settings.rate)
    sides = [key for key in rows[0] if key.endswith((", all", ", loud"))]
    means = {side: float(np.mean([row[side] for row in rows])) for side in sides}
    print("mean distance in dB", {side: round(mean, 2) for side, mean in means.items()})
    if options.out:
        about = {"temperature": options.temperature, "bits": model.about.get("bits"), "steps": model.about.get("steps")}
        options.out.write_text(json.dumps(about | {"mean": means, "prompts": rows}, indent=1))


if __name__ == "__main__":
    main()
