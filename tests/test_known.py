"""What LLVM says of this computer, remembered."""

import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from faltung.engine.host import known


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a computer that tells of itself."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("FALTUNG_CACHE", str(cache))
    for name, content in (("BOOT", "one\n"), ("PROCESSORS", "flags: fpu\ncpu MHz: 2500\n\nflags: fpu\n")):
        file = tmp_path / name
        file.write_text(content)
        monkeypatch.setattr(known, name, file)
    return cache


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What LLVM says from now on, the newest last; it grows with each question."""
    names: list[str] = []
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: names.append(f"cpu {len(names)}") or names[-1])
    return names


def ask() -> str:
    return known.known.__wrapped__().cpu


def test_it_is_what_llvm_says():
    for _ in range(2):
        found = known.known.__wrapped__()
        assert (found.cpu, found.triple) == (llvm.get_host_cpu_name(), llvm.get_process_triple())
        assert found.version == str(llvm.llvm_version_info)
        assert found.features == llvm.get_host_cpu_features().flatten()
        assert found.has >= {feature for feature, present in llvm.get_host_cpu_features().items() if present}


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-darwin24.0"])
def test_every_64_bit_arm_has_neon(triple):
    assert known.Known("generic", "", triple, "22").has == {"neon"}
    assert known.Known("generic", "+sse2,-avx2", "x86_64-unknown-linux-gnu", "22").has == {"sse2"}


def test_llvm_is_asked_once(asked):
    assert [ask(), ask()] == ["cpu 0", "cpu 0"]


def test_the_speed_of_the_moment_does_not_matter(asked):
    ask()
    known.PROCESSORS.write_text("flags: fpu\ncpu MHz: 3100\n\nflags: fpu\n")
    assert ask() == "cpu 0"


@pytest.mark.parametrize(("name", "content"), [("BOOT", "two\n"), ("PROCESSORS", "flags: fpu avx\n")])
def test_after_a_start_and_on_another_processor_it_is_asked_anew(name, content, asked):
    ask()
    getattr(known, name).write_text(content)
    assert ask() == "cpu 1"


def test_another_library_is_asked_anew(asked, tmp_path, monkeypatch):
    import llvmlite

    ask()
    library = tmp_path / "llvmlite" / "binding" / "libllvmlite.so"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setattr(llvmlite, "__file__", str(tmp_path / "llvmlite" / "__init__.py"))
    assert [ask(), ask()] == ["cpu 1", "cpu 1"]
    library.write_text("newer")
    assert ask() == "cpu 2"
    library.unlink()
    assert [ask(), ask()] == ["cpu 3", "cpu 4"], "nobody knows which library it is"


def test_where_the_system_does_not_tell_or_nothing_is_kept_it_is_always_asked(asked, monkeypatch):
    known.BOOT.unlink()
    assert [ask(), ask()] == ["cpu 0", "cpu 1"]
    known.BOOT.write_text("one\n")
    monkeypatch.setenv("FALTUNG_CACHE", "off")
    assert [ask(), ask()] == ["cpu 2", "cpu 3"]


def test_a_damaged_entry_is_made_anew(asked, folder):
    ask()
    (entry,) = folder.iterdir()
    entry.write_bytes(entry.read_bytes().replace(b"cpu 0", b"cpu 7"))
    assert [ask(), ask()] == ["cpu 1", "cpu 1"]


def test_what_is_known_does_not_load_llvm():
    ask = "import sys; from faltung.engine.host.machine import host; host(); print('llvmlite.binding' in sys.modules)"
    answers = [
        subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert answers[1] == ("False" if Path("/proc/sys/kernel/random/boot_id").exists() else "True")
