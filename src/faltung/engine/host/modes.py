"""How the processor treats subnormal numbers: as zeros within a step, and as before afterwards.

Numbers below 1e-38 in float32 (1e-308 in float64) slow many processors down a hundredfold, and within a training step
they carry nothing. The mode belongs to a thread: ``flushed`` sets it for the calling one, ``dispatch`` for the workers.

>>> import numpy as np
>>> small = np.array([1e-300])
>>> with flushed():
...     inside = small / 1e10
>>> inside.tolist(), (small / 1e10).tolist()
([0.0], [1e-310])
"""

import ctypes
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from faltung.engine.host.compile import load
from faltung.engine.host.machine import host

X86 = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

define void @flush(ptr %caller) nounwind {
  call void @llvm.x86.sse.stmxcsr(ptr %caller)
  %mode = load i32, ptr %caller
  %flushing = or i32 %mode, 32832  ; results to zero: bit 15; operands to zero: bit 6
  %new = alloca i32
  store i32 %flushing, ptr %new
  call void @llvm.x86.sse.ldmxcsr(ptr %new)
  ret void
}

define void @restore(ptr %caller) nounwind {
  call void @llvm.x86.sse.ldmxcsr(ptr %caller)
  ret void
}
"""

ARM = """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)

define void @flush(ptr %caller) nounwind {
  %mode = call i64 @llvm.aarch64.get.fpcr()
  store i64 %mode, ptr %caller
  %flushing = or i64 %mode, 16777216  ; operands and results to zero: bit 24
  call void @llvm.aarch64.set.fpcr(i64 %flushing)
  ret void
}

define void @restore(ptr %caller) nounwind {
  %mode = load i64, ptr %caller
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
"""

OTHER = """
define void @flush(ptr %caller) nounwind {
  ret void
}

define void @restore(ptr %caller) nounwind {
  ret void
}
"""


def text(processor: str | None = None) -> str:
    """Two functions in LLVM's language: ``flush`` puts the caller's mode at a place, ``restore`` takes it back."""
    processor = (processor or platform.machine()).lower()
    return {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}.get(processor, OTHER)


@cache
def _code() -> Mapping[str, Callable[..., None]]:
    signatures = (("flush", ctypes.c_void_p), ("restore", ctypes.c_void_p))
    return load(text(), signatures, host()).functions


@contextmanager
def flushed() -> Iterator[None]:
    """Within it, subnormal operands and results of this thread are zeros. It may be entered again."""
    code, caller = _code(), ctypes.c_int64(-1)
    place = ctypes.addressof(caller)
    try:
        code["flush"](place)
        yield
    finally:
        if caller.value != -1:  # no mode: an interrupt came before
            code["restore"](place)
