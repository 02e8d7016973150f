"""A WaveNet that speaks step by step in NumPy: a ring for each layer, one product into each gate and one out of it."""

import numpy as np

from .works import CLASSES


class Generation:
    """Samples one after the other; each call goes on where the last one ended."""

    def __init__(self, work, params):
        self.work, layers = work, range(1, len(work.dilations) + 1)
        residual, gate = work.residual, work.gate
        self.now, self.past = params["front.now.w"], params["front.past1.w"]
        self.into = [params[f"gate{k}.conv.w"].reshape(2 * residual, 2 * gate).T.copy() for k in layers]
        self.into_b = [params[f"gate{k}.conv.b"] for k in layers]
        nothing = {"w": np.zeros((1, gate, residual), np.float32), "b": np.zeros(residual, np.float32)}
        both = [
            {e: np.concatenate([params.get(f"residual{k}.{e}", nothing[e]), params[f"skip{k}.{e}"]], -1) for e in "wb"}
            for k in layers
        ]
        self.out, self.out_b = [part["w"][0].T.copy() for part in both], [part["b"] for part in both]
        self.ends = [(params[f"{name}.w"][0].T.copy(), params[f"{name}.b"]) for name in ("end1", "end2")]
        self.random = np.random.default_rng(0)
        self.begin()

    def begin(self):
        """Hear nothing."""
        self.rings = [np.zeros((dilation, self.work.residual), np.float32) for dilation in self.work.dilations]
        self.time, self.heard = 0, (None, CLASSES // 2)

    def step(self):
        """The logits after what was heard."""
        work, (before, code) = self.work, self.heard
        residual, gate = work.residual, work.gate
        x, skips = np.empty(2 * residual, np.float32), np.zeros(work.skip, np.float32)
        h = x[residual:]
        h[:] = self.now[code] if before is None else self.now[code] + self.past[before]
        for ring, w, b, w_out, b_out in zip(self.rings, self.into, self.into_b, self.out, self.out_b, strict=True):
            entry = ring[self.time % len(ring)]
            x[:residual] = entry
            entry[:] = h
            inside = w @ x
            inside += b
            inside[gate:] *= 0.5  # sigmoid(x) is (1 + tanh(x / 2)) / 2
            np.tanh(inside, out=inside)
            inside[gate:] += 1
            z = inside[:gate] * inside[gate:]
            z *= 0.5
            y = w_out @ z
            y += b_out
            h += y[:residual]
            skips += y[residual:]
        for w, b in self.ends:
            np.maximum(skips, 0, out=skips)
            skips = w @ skips + b
        self.time += 1
        return skips

    def logits(self, codes):
        """Of the next sample after each code."""
        self.begin()
        found, self.heard = [], (None, codes[0])
        for following in (*codes[1:], 0):
            found.append(self.step())
            self.heard = self.heard[1], following
        self.begin()
        return np.stack(found)

    def speak(self, steps):
        """So many more codes."""
        for number in self.random.random(steps):
            logits = self.step()
            sums = np.exp(logits - logits.max()).cumsum()
            self.heard = self.heard[1], int(sums.searchsorted(number * sums[-1], "right"))
