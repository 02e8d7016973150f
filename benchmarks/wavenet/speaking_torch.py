"""A WaveNet that speaks step by step in PyTorch: a ring for each layer, one product into each gate and one out of it.

Compiled, a whole step is one graph, the draw of the next code included, so that nothing passes through Python but the
rings; where each layer's entry lies is computed within.
"""

import torch

from .works import CLASSES


class Generation:
    """Samples one after the other; each call goes on where the last one ended."""

    def __init__(self, work, params, threads=1, compiled=False):
        self.work, self.threads, self.compiled = work, threads, compiled
        layers, residual, gate = range(1, len(work.dilations) + 1), work.residual, work.gate
        p = {name: torch.from_numpy(w) for name, w in params.items()}
        nothing = torch.zeros(1, residual)
        self.now = p["front.now.w"]
        self.past = torch.cat([p["front.past1.w"], nothing])  # the last row is that of no code
        self.into = [p[f"gate{k}.conv.w"].reshape(2 * residual, 2 * gate).T.contiguous() for k in layers]
        self.into_b = [p[f"gate{k}.conv.b"] for k in layers]
        none = {"w": torch.zeros(1, gate, residual), "b": torch.zeros(residual)}
        both = [
            {e: torch.cat([p.get(f"residual{k}.{e}", none[e]), p[f"skip{k}.{e}"]], -1) for e in "wb"} for k in layers
        ]
        self.out, self.out_b = [part["w"][0].T.contiguous() for part in both], [part["b"] for part in both]
        self.ends = [(p[f"{name}.w"][0].T.contiguous(), p[f"{name}.b"]) for name in ("end1", "end2")]
        self.random = torch.Generator().manual_seed(0)
        if compiled:
            torch.compiler.reset()
            self.graph = torch.compile(self._drawn, fullgraph=True, dynamic=False)
        self.begin()

    def begin(self):
        """Hear nothing."""
        self.rings = [torch.zeros(dilation, self.work.residual) for dilation in self.work.dilations]
        self.time, self.before, self.code = 0, torch.tensor([CLASSES]), torch.tensor([CLASSES // 2])

    def _step(self, before, code, entries):
        """The logits after two codes; ``entries`` are those of the rings, which the layers' inputs replace."""
        residual, gate = self.work.residual, self.work.gate
        h = (self.now.index_select(0, code) + self.past.index_select(0, before))[0]
        skips, inputs = None, []
        for entry, w, b, w_out, b_out in zip(entries, self.into, self.into_b, self.out, self.out_b, strict=True):
            inside = torch.addmv(b, w, torch.cat((entry, h)))
            z = torch.tanh(inside[:gate]) * torch.sigmoid(inside[gate:])
            y = torch.addmv(b_out, w_out, z)
            inputs.append(h)
            h = h + y[:residual]
            skips = y[residual:] if skips is None else skips + y[residual:]
        for w, b in self.ends:
            skips = torch.addmv(b, w, torch.relu(skips))
        return skips, inputs

    def _drawn(self, before, code, time, number, rings):
        """The next code and its logits, in one graph."""
        places = [(time % len(ring)).reshape(1) for ring in rings]
        entries = [ring.index_select(0, place)[0] for ring, place in zip(rings, places, strict=True)]
        logits, inputs = self._step(before, code, entries)
        for ring, place, h in zip(rings, places, inputs, strict=True):
            ring.index_copy_(0, place, h[None])
        return self._draw(logits, number), logits

    def _draw(self, logits, number):
        sums = torch.softmax(logits, 0).cumsum(0)
        return (sums <= number * sums[-1]).sum().clamp(max=CLASSES - 1)[None]

    def _next(self, number):
        """The next code and its logits."""
        if self.compiled:
            drawn = self.graph(self.before, self.code, torch.tensor(self.time), number, self.rings)
        else:
            entries = [ring[self.time % len(ring)] for ring in self.rings]
            logits, inputs = self._step(self.before, self.code, entries)
            for entry, h in zip(entries, inputs, strict=True):
                entry.copy_(h)
            drawn = self._draw(logits, number), logits
        self.time += 1
        return drawn

    @torch.inference_mode()
    def logits(self, codes):
        """Of the next sample after each code."""
        torch.set_num_threads(self.threads)
        self.begin()
        found, self.code = [], torch.tensor(codes[:1])
        for following in (*codes[1:], 0):
            found.append(self._next(torch.tensor(0.5))[1])
            self.before, self.code = self.code, torch.tensor([following])
        self.begin()
        return torch.stack(found).numpy()

    @torch.inference_mode()
    def speak(self, steps):
        """So many more codes."""
        torch.set_num_threads(self.threads)
        for number in torch.rand(steps, generator=self.random):
            self.before, self.code = self.code, self._next(number)[0]
