"""A network that hears itself, as one loop over samples: dilated gated layers, the end, and the draw of the next code.

    u = [h | 0],  h = sum over taps j of front[j, code[t - j]]
    for each layer:  z = tanh(a) sigmoid(b),  [a | b] = start + sum over taps k of h[t - k dilation] w[k]
                     u = u + bias + z [w of the residual | w of the skip]
    logits = end2(relu(end1(relu(skips)))),  code[t + 1] drawn from them

Layers are data: all have the same sizes, their weights lie one behind the other, and a table tells where the queue of
each begins and how far its taps lie apart. A queue is a ring of (kernel - 1) dilation entries, so a step reads and
writes as much for any dilation. Between two samples nothing runs but this.

Two workers share the weights. One has the chain, which nobody can share without waiting twice a layer: gates and
residuals. The other one needs z only, and follows as fast as z comes: it takes most skips, and what the past taps give
to the same layer's gate in the next step, which is known by then. At the end of a step they meet three times, and halve
its products. Who adds what to which sum is the same as for one worker.
"""

from collections.abc import Callable

from faltung.engine.host.machine import Machine
from faltung.engine.kernels import mathematics
from faltung.engine.loops.language import F32, I32, I64, INDEX, Function, Value, pointer
from faltung.engine.stream.columns import LINE, product
from faltung.engine.stream.layout import Layout, Sizes
from faltung.engine.stream.sampling import draw

MEETINGS = 3
"""Of a step."""
FAR = LINE // I64.size
"""Words from one worker's clock to the other's, which lies in another cache line."""

ARGUMENTS = {
    "weights": pointer(I32),  # of each layer: into the gate, out of it; then of the end; the worker's share of them
    "biases": pointer(F32),  # of each layer: residual and skip; then of the end
    "front": pointer(F32),  # a row for each tap and code, the last one for no code
    "starts": pointer(F32),  # biases and conditions of the gates: of streams, steps, layers
    "queues": pointer(F32),
    "table": pointer(I64),  # of each layer: where its queue begins, and its dilation; then of the first one again
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
    "clocks": pointer(I64),  # how far each of two workers is
    "pause": pointer(I64),  # what one does who waits for the other, as in ``dispatch``
    "system": pointer(I64),
}


def generate(machine: Machine, sizes: Sizes) -> list[Function]:
    """The loop, for machine code; for two workers, one for each."""
    layout = Layout(sizes, machine)
    return [_loop(layout, number) for number in range(len(layout.shares))]


def _loop(layout: Layout, number: int) -> Function:
    words = {} if layout.sizes.half else {"weights": pointer(F32)}
    f = Function(("generate", "follow")[number], **ARGUMENTS | words)
    writer = _Writer(f, layout, number)
    writer.begin()
    with f.loop("step", writer.count) as step:
        if number == 0:
            writer.front(step)
        with f.loop("layer", writer.layers) as layer:
            z = writer.z(layer)
            if number == 0:
                writer.gate(step, layer, z)
                writer.tell(step, layer + 1)
            else:
                writer.wait(step, layer + 1)
            writer.out(layer, z)
            if number == 1:
                writer.past(step + 1, layer)
        writer.end(step)
        if number == 0:
            with f.where(writer.given <= step):
                writer.draw(step)
    return f


