"""Whole networks beside their peers: python -m benchmarks.networks SECTION [--only ufldl vgg] [--out FILE]

Sections: check, train, predict, memory, start, download, mnist, growth. Run from the root of the repository.
"""

import argparse
from pathlib import Path

from .section import run_section
from .sides import SETTINGS

SECTIONS = {
    "check": "speed",
    "train": "speed",
    "predict": "speed",
    "memory": "resources",
    "start": "resources",
    "download": "resources",
    "mnist": "mnist",
    "growth": "growth",
}
"""The module of each section's function."""


def main():
    """Run one section, print its table in Markdown, and write all its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--only", nargs="+", help="networks; for growth: batch side channels depth workers sizes")
    parser.add_argument("--batch", nargs="+", type=int, help="instead of each network's own")
    parser.add_argument("--sides", nargs="+", choices=SETTINGS, help="contestants")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", type=int, default=200, help="growth: how many sizes of images")
    parser.add_argument("--figures", type=Path, help="growth: the folder for the pictures")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist"), help="mnist: the folder")
    parser.add_argument("--out", type=Path, help="a JSON file for all numbers")
    options = parser.parse_args()
    run_section(options, SECTIONS, __package__, SETTINGS)


if __name__ == "__main__":
    main()
