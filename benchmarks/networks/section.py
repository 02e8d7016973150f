"""One section of a benchmark, from the command line to its table and its file."""

import json
from importlib import import_module

from .sides import limit, machine


def run_section(options, sections, package, sides):
    """Run the chosen one of ``sections``, print its table in Markdown, and write all its numbers."""
    limit(options.threads)  # before any library counts the cores
    rows, text = getattr(import_module(f".{sections[options.section]}", package), options.section)(options)
    about = machine() | {"threads": options.threads}
    print(text)
    if "torch compile" not in sides:
        print("torch compile is left out: there is no C++ compiler")
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    if options.out:
        options.out.write_text(json.dumps({"section": options.section, "machine": about, "rows": rows}, indent=1))
