"""What models without a network know of the next sample, in bits, on the samples that a network is validated on.

python -m benchmarks.wavenet.baselines FOLDER [--setting nv] [--out FILE.json] [--log RUN/log.jsonl --picture FILE.svg]

- histogram: how often each code occurs in training, whatever came before.
- bigram: how often after the code before, mixed with the histogram as if that had been seen ``PRIOR`` times more.
- linear: the last 16 amplitudes predict the next one, with the weights of least squares over all training; what is
  missed has one distribution everywhere, whose probability of each code is its integral over the amplitudes of that
  code. Three distributions: Gaussian, Laplace, and a mixture of ten Gaussians around 0, fitted to training.

Each is fitted to the training files and measured on the validation files, on the same samples as a network of the
setting: those that have a full receptive field before them. The picture shows a run of the network beside them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from faltung.models.wavenet import decode, find_settings
from faltung.models.wavenet.corpus import read_corpus
from faltung.models.wavenet.windows import warmup

from .lines import lines

ORDER, PRIOR, MIXED, ROUNDS = 16, 10, 10, 60
LEVELS = {"histogram": "histogram", "linear": "linear, mixture", "bigram": "bigram"}


def histogram(train):
    """The probability of each code."""
    counts = np.bincount(np.concatenate(train), minlength=256) + 1.0
    return counts / counts.sum()


def bigram(train):
    """The probability of each code after each."""
    counts = np.zeros((256, 256))
    for codes in train:
        counts += np.bincount(codes[:-1] * 256 + codes[1:], minlength=65536).reshape(256, 256)
    return (counts + PRIOR * histogram(train)) / (counts.sum(1, keepdims=True) + PRIOR)


def before(waves):
    """The last ``ORDER`` amplitudes before each, latest first."""
    return np.stack([waves[ORDER - 1 - k : len(waves) - 1 - k] for k in range(ORDER)], 1)


def least_squares(waves):
    """The weights of the linear predictor."""
    products, sums = np.zeros((ORDER, ORDER)), np.zeros(ORDER)
    for wave in waves:
        past = before(wave)
        products += past.T @ past
        sums += past.T @ wave[ORDER:]
    return np.linalg.solve(products, sums)


def mixture(missed):
    """Shares and widths of Gaussians around 0, by expectation and maximisation."""
    widths, shares = missed.std() * np.geomspace(0.01, 5, MIXED), np.full(MIXED, 1 / MIXED)
    for _ in range(ROUNDS):
        logs = np.log(shares / widths) - np.square(missed[:, None] / widths) / 2
        parts = np.exp(logs - logs.max(1, keepdims=True))
        parts /= parts.sum(1, keepdims=True)
        shares, widths = parts.mean(0), np.sqrt(parts.T @ missed**2 / parts.sum(0))
    return shares, widths


def linear(train, validation, skip):
    """Bits per sample for each distribution of what is missed."""
    waves = [decode(codes).astype(float) for codes in train]
    weights = least_squares(waves)
    missed = np.concatenate([wave[ORDER:] - before(wave) @ weights for wave in waves])
    deviation, spread = missed.std(), abs(missed).mean()
    shares, widths = mixture(missed[::7])
    areas = {
        "Gaussian": lambda x: ndtr(x / deviation),
        "Laplace": lambda x: np.where(x < 0, np.exp(-abs(x) / spread) / 2, 1 - np.exp(-abs(x) / spread) / 2),
        "mixture": lambda x: sum(share * ndtr(x / width) for share, width in zip(shares, widths, strict=True)),
    }
    edges = _edges()
    found = {}
    for name, area in areas.items():
        bits = []
        for codes in validation:
            wave = decode(codes).astype(float)
            guess, real = (before(wave) @ weights)[skip - ORDER :], codes[skip:]
            bits.append(-np.log2(np.maximum(area(edges[real + 1] - guess) - area(edges[real] - guess), 1e-12)))
        found[name] = float(np.mean(np.concatenate(bits)))
    return found


def _edges():
    """The amplitudes between which each code stands; the first and the last one for all that is louder."""
    f = (2 * np.arange(257) - 1) / 255 - 1
    edges = np.copysign(np.expm1(abs(f) * np.log(256)) / 255, f)
    edges[0], edges[-1] = -np.inf, np.inf
    return edges


def drawn(rows, found):
    """A run, and what there is without a network, as SVG."""
    curves = {
        name: [(row["step"], row[key] / np.log(2)) for row in rows]
        for name, key in (("training", "cost"), ("validation", "test_cost"))
    }
    levels = {name: found[key] for name, key in LEVELS.items()}
    return lines("A WaveNet learns speech", "step", "bits per sample", curves, levels)


def main():
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--setting", default="nv")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    settings = find_settings(options.setting)
    clips = read_corpus(options.folder, settings).clips
    skip = warmup(settings) + 1
    train, validation = (
        [clip.codes.astype(np.int64) for clip in clips[part] if len(clip.codes) > skip]
        for part in ("training", "validation")
    )
    chances, pairs = histogram(train), bigram(train)
    found = {
        "histogram": float(np.mean(-np.log2(chances[np.concatenate([codes[skip:] for codes in validation])]))),
        "bigram": float(
            np.mean(np.concatenate([-np.log2(pairs[codes[skip - 1 : -1], codes[skip:]]) for codes in validation]))
        ),
    }
    found |= {f"linear, {name}": bits for name, bits in linear(train, validation, skip).items()}
    about = {"setting": options.setting, "samples": sum(len(codes) - skip for codes in validation)}
    print(json.dumps(about | {"bits per sample": found}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(about | {"bits per sample": found}, indent=1))
    if options.picture:
        rows = [json.loads(line) for line in options.log.read_text().splitlines()]
        options.picture.write_text(drawn(rows, found))


if __name__ == "__main__":
    main()
