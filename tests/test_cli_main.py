"""The command line as a whole: help, exit codes, and one line for whatever goes wrong."""

import subprocess
import sys

import pytest

import faltung
from commands import run, start
from faltung.models import RECIPES

COMMANDS = ("train", "predict", "evaluate", "describe", "check", "trace", "explain", "cache")


def test_the_version(capsys):
    outcome = run(capsys, "--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"faltung {faltung.__version__}\n", "")


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_every_command(capsys, arguments):
    outcome = run(capsys, *arguments)
    assert outcome.code == 0
    assert all(f"  {command} " in outcome.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    outcome = run(capsys, command, "--help")
    assert outcome.code == 0
    assert f"Usage: faltung {command}" in outcome.out


def test_the_help_of_train_names_every_recipe(capsys):
    text = run(capsys, "train", "--help").out
    assert all(name in text for name in RECIPES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tran",), "No such command 'tran'"),
        (("train", "--epoch", "3"), "No such option"),
        (("train", "--epochs", "many"), "Invalid value for '--epochs'"),
        (("train", "now"), "Got unexpected extra argument"),
        (("predict",), "Missing argument"),
        (("predict", "model"), "Missing argument"),
        (("trace", "model", "image"), "Missing option '--out'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(capsys, arguments, message):
    outcome = run(capsys, *arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith(f"faltung: error: {message}")
    assert outcome.err.count("\n") == 1
    assert " --help" in outcome.err


def raising(error):
    def call(*_, **__):
        raise error

    return call


def test_an_unexpected_error_is_one_line_and_exit_code_70(capsys, monkeypatch):
    monkeypatch.delenv("FALTUNG_DEBUG", raising=False)
    monkeypatch.setattr("faltung.cli.describe.describe", raising(RuntimeError("two\nlines")))
    outcome = run(capsys, "describe", "model")
    assert outcome.code == 70
    assert outcome.err == (
        "faltung: error: RuntimeError: two lines; this is a fault of Faltung, set FALTUNG_DEBUG=1 for the traceback\n"
    )


def test_the_traceback_comes_when_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("FALTUNG_DEBUG", "1")
    monkeypatch.setattr("faltung.cli.describe.describe", raising(RuntimeError("oh")))
    outcome = run(capsys, "describe", "model")
    assert outcome.code == 70
    assert "Traceback" in outcome.err
    assert "in raising" in outcome.err or "in call" in outcome.err


def test_ctrl_c_ends_with_exit_code_130(capsys, monkeypatch):
    monkeypatch.setattr("faltung.cli.describe.describe", raising(KeyboardInterrupt()))
    outcome = run(capsys, "describe", "model")
    assert (outcome.code, outcome.err) == (130, "faltung: stopped\n")


def test_too_little_memory_is_bad_input(capsys, monkeypatch):
    monkeypatch.setattr("faltung.cli.describe.describe", raising(MemoryError()))
    outcome = run(capsys, "describe", "model")
    assert outcome.code == 2
    assert outcome.err == "faltung: error: out of memory; use smaller images or a smaller batch\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes as on POSIX")
def test_nothing_is_said_when_the_reader_of_the_output_has_gone(trained):
    process = start("describe", trained)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.skipif(sys.platform != "linux", reason="any bytes may be a name on Linux only")
def test_a_name_that_no_terminal_can_show(trained, tmp_path):
    image = tmp_path / b"\xff.png".decode(errors="surrogateescape")
    image.write_bytes((trained / "example.png").read_bytes())
    process = start("predict", trained, image)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert r"\udcff.png: " in out


def test_the_program_is_installed_as_faltung():
    from importlib.metadata import entry_points

    scripts = entry_points(group="console_scripts", name="faltung")
    if not scripts:
        pytest.skip("the package is not installed, only on the path")
    assert [script.value for script in scripts] == ["faltung.cli:main"]


def test_help_comes_without_reading_what_only_the_work_needs():
    code = "import sys; from faltung.cli import main; main(['--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "PIL", "safetensors", "sympy", "rich.progress", "faltung.elements"} & set(loaded.split())