class _Writer:
    """Writes the parts of a step of one worker."""

    def __init__(self, f: Function, layout: Layout, number: int):
        self.f, self.layout, self.sizes = f, layout, layout.sizes
        self.number, self.share = number, layout.shares[number]
        self.kind, self.lanes = F32.times(layout.lanes), layout.lanes
        self.streams = range(layout.sizes.streams)
        (
            self.weights, self.biases, self.rows, self.starts, self.queues, self.table, memory, self.codes,
            self.numbers, self.logits, self.layers, self.time, self.count, self.given,
            self.stream_codes, self.stream_start, self.step_start, self.step_logits, self.scale,
            self.clocks, self.pause, self.system,
        ) = f.arguments  # fmt: skip
        self._memory = {name: f.at(memory, at, name=name) for name, (at, _) in layout.memory.items()}
        self._gate, *all_of_them = layout.products
        share = self.share
        self._out, self._end1, self._end2 = (
            matrix.part(*part) for matrix, part in zip(all_of_them, (share.both, share.end1, share.end2), strict=True)
        )
        self._into = self._gate if layout.sizes.workers == 1 else self._gate.some((1, self._gate.taps - 1)[number])
        self._layer_words = self._into.words + self._out.words

    def _place(self, name: str, s: int | Value) -> Value:
        """What a stream remembers under this name."""
        return self.f.at(self._memory[name], s * self.layout.memory[name][1], name=name)

    def _each(self, size: int, body: Callable[[Value], None]) -> None:
        with self.f.loop("c", size, step=self.lanes) as c:
            body(c)

    def begin(self) -> None:
        """What the second worker does a step ahead must be done for the first step, too."""
        now = self.f.constant(0)
        if self.number == 0:
            self.wait(now, now)
        else:
            with self.f.loop("layer", self.layers) as layer:
                self.past(now, layer)
            self.tell(now, now)

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

    def _code(self, s: int | Value, step: Value) -> Value:
        """Where the oldest code lies that a step hears."""
        return self.stream_codes * s + step

    def tell(self, step: Value, clock: Value) -> None:
        """Where there are two workers: all of this step is done that belongs before this time."""
        if len(self.layout.shares) > 1:
            self.f.tell(self._clock(step, clock), self.clocks, self.number * FAR)

    def wait(self, step: Value, clock: Value) -> None:
        """Wait until the other worker tells the same."""
        if len(self.layout.shares) > 1:
            self.f.wait(self._clock(step, clock), self.clocks, (1 - self.number) * FAR, self.pause, self.system)

    def _clock(self, step: Value, clock: Value) -> Value:
        return self.f.convert("bits", step * (self.layers + MEETINGS) + clock + 1, I64)

    def _meet(self, step: Value, meeting: int) -> None:
        self.tell(step, self.layers + meeting)
        self.wait(step, self.layers + meeting)

    def z(self, layer: Value) -> Value:
        """Where the gate's outputs go: for two workers, a place for each layer, so that none need wait."""
        size = len(self.streams) * 3 * self.layout.gate if len(self.layout.shares) > 1 else 0
        return self.f.at(self._memory["layers"], layer * size, name="z")

    def _before(self, layer: Value) -> Value:
        """Where the other worker puts what the gates are given by the past."""
        return self.f.at(self.z(layer), len(self.streams) * self.layout.gate, name="before")

    def past(self, step: Value, layer: Value) -> None:
        """What the past taps give to a gate."""
        f, width, before = self.f, 2 * self.layout.gate, self._before(layer)
        product(
            f, self._into, f.at(self.weights, layer * self._layer_words, name="w"),
            [(slot, self.layout.residual) for slot in self._slots(layer, step)],
            lambda s, o: f.constant(0.0, self.kind),
            lambda s, o, total: f.store(total, before, o + s * width),
        )  # fmt: skip

    def gate(self, step: Value, layer: Value, z: Value) -> None:
        """z = tanh(a) sigmoid(b), from the queue's entries and h; then h takes the place of the oldest one."""
        f, layout = self.f, self.layout
        slots, before = self._slots(layer, step), self._before(layer)
        starts = f.at(self.starts, step * self.step_start + layer * (2 * layout.gate), name="start")
        inside, u = self._memory["inside"], self._memory["u"]
        past = [(slot, layout.residual) for slot in slots] if len(layout.shares) == 1 else []

        def start(s: int, o: Value) -> Value:
            begin = f.load(starts, self.stream_start * s + o, self.lanes)
            return begin if past else begin + f.load(before, o + s * 2 * layout.gate, self.lanes)

        product(
            f, self._into, f.at(self.weights, layer * self._layer_words, name="w"), [*past, (u, layout.both)], start,
            lambda s, o, total: f.store(total, inside, o + s * 2 * layout.gate), len(past),
        )  # fmt: skip
        for s in self.streams:
            here, new = self._place("u", s), f.at(slots[0], s * layout.residual)
            self._each(layout.residual, lambda c, here=here, new=new: f.store(f.load(here, c, self.lanes), new, c))
        for s in self.streams:
            a, out = self._place("inside", s), f.at(z, s * layout.gate)
            b = f.at(a, layout.gate)

            def halves(c: Value, a: Value = a, b: Value = b, out: Value = out) -> None:
                open_ = mathematics.sigmoid(f.load(b, c, self.lanes))
                f.store(mathematics.tanh(f.load(a, c, self.lanes)) * open_, out, c)

            self._each(layout.gate, halves)

    def _slots(self, layer: Value, step: Value) -> list[Value]:
        """Where the past taps lie in the layer's queue, the oldest first."""
        slots = self._taps(layer, step)
        for slot in self._taps(layer + 1, step):  # which no guess of the processor's finds
            for line in range(0, len(self.streams) * self.layout.residual, LINE // F32.size):
                self.f.prefetch(slot, line)
        return slots

    def _taps(self, layer: Value, step: Value) -> list[Value]:
        f, n, time = self.f, self.sizes, self.time + step
        begin, dilation = (f.convert("bits", f.load(self.table, 2 * layer + k), INDEX) for k in (0, 1))
        queue, entry = f.at(self.queues, begin, name="queue"), n.streams * self.layout.residual
        length = dilation * (n.kernel - 1)
        return [f.at(queue, (time + dilation * tap) % length * entry, name="slot") for tap in range(n.kernel - 1)]

    def out(self, layer: Value, z: Value) -> None:
        """u = u + bias + [residual | skip] of z."""
        f, part, width = self.f, self._out, self._out.vectors * self.lanes
        u = f.at(self._memory["u"], self.share.both[0] * self.lanes, name="u")
        w = f.at(self.weights, layer * self._layer_words + self._into.words, name="w")
        bias = f.at(self.biases, layer * width, name="bias")
        product(
            f, part, w, [(z, self.layout.gate)],
            lambda s, o: f.load(u, o + s * self.layout.both, self.lanes) + f.load(bias, o, self.lanes),
            lambda s, o, total: f.store(total, u, o + s * self.layout.both),
        )  # fmt: skip

    def end(self, step: Value) -> None:
        """logits = end2(relu(end1(relu(skips))))."""
        f, layout = self.f, self.layout
        heard, said, logits = ("heard", "heard_too")[self.number], self._memory["said"], self._logits(step)
        self._meet(step, 1)
        for s in self.streams:
            skips, out = f.at(self._place("u", s), layout.residual), self._place(heard, s)
            self._each(layout.skip, lambda c, x=skips, y=out: f.store(f.max(0.0, f.load(x, c, self.lanes)), y, c))
        w = f.at(self.weights, self.layers * self._layer_words, name="w")
        bias = f.at(self.biases, self.layers * (self._out.vectors * self.lanes), name="bias")
        here = f.at(said, self.share.end1[0] * self.lanes)
        product(
            f, self._end1, w, [(self._memory[heard], layout.skip)], lambda s, o: f.load(bias, o, self.lanes),
            lambda s, o, total: f.store(f.max(0.0, total), here, o + s * layout.end),
        )  # fmt: skip
        self._meet(step, 2)
        last, there = f.at(bias, self._end1.vectors * self.lanes), f.at(logits, self.share.end2[0] * self.lanes)
        product(
            f, self._end2, f.at(w, self._end1.words), [(said, layout.end)], lambda s, o: f.load(last, o, self.lanes),
            lambda s, o, total: f.store(total, there, o + s * layout.classes),
        )  # fmt: skip
        self._meet(step, 3)

    def _logits(self, step: Value) -> Value:
        return self.f.at(self.logits, step * self.step_logits, name="logits")

    def draw(self, step: Value) -> None:
        """The next code of each stream."""
        f, classes, logits = self.f, self.layout.classes, self._logits(step)
        with f.loop("stream", len(self.streams)) as s:
            sums, number = self._place("sums", s), f.at(self.numbers, self.count * s + step)
            code = draw(f, self.kind, f.at(logits, s * classes), sums, classes, self.scale, number)
            f.store(code, self.codes, self._code(s, step) + self.sizes.front)
