"""What several test files share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Whoever starts the tests in the background may have Ctrl-C ignored; what is interrupted in tests must notice it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def full_data() -> Path:
    """The folder of the full data sets (mnist/, fashion_mnist/, ...), which the package does not contain."""
    folder = Path(os.environ.get("FALTUNG_DATA") or Path(__file__).parents[2] / "shared/data")
    if not folder.is_dir():
        pytest.skip(f"no full data sets in {folder}; set FALTUNG_DATA to a folder that holds mnist/ and fashion_mnist/")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run of ``faltung train``: 300 images of clothes, one epoch. Do not write into it."""
    from faltung.cli import main

    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "--limit", "300", "--epochs", "1", "--batch", "20", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(params=["avx512", "avx2", "neon", "plain"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Kernels are made for this machine, if this one can be it; and it is seen to that they call no library."""
    import lowered

    monkeypatch.setenv("FALTUNG_MACHINE", request.param)
    with lowered.compiled_for(request.param):
        yield request.param


@pytest.fixture(params=[True, False], ids=["guard behind", "guard before"])
def end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The outputs of kernels lie directly before memory that nobody may touch, or behind it, and are full of NaN."""
    from faltung.engine.host import arena
    from guard import guarded

    monkeypatch.setattr(arena, "empty", lambda shape, dtype: guarded(shape, dtype, request.param))
    return request.param


@pytest.fixture
def guards(end: bool, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Not only outputs but also the scratch lies, to the byte, beside memory that nobody may touch, full of NaN."""
    from guard import surround

    surround(monkeypatch, end)
    return end
