"""The guards of the kernels' tests do guard."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from guard import copied, guarded

CRASH = """
import ctypes, numpy as np
from guard import copied
array = copied(np.arange(5, dtype=np.float32), end={end})
print(array.sum(), flush=True)
ctypes.c_char.from_address(array.ctypes.data + {reach}).value
print("not caught")
"""


@pytest.mark.skipif(os.name == "nt", reason="plain arrays there")
@pytest.mark.parametrize(("end", "reach"), [(True, 20), (False, -1)])
def test_one_byte_outside_stops_the_process(end, reach):
    program = CRASH.format(end=end, reach=reach)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert done.stdout == "10.0\n"
    assert done.returncode < 0


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("shape", [0, 1, (2, 3), (5, 1025), (0, 4), ()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_arrays_are_whole_and_marked(shape, dtype, end):
    array = guarded(shape, dtype, end)
    assert array.shape == np.empty(shape).shape
    assert array.dtype == dtype
    assert np.all(np.isnan(array) if array.dtype.kind == "f" else array == np.iinfo(dtype).min)
    numbers = np.arange(array.size).reshape(array.shape).astype(dtype)
    copy = copied(numbers, end)
    del array
    gc.collect()
    assert np.array_equal(copy, numbers)
