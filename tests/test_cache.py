"""Object code on disk: private, checked, bounded, and never needed."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from faltung.engine.host import cache

posix = pytest.mark.skipif(os.name != "posix", reason="asks for POSIX permissions")
KEY = cache.key("a kernel")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and no warnings given yet."""
    monkeypatch.setenv("FALTUNG_CACHE", str(tmp_path / "deep" / "cache"))
    cache._warn.cache_clear()
    yield tmp_path / "deep" / "cache"
    cache._warn.cache_clear()


def entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_is_put_is_got(folder):
    assert cache.get(KEY) is None
    cache.put(KEY, b"code")
    assert cache.get(KEY) == b"code"
    assert cache.get(cache.key("another kernel")) is None
    found = cache.show()
    assert (found.folder, found.entries, found.bytes, found.damaged, found.foreign) == (folder, 1, 4 + 32, 0, 0)
    assert found.oldest == found.newest == entry(folder).stat().st_mtime


def test_an_entry_is_replaced():
    cache.put(KEY, b"old")
    cache.put(KEY, b"new")
    assert cache.get(KEY) == b"new"


def test_keys_tell_their_parts_apart():
    assert len({cache.key("ab", "c"), cache.key("a", "bc"), cache.key("abc"), cache.key("ab", "c", "")}) == 4


@posix
def test_the_folder_is_private(folder):
    cache.put(KEY, b"code")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry(folder).stat().st_mode) == 0o600


@posix
@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_to_which_others_may_write_is_not_used(folder, mode):
    cache.put(KEY, b"code")
    folder.chmod(mode)
    with pytest.warns(
        RuntimeWarning, match=r"cannot use .*cache: others may write to it; kernels are compiled anew in each "
    ):
        assert cache.get(KEY) is None
    cache.put(cache.key("another kernel"), b"code")  # no second warning
    assert len(list(folder.iterdir())) == 1


@posix
def test_the_folder_of_another_user_is_not_used(folder, monkeypatch):
    cache.put(KEY, b"code")
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.warns(RuntimeWarning, match="others may write to it"):
        assert cache.get(KEY) is None


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FALTUNG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(
        RuntimeWarning, match="cannot use .*cache: .*name another folder in FALTUNG_CACHE, or 'off'"
    ) as told:
        cache.put(KEY, b"code")
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.get(KEY) is None
        cache.put(KEY, b"code")


def test_a_full_disk_is_done_without(folder, monkeypatch):
    def full(handle, mode):
        os.close(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.warns(RuntimeWarning, match="cannot write to .*cache: No space left on device"):
        cache.put(KEY, b"code")
    assert list(folder.iterdir()) == []
    cache.put(KEY, b"code")


@pytest.mark.parametrize("name", ["", "off"])
def test_it_can_be_turned_off(name, monkeypatch, tmp_path):
    monkeypatch.setenv("FALTUNG_CACHE", name)
    monkeypatch.chdir(tmp_path)
    cache.put(KEY, b"code")
    assert cache.get(KEY) is None
    assert cache.show() == cache.Contents(None)
    assert cache.clear() == 0
    assert list(tmp_path.rglob("*faltung*")) == []


def test_it_lies_in_the_folder_of_the_user(monkeypatch):
    monkeypatch.delenv("FALTUNG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    place = cache.folder()
    assert place is not None
    assert place.name in ("faltung", "Cache")
    assert sys.platform != "linux" or place == Path("/somewhere/faltung")


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-1], lambda content: content[:20], lambda content: b"", lambda content: content + b"x",
     lambda content: content[:-1] + bytes([content[-1] ^ 1]), lambda content: bytes([content[0] ^ 1]) + content[1:]],
)  # fmt: skip
def test_a_damaged_entry_is_not_used(folder, damage):
    cache.put(KEY, b"code")
    path = entry(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(KEY) is None
    assert (cache.show().entries, cache.show().damaged) == (1, 1)
    cache.put(KEY, b"code")
    assert cache.get(KEY) == b"code"
    assert cache.show().damaged == 0


def test_an_entry_that_is_no_file_is_not_used(folder):
    cache.put(cache.key("another kernel"), b"code")
    (folder / f"{KEY}.faltung").mkdir()
    assert cache.get(KEY) is None
    with pytest.warns(RuntimeWarning, match="cannot write to .*cache: Is a directory"):
        cache.put(KEY, b"code")
    assert cache.clear() == 1


def test_an_entry_under_the_name_of_another_is_not_used(folder):
    cache.put(KEY, b"code")
    other = cache.key("another kernel")
    entry(folder).rename(folder / entry(folder).name.replace(KEY, other))
    assert cache.get(other) is None
    assert cache.show().damaged == 1


def test_what_was_used_least_recently_goes_first(folder, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 10_000)
    monkeypatch.setattr(cache, "_since_trimmed", 1)  # not before the last one
    keys = [cache.key(str(number)) for number in range(12)]
    for age, key in enumerate(keys):
        cache.put(key, bytes(1000 - 32))
        (path,) = folder.glob(key + "*")
        os.utime(path, (1000 + age, 1000 + age))
    assert cache.get(keys[0]) is not None  # used again just now
    monkeypatch.setattr(cache, "_since_trimmed", 0)
    cache.put(cache.key("last"), bytes(1000 - 32))
    assert cache.show().bytes == 7000
    assert [cache.get(key) is not None for key in keys] == [True] + [False] * 6 + [True] * 5
    assert cache.get(cache.key("last")) is not None


def test_many_entries_stay_below_the_limit(folder, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 20_000)
    for number in range(200):
        cache.put(cache.key(str(number)), bytes(1000 - 32))
        assert cache.show().bytes <= 20_000 + 64 * 1000


def test_clearing_removes_our_files_and_no_others(folder):
    for number in range(3):
        cache.put(cache.key(str(number)), b"code")
    (folder / "new-unfinished.faltung").touch()
    (folder / "notes.txt").write_text("mine")
    found = cache.show()
    assert (found.entries, found.bytes, found.damaged, found.foreign) == (4, 3 * 36, 0, 1)
    assert cache.clear() == 4
    assert cache.show() == cache.Contents(folder, foreign=1)
    assert entry(folder).name == "notes.txt"


WRITER = """
from faltung.engine.host import cache
for turn in range(200):
    key = cache.key(str(turn % 5))
    code = cache.get(key)
    assert code is None or code == bytes([turn % 5]) * 5000
    cache.put(key, bytes([turn % 5]) * 5000)
"""


def test_processes_do_not_disturb_each_other(folder):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = cache.show()
    assert (found.entries, found.bytes, found.damaged, found.foreign) == (5, 5 * 5032, 0, 0)


def test_clearing_does_not_disturb_who_is_writing():
    writers = [subprocess.Popen([sys.executable, "-W", "error", "-c", WRITER]) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        cache.clear()
        assert cache.show().damaged == 0
    assert [writer.wait() for writer in writers] == [0, 0]


def test_the_folder_may_vanish_while_an_entry_is_written(folder, monkeypatch):
    replace = Path.replace

    def vanishing(self, target):
        shutil.rmtree(folder)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", vanishing)
    cache.put(KEY, b"code")  # without a warning
    assert not folder.exists()
    assert cache.show() == cache.Contents(folder)


def test_a_folder_that_cannot_be_written_to_is_still_read(folder, monkeypatch):
    cache.put(KEY, b"code")

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    assert cache.get(KEY) == b"code"
    with pytest.warns(RuntimeWarning, match="cannot write to .*cache: Permission denied"):
        cache.put(cache.key("another kernel"), b"code")
    cache.put(cache.key("another kernel"), b"code")  # no second warning
