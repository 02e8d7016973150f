"""``faltung cache``: what it shows of the compiled kernels on disk, and that it removes them."""

import os
import re
import subprocess
import sys

import pytest

from commands import run
from faltung.engine.host import cache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FALTUNG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_cache_that_is_not_there_yet_is_empty(capsys, folder):
    outcome = run(capsys, "cache")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"folder    {folder}\nentries   0, 0 bytes of at most 268,435,456\n"
    assert run(capsys, "cache", "--clear").out == f"removed 0 entries from {folder}\n"


def test_it_shows_what_is_there_and_clears_it(capsys, folder):
    for number in range(3):
        cache.put(cache.key(str(number)), bytes(1000))
    (folder / (cache.key("1") + ".faltung")).write_bytes(b"damaged")
    (folder / "notes.txt").touch()
    outcome = run(capsys, "cache")
    assert (outcome.code, outcome.err) == (0, "")
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    assert re.fullmatch(
        f"""folder    {re.escape(str(folder))}
entries   3, 2,071 bytes of at most 268,435,456
used      {time} \\(the oldest\\) to {time}
damaged   1; they are compiled again when they are needed
not ours  1; they are left alone
""",
        outcome.out,
    )
    assert run(capsys, "cache", "--clear").out == f"removed 3 entries from {folder}\n"
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_what_a_network_has_compiled_is_there(capsys, folder):
    code = "import faltung as ft; net = ft.Chain(ft.Tanh()).on((3,)); net.predict({}, [[1, 2, 3]])"
    subprocess.run([sys.executable, "-c", code], check=True)
    found = cache.show()
    assert found.entries > 0
    assert f"entries   {found.entries}, {found.bytes:,} bytes" in run(capsys, "cache").out
    run(capsys, "cache", "--clear")
    subprocess.run([sys.executable, "-c", code], check=True)
    assert cache.show().entries == found.entries


@pytest.mark.parametrize("name", ["off", ""])
def test_a_cache_that_is_off(capsys, monkeypatch, name):
    monkeypatch.setenv("FALTUNG_CACHE", name)
    outcome = run(capsys, "cache")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("the cache is off, since FALTUNG_CACHE says so")
    assert run(capsys, "cache", "--clear").out == "the cache is off: nothing to remove\n"


@pytest.mark.skipif(os.name != "posix", reason="asks for POSIX permissions")
def test_a_folder_to_which_others_may_write(capsys, folder):
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    assert run(capsys, "cache").out.endswith("not used  others may write to it; name another folder in FALTUNG_CACHE\n")


def test_a_folder_that_cannot_be_written_to(capsys, monkeypatch):
    cache.put(cache.key("a kernel"), b"code")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert run(capsys, "cache").out.endswith(
        "not written to: what is there is used, but nothing new is kept; name another folder in FALTUNG_CACHE\n"
    )


def test_a_folder_that_cannot_be_made(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FALTUNG_CACHE", str(tmp_path / "file" / "cache"))
    outcome = run(capsys, "cache")
    assert outcome.code == 0
    assert re.search(r"not used  .*; name another folder in FALTUNG_CACHE\n", outcome.out)


@pytest.mark.parametrize(("options", "what"), [((), "read"), (("--clear",), "clear")])
def test_what_is_no_folder_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, options, what):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FALTUNG_CACHE", str(tmp_path / "file"))
    outcome = run(capsys, "cache", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        f"faltung: error: cannot {what} {tmp_path / 'file'}: Not a directory; name another folder in FALTUNG_CACHE\n"
    )
