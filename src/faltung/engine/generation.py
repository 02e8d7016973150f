"""A network that hears itself, as one loop over samples: dilated gated layers, the end, and the draw of the next code.

    u = [h | 0],  h = sum over taps j of front[j, code[t - j]]
    for each layer:  z = tanh(a) sigmoid(b),  [a | b] = start + sum over taps k of h[t - k dilation] w[k]
                     u = u + bias + z [w of the residual | w of the skip]
    logits = end2(relu(end1(relu(skips)))),  code[t + 1] drawn from them

Layers are data: all have the same sizes, their weights lie one behind the other, and a table tells where the queue of
each begins and how far its taps lie apart. A queue is a ring of (kernel - 1) dilation entries, so a step reads and
writes as much for any dilation. Between two samples nothing runs but this.

All numbers of a stream lie in whole vectors; what fills the last one is 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from faltung.engine import mathematics
from faltung.engine.columns import Columns, columns, product
from faltung.engine.language import F32, I32, I64, INDEX, Function, Value, pointer
from faltung.engine.machine import Machine
from faltung.engine.sampling import draw, drawn


@dataclass(frozen=True)
class Sizes:
    """Channels and taps, and how many streams share the weights; how many layers there are is data."""

    kernel: int
    residual: int
    gate: int
    """Of each half of a gate."""
    skip: int
    end: int
    classes: int
    front: int
    """Taps of the first convolution."""
    streams: int = 1
    half: bool = False
    """Are the weights bfloat16?"""


@dataclass(frozen=True)
class Layout:
    """Where everything lies on a machine; sizes in whole vectors."""

    sizes: Sizes
    machine: Machine

    @property
    def lanes(self) -> int:
        """Of a vector."""
        return self.machine.lanes(F32.size)

    def full(self, count: int) -> int:
        """So many numbers, in whole vectors."""
        return -(-count // self.lanes) * self.lanes

    @cached_property
    def residual(self) -> int:
        return self.full(self.sizes.residual)

    @cached_property
    def gate(self) -> int:
        return self.full(self.sizes.gate)

    @cached_property
    def skip(self) -> int:
        return self.full(self.sizes.skip)

    @cached_property
    def end(self) -> int:
        return self.full(self.sizes.end)

    @cached_property
    def classes(self) -> int:
        return self.full(self.sizes.classes)

    @property
    def both(self) -> int:
        """Numbers of u."""
        return self.residual + self.skip

    @cached_property
    def products(self) -> tuple[Columns, Columns, Columns, Columns]:
        """Those into the gates, out of them, and the two of the end."""
        n = self.sizes
        matrices = (
            (n.kernel, n.residual, 2 * self.gate),
            (1, n.gate, self.both),
            (1, n.skip, self.end),
            (1, n.end, self.classes),
        )
        gate, both, end1, end2 = (columns(*matrix, n.streams, n.half, self.machine) for matrix in matrices)
        return gate, both, end1, end2

    @cached_property
    def memory(self) -> dict[str, tuple[int, int]]:
        """What a step remembers for itself: where it begins, and the numbers of one stream; and "" where it ends."""
        widths = {
            "u": self.both, "inside": 2 * self.gate, "z": self.gate,
            "heard": self.skip, "said": self.end, "sums": self.classes,
        }  # fmt: skip
        parts, at = {}, 0
        for name, width in widths.items():
            parts[name] = at, width
            at += width * self.sizes.streams
        return parts | {"": (at, 0)}


ARGUMENTS = {
    "weights": None,  # of each layer: into the gate, out of it; then of the end
    "biases": pointer(F32),  # of each layer: residual and skip; then of the end
    "front": pointer(F32),  # a row for each tap and code, the last one for no code
    "starts": pointer(F32),  # biases and conditions of the gates: of streams, steps, layers
    "queues": pointer(F32),
    "table": pointer(I64),  # of each layer: where its queue begins, and its dilation
    "memory": pointer(F32),
    "codes": pointer(I32),  # of each stream: what came before, and what comes
    "numbers": pointer(F32),  # of each stream: one of [0, 1) for each step
    "logits": pointer(F32),
    "layers": INDEX,
    "time": INDEX,  # of the first step
    "count": INDEX,  # of steps
    "given": INDEX,  # steps whose next codes are known
    "stream_codes": INDEX,  # from the codes of one stream to those of the next
    "stream_start": INDEX,
    "step_start": INDEX,  # from step to step
    "step_logits": INDEX,
    "scale": F32,
}


def generate(machine: Machine, sizes: Sizes) -> list[Function]:
    """The loop, for machine code."""
    layout = Layout(sizes, machine)
    word = pointer(I32 if sizes.half else F32)
    f = Function("generate", **ARGUMENTS | {"weights": word})
    writer = _Writer(f, layout)
    with f.loop("step", writer.count) as step:
        writer.front(step)
        with f.loop("layer", writer.layers) as layer:
            writer.layer(step, layer)
        writer.end(step)
        with f.where(writer.given <= step):
            writer.draw(step)
    return [f]


class _Writer:
    """Writes the parts of a step."""

    def __init__(self, f: Function, layout: Layout):
        self.f, self.layout, self.sizes = f, layout, layout.sizes
        self.kind, self.lanes = F32.times(layout.lanes), layout.lanes
        self.streams = range(layout.sizes.streams)
        (
            self.weights, self.biases, self.rows, self.starts, self.queues, self.table, memory, self.codes,
            self.numbers, self.logits, self.layers, self.time, self.count, self.given,
            self.stream_codes, self.stream_start, self.step_start, self.step_logits, self.scale,
        ) = f.arguments  # fmt: skip
        self._memory = {name: f.at(memory, at, name=name) for name, (at, _) in layout.memory.items() if name}
        gate, both, _, _ = layout.products
        self._layer_words = gate.words + both.words

    def _place(self, name: str, s: int) -> Value:
        """What a stream remembers under this name."""
        return self.f.at(self._memory[name], s * self.layout.memory[name][1], name=name)

    def _each(self, size: int, body: Callable[[Value], None]) -> None:
        with self.f.loop("c", size, step=self.lanes) as c:
            body(c)

    def front(self, step: Value) -> None:
        """u = [sum of a row for each tap | 0]."""
        f, n = self.f, self.layout.residual
        codes = n * (self.sizes.classes + 1)
        for s in self.streams:
            u, heard = self._place("u", s), f.at(self.codes, self._code(s, step), name="heard")
            numbers = [f.convert("widen", f.load(heard, tap), INDEX) for tap in range(self.sizes.front)]
            rows = [f.at(self.rows, number * n + tap * codes, name="row") for tap, number in enumerate(numbers)]

            def add(c: Value, u: Value = u, rows: list[Value] = rows) -> None:
                total = f.load(rows[0], c, self.lanes)
                for row in rows[1:]:
                    total = total + f.load(row, c, self.lanes)
                f.store(total, u, c)

            self._each(n, add)
            self._each(self.layout.skip, lambda c, u=u: f.store(f.constant(0.0, self.kind), u, n + c))

    def _code(self, s: int, step: Value) -> Value:
        """Where the oldest code lies that a step hears."""
        return self.stream_codes * s + step

    def layer(self, step: Value, layer: Value) -> None:
        """u = u + bias + [residual | skip] of z, and z is the gate of the queue's entries and h."""
        f, layout = self.f, self.layout
        gate, both, _, _ = layout.products
        w = f.at(self.weights, layer * self._layer_words, name="w")
        slots = self._slots(layer, self.time + step)
        starts = f.at(self.starts, step * self.step_start + layer * (2 * layout.gate), name="start")
        inside, u, z = (self._memory[name] for name in ("inside", "u", "z"))
        product(
            f, gate, w, [*((slot, layout.residual) for slot in slots), (u, layout.both)],
            lambda s, o: f.load(starts, self.stream_start * s + o, self.lanes),
            lambda s, o, total: f.store(total, inside, o + s * 2 * layout.gate),
        )  # fmt: skip
        for s in self.streams:  # the oldest entry has been heard
            here, new = self._place("u", s), f.at(slots[0], s * layout.residual)
            self._each(layout.residual, lambda c, here=here, new=new: f.store(f.load(here, c, self.lanes), new, c))
        for s in self.streams:
            a, out = self._place("inside", s), self._place("z", s)
            b = f.at(a, layout.gate)

            def halves(c: Value, a: Value = a, b: Value = b, out: Value = out) -> None:
                open_ = mathematics.sigmoid(f.load(b, c, self.lanes))
                f.store(mathematics.tanh(f.load(a, c, self.lanes)) * open_, out, c)

            self._each(layout.gate, halves)
        bias = f.at(self.biases, layer * layout.both, name="bias")
        product(
            f, both, f.at(w, gate.words), [(z, layout.gate)],
            lambda s, o: f.load(u, o + s * layout.both, self.lanes) + f.load(bias, o, self.lanes),
            lambda s, o, total: f.store(total, u, o + s * layout.both),
        )  # fmt: skip

    def _slots(self, layer: Value, time: Value) -> list[Value]:
        """Where the past taps lie in the layer's queue, the oldest first, in whose place h goes."""
        f, n = self.f, self.sizes
        begin, dilation = (f.convert("bits", f.load(self.table, 2 * layer + k), INDEX) for k in (0, 1))
        queue, entry = f.at(self.queues, begin, name="queue"), n.streams * self.layout.residual
        length = dilation * (n.kernel - 1)
        return [f.at(queue, (time + dilation * tap) % length * entry, name="slot") for tap in range(n.kernel - 1)]

    def end(self, step: Value) -> None:
        """logits = end2(relu(end1(relu(skips))))."""
        f, layout = self.f, self.layout
        _, _, end1, end2 = layout.products
        heard, said = self._memory["heard"], self._memory["said"]
        logits = self._logits(step)
        for s in self.streams:
            skips, out = f.at(self._place("u", s), layout.residual), self._place("heard", s)
            self._each(layout.skip, lambda c, x=skips, y=out: f.store(f.max(0.0, f.load(x, c, self.lanes)), y, c))
        w = f.at(self.weights, self.layers * self._layer_words, name="w")
        bias = f.at(self.biases, self.layers * layout.both, name="bias")
        product(
            f, end1, w, [(heard, layout.skip)], lambda s, o: f.load(bias, o, self.lanes),
            lambda s, o, total: f.store(f.max(0.0, total), said, o + s * layout.end),
        )  # fmt: skip
        last = f.at(bias, layout.end)
        product(
            f, end2, f.at(w, end1.words), [(said, layout.end)], lambda s, o: f.load(last, o, self.lanes),
            lambda s, o, total: f.store(total, logits, o + s * layout.classes),
        )  # fmt: skip

    def _logits(self, step: Value) -> Value:
        return self.f.at(self.logits, step * self.step_logits, name="logits")

    def draw(self, step: Value) -> None:
        """The next code of each stream."""
        f, classes, logits = self.f, self.layout.classes, self._logits(step)
        places = [f.at(logits, s * classes) for s in self.streams]
        sums = [self._place("sums", s) for s in self.streams]
        draw(f, self.kind, places, sums, classes, self.scale)
        for s in self.streams:
            number = f.load(self.numbers, self.count * s + step)
            code = drawn(f, self.kind, sums[s], classes, number)
            f.store(code, self.codes, self._code(s, step) + self.sizes.front)
