"""Whole networks beside their peers: python -m benchmarks.networks SECTION [--only ufldl vgg] [--out FILE]

Sections: check, train, predict, memory, start, download, mnist, growth. Run from the root of the repository.
"""

import argparse
import json
from importlib import import_module
from pathlib import Path

from .sides import SETTINGS, limit, machine

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
    limit(options.threads)  # before any library counts the cores
    run = getattr(import_module(f".{SECTIONS[options.section]}", __package__), options.section)
    rows, text = run(options)
    about = machine() | {"threads": options.threads}
    print(text)
    if "torch compile" not in SETTINGS:
        print("torch compile is left out: there is no C++ compiler")
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    if options.out:
        options.out.write_text(json.dumps({"section": options.section, "machine": about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
