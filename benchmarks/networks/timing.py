"""Contestants in turn, round by round: so that what the machine does meanwhile befalls all of them."""

import statistics
import time

LEAST = 0.05
"""Seconds that a turn lasts at least."""
REST = 0.06
"""Seconds before a turn, in which the threads of the one before go to sleep: those of ONNX Runtime after 33 ms."""


def rounds(contestants, count):
    """The seconds of one call of each contestant, ``count`` times."""
    repeats = {}
    for name, call in contestants.items():
        call()
        repeats[name] = max(1, round(LEAST / _seconds(call, 1)))
    times = {name: [] for name in contestants}
    for _ in range(count):
        for name, call in contestants.items():
            time.sleep(REST)
            call()  # brings the contestant's data back into the caches
            times[name].append(_seconds(call, repeats[name]))
    return times


def _seconds(call, repeats):
    began = time.perf_counter()
    for _ in range(repeats):
        result = call()
    if hasattr(result, "block_until_ready"):
        result.block_until_ready()  # JAX's steps may still be on their way
    return (time.perf_counter() - began) / repeats


def medians(times):
    """The median of each contestant's rounds."""
    return {name: statistics.median(values) for name, values in times.items()}
