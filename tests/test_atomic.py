"""A file is written whole or not at all."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from faltung.errors import FaltungError, FileError
from faltung.exchange import atomic


def test_chunks_follow_each_other_and_nothing_else_is_left(tmp_path):
    atomic.write(tmp_path / "model", b"one ", b"", b"two")
    atomic.write(str(tmp_path / "empty"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model": b"one two", "empty": b""}


def test_the_old_file_is_replaced_and_lends_its_permissions(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"a longer old content")
    path.chmod(0o600)
    atomic.write(path, b"new")
    assert path.read_bytes() == b"new"
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "ordinary").touch()
    atomic.write(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need a privilege elsewhere")
def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "model")
    atomic.write(tmp_path / "link", b"first")
    atomic.write(tmp_path / "link", b"second")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "model").read_bytes() == b"second"


def failing(number):
    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    monkeypatch.setattr(call, failing(errno.ENOSPC))
    message = r"^cannot write .*model: No space left on device \(the previous file is untouched\); free some space"
    with pytest.raises(FileError, match=message):
        atomic.write(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("model", b"old")]


def test_a_full_disk_without_an_old_file_does_not_speak_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", failing(errno.ENOSPC))
    with pytest.raises(FileError, match=r"No space left on device; free some space or choose another disk$"):
        atomic.write(tmp_path / "model", b"new")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE as on Linux")
def test_the_system_really_refuses_to_write_more(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    script = f"""
        import resource
        from faltung.exchange import atomic
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        atomic.write({str(path)!r}, bytes(60_000), bytes(60_000))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert run.returncode == 1
    assert "model: File too large (the previous file is untouched); raise the limit" in run.stderr
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("model", b"old")]


def test_ctrl_c_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.write_bytes(b"old")

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("model", b"old")]


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileError, match=r"cannot write .*model: No such file or directory; make the folder first"):
        atomic.write(tmp_path / "nowhere" / "model", b"new")


def test_a_folder_in_place_of_the_file(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(FileError, match="model: it is not a file; choose another name"):
        atomic.write(tmp_path / "model", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.open", failing(errno.EACCES))  # root may write anywhere
    with pytest.raises(FileError, match="Permission denied; choose a folder that you may write to"):
        atomic.write(tmp_path / "model", b"new")


def test_the_error_is_ours_and_an_os_error(tmp_path):
    with pytest.raises(OSError, match="cannot write") as caught:
        atomic.write(tmp_path / "nowhere" / "model", b"")
    assert isinstance(caught.value, FaltungError)


def test_a_file_system_that_cannot_sync_a_folder_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("os.open", failing(errno.EINVAL))
    atomic.write(tmp_path / "model", b"new")
    assert (tmp_path / "model").read_bytes() == b"new"
