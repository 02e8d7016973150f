"""WaveNets beside their peers: python -m benchmarks.wavenet SECTION [--only nv ibab] [--batch 1x16000] [--out FILE]

Sections: check, train, memory, generate, growth. Run from the root of the repository.
"""

import argparse
from pathlib import Path

from ..networks.section import run_section
from .sides import SETTINGS
from .works import SPOKEN, WORKS

SECTIONS = {
    "check": "training",
    "train": "training",
    "memory": "training",
    "generate": "generation",
    "growth": "generation",
}
"""The module of each section's function."""


def main():
    """Run one section, print its table in Markdown, and write all its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--only", nargs="+", help="networks")
    parser.add_argument("--batch", nargs="+", type=batch, help="examples x samples, as 1x16000")
    parser.add_argument("--sides", nargs="+", choices=[*SETTINGS, "numpy", "torch eager"], help="contestants")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a JSON file for all numbers")
    options = parser.parse_args()
    known = WORKS if SECTIONS[options.section] == "training" else SPOKEN
    if unknown := set(options.only or ()) - set(known):
        parser.error(f"{options.section} knows {', '.join(known)}, not {', '.join(unknown)}")
    run_section(options, SECTIONS, __package__, SETTINGS)


def batch(text):
    """Examples and samples."""
    examples, samples = text.split("x")
    return int(examples), int(samples)


if __name__ == "__main__":
    main()
