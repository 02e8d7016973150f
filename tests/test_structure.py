"""The rooms of the package: who may know whom, and what every file keeps to."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import faltung

PACKAGE = Path(faltung.__file__).parent
ROOT = Path(__file__).parents[1]
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}

# A room knows those above its own line, and no other one of its line.
LINES = (
    "errors",
    "geometry special randomness text exchange.atomic",
    "initial receptive arithmetic formula data",
    "elements engine engine.loops",
    "engine.host",
    "engine.kernels",
    "engine.programs engine.stream",
    "network",
    "check matrix draw exchange engine.lower engine.programs.plan",
    "engine.elements engine.strips",
    "engine.networks",
    "training engine.native",
    "model",
    "models",
    "cli",
    "",  # the package itself, whose names are for users
)
# Some know less than what is above them.
ONLY = {
    "data": "errors exchange.atomic",
    "draw": "errors geometry receptive arithmetic elements network",
    "elements": "errors geometry receptive special randomness initial formula",
    "network": "errors text geometry receptive initial elements",
}
LINE_OF = {room: line for line, rooms in enumerate(LINES) for room in rooms.split(" ")}


def room_of(module: str) -> str:
    """The room of a module or name, as "exchange.atomic" of faltung.exchange.atomic.write."""
    parts = module.split(".")[1:]
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((name for name in names if name in LINE_OF), parts[0] if parts else "")


def imports(source: str) -> Iterator[str]:
    """The full name of whatever is imported, inside functions and for type checkers, too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def trespasses(room: str, source: str) -> list[str]:
    """What a file of this room imports of rooms that it may not know."""
    found = []
    for name in imports(source):
        other = room_of(name)
        inside = name.split(".")[0] == "faltung" and name != "faltung.__version__"
        if name.startswith(".") or (inside and other != room and not _may_know(room, other)):
            found.append(name)
    return found


def _may_know(room: str, other: str) -> bool:
    known = other in LINE_OF and LINE_OF[other] < LINE_OF[room]
    return known and other in ONLY.get(room, other).split(" ")


def module_of(path: Path) -> str:
    """The name of a file as a module."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] in ("__init__", "__main__") else parts)


# Who may know whom


def test_every_file_has_a_room():
    assert {module_of(path) for path in SOURCES if room_of(module_of(path)) not in LINE_OF} == set()


def test_imports_point_one_way():
    found = {module_of(path): trespasses(room_of(module_of(path)), source) for path, source in SOURCES.items()}
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("errors", "import faltung.geometry"),
        ("geometry", "from faltung.elements import element"),
        ("elements", "from faltung import network"),
        ("elements", "def f():\n    from faltung.network.composite import Chain"),
        ("elements", "if TYPE_CHECKING:\n    import faltung.network as net"),
        ("elements", "from faltung.engine import language"),
        ("engine", "from faltung.elements.element import Array"),
        ("network", "from faltung.check import gradient_check"),
        ("network", "from faltung.exchange import atomic"),
        ("exchange.atomic", "from faltung.exchange import description"),
        ("data", "from faltung.exchange.modelfile import load_model"),
        ("data", "from faltung.elements import Conv"),
        ("draw", "from faltung.training import fit"),
        ("matrix", "from faltung.check import adjoint_check"),
        ("training", "from faltung import Model"),
        ("models", "import faltung"),
        ("cli", "from .app import app"),
        ("cli", "from faltung.unknown import thing"),
    ],
)
def test_a_trespass_is_seen(room, source):
    assert len(trespasses(room, source)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        (
            "elements",
            "import numpy, math\nfrom faltung.elements.element import Array\nfrom faltung.geometry import Window",
        ),
        ("data", "from faltung.exchange import atomic\nfrom faltung.exchange.atomic import write"),
        ("engine.lower", "from faltung.engine.loops.language import Function\nfrom faltung.elements import Conv"),
        ("cli", "from faltung import __version__, models, data"),
        ("", "from faltung.cli import main\nfrom faltung import models"),
    ],
)
def test_what_is_above_may_be_known(room, source):
    assert trespasses(room, source) == []


# What every file keeps to


def test_no_file_is_long():
    lines = {module_of(path): len(source.splitlines()) for path, source in SOURCES.items()}
    assert {module: count for module, count in lines.items() if count > 400} == {}


def test_nothing_is_evaluated_or_unpickled():
    for path, source in SOURCES.items():
        assert not {"pickle", "shelve", "marshal"} & {name.split(".")[0] for name in imports(source)}, path
        calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        names = {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}
        assert not {"eval", "exec", "sympify", "__import__"} & names, path


def test_peers_are_never_imported():
    paths = [path for folder in ("src", "tests", "tools", "examples") for path in (ROOT / folder).rglob("*.py")]
    for path in paths:
        used = {name.split(".")[0] for name in imports(path.read_text(encoding="utf-8"))}
        assert not {"torch", "jax", "tensorflow", "tinygrad"} & used, path


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert "version" not in project["project"]
    assert (ROOT / project["tool"]["hatch"]["version"]["path"]).samefile(PACKAGE / "__init__.py")
    holders = [module_of(path) for path, source in SOURCES.items() if re.search(r"(?m)^__version__\s*=", source)]
    assert holders == ["faltung"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", faltung.__version__)


def test_no_file_names_a_place_on_one_machine():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("no checkout of git, so nobody knows which files belong to the project")
    place = re.compile(rb"/(?:work|home|root|Users|opt)/\w|[A-Z]:\\+Users\\")
    paths = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    texts = {path: path.read_bytes() for path in paths if path.is_file() and path.suffix not in (".gz", ".png")}
    assert {path.name: found[0] for path, text in texts.items() if (found := place.search(text))} == {}


# Importing it


def test_type_checkers_see_the_names_that_exist_and_no_others():
    (listed,) = [
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(SOURCES[PACKAGE / "__init__.py"]))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    names = faltung.__all__
    assert sorted(names) == sorted([*listed, *faltung.elements.__all__])
    assert set(names) <= set(dir(faltung))
    for name in names:
        assert getattr(faltung, name)
    run_python("from faltung import *; print(Conv, Graph, fit, Model, matrix, elements)")
    with pytest.raises(AttributeError, match="module 'faltung' has no attribute 'Convolution'"):
        _ = faltung.Convolution  # pyright: ignore[reportAttributeAccessIssue] -- the mistake


def run_python(code: str) -> list[str]:
    """The words that the code prints, in a Python of its own."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout.split()


def test_the_package_imports_nothing_large_and_takes_no_time():
    seconds, *modules = run_python(
        "import sys, time, numpy; begun = time.process_time(); import faltung;"
        "print(time.process_time() - begun, *sys.modules)"
    )
    large = {"scipy", "sympy", "PIL", "rich", "typer", "click", "llvmlite", "matplotlib", "safetensors", "platformdirs"}
    assert not large & {module.split(".")[0] for module in modules}
    assert float(seconds) < 0.5


def test_scipy_sympy_and_llvmlite_are_imported_only_where_they_are_needed():
    needing = ("faltung.formula.derivative", "faltung.engine")
    modules = [name for name in map(module_of, SOURCES) if not name.startswith(needing)]
    absent = "import sys; sys.modules.update(dict.fromkeys(('scipy', 'sympy', 'llvmlite')))"
    run_python(f"{absent}; [__import__(name) for name in {modules}]")
