"""What LLVM says of this computer. It is asked once, and again when the computer was started anew: loading LLVM takes
longer than many a program that would run without it, since all its code was compiled before.
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from faltung.engine.host import cache as files

BOOT = Path("/proc/sys/kernel/random/boot_id")
PROCESSORS = Path("/proc/cpuinfo")


class Known(NamedTuple):
    """The processor, as LLVM names it, and LLVM itself."""

    cpu: str
    features: str
    """All that it knows of such processors: "+avx2" where this one has it, "-avx2" where not."""
    triple: str
    version: str

    @property
    def has(self) -> set[str]:
        """The features that this processor has; every 64-bit ARM has NEON, also where LLVM cannot ask it."""
        told = {feature[1:] for feature in self.features.split(",") if feature[:1] == "+"}
        return told | {"neon"} if self.triple.startswith(("aarch64", "arm64")) else told


@cache
def known() -> Known:
    """What is known; without LLVM where it was asked before. Raises: ImportError where it is not installed."""
    name = _name()
    if name is not None and (entry := files.get(name)) is not None:
        return Known(*json.loads(entry))
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    found = Known(llvm.get_host_cpu_name(), features, llvm.get_process_triple(), str(llvm.llvm_version_info))
    if name is not None:
        files.put(name, json.dumps(found).encode())
    return found


def _name() -> str | None:
    """A key that changes with the computer, its start and LLVM's library; None where that is not told."""
    import llvmlite

    libraries = sorted(Path(llvmlite.__file__).parent.glob("binding/*llvmlite.so"))
    states = [(str(path), state.st_size, state.st_mtime_ns) for path in libraries for state in [path.stat()]]
    try:
        with PROCESSORS.open() as file:
            first = file.read(4096).split("\n\n")[0].splitlines()
        boot = BOOT.read_text()
    except OSError:
        return None
    processor = [line for line in first if "MHz" not in line]
    return files.key("known", boot, *processor, repr(states)) if states else None
