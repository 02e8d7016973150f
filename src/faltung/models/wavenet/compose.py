"""The network of a WaveNet, composed of ordinary elements.

    front               causal convolution of the codes (one-hot) or amplitudes
    gate1 ... gateK     dilated causal convolution and conditions to 2 C channels, then tanh(..) sigmoid(..)
    residual1 ...       1x1, added to the stream: sum1 = front + residual1, sum2 = sum1 + residual2, ...
    skip1 ... skipK     1x1, added up: skips2 = skip1 + skip2, skips3 = skips2 + skip3, ...
    relu1, end1, relu2, end2     ReLU, 1x1, ReLU, 1x1: one logit a class

The logits at t are those of sample t + 1. Source: van den Oord et al. 2016 (WaveNet), figure 4; the residual of its
last layer is left out, as nobody reads it.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

from faltung.elements import Affine, Conv, ConvTranspose, Crop, Element, Embedding, Gate, Offset, Pad, ReLU, Resize, Sum
from faltung.models.wavenet.settings import RESIZED, Context, Settings
from faltung.network import Chain, Composite, Graph, Network, Node

Nodes: TypeAlias = dict[str, Any]
"""Nodes by name, which are given to a Graph as its arguments."""
CONDITIONS = ("local_series", "context_series", "h")
"""The values that condition the gates, where there are such, in the order in which a gate reads them."""


def network(settings: Settings, warmup: int = 0) -> Network:
    """The network, time open.

    Inputs: "x", codes (n, t), or amplitudes (n, t, 1); "h" (n, condition), or "speaker", numbers (n,); "local" (n,
    frames, channels), frames that last at least as long as x. Output: logits (n, t - warmup, classes).
    The first ``warmup`` logits are left out, and what only they need of the skips is not computed. After a warm-up of
    ``receptive_field - 1``, no logit has seen the zeros before the window. Any warm-up has the same parameters.

    >>> from faltung.models.wavenet.settings import SETTINGS
    >>> network(SETTINGS["nv"]).shapes["gate16.conv"], network(SETTINGS["nv"]).shapes["end2"]
    ((None, 128), (None, 256))
    """
    shapes = {
        "x": (None,) if settings.input == "onehot" else (None, 1),
        "h": (settings.condition,),
        "speaker": (),
        "local": (None, settings.local),
    }
    graph = compose(settings, warmup)
    return graph.on(**{name: shapes[name] for name in graph.inputs})


def compose(settings: Settings, warmup: int = 0) -> Graph:
    """The graph of ``network``, not yet bound.

    >>> compose(Settings((1, 2), residual=2, gate=3, skip=4)).nodes["skip2"]
    Node(Conv(4, kernel=1), 'gate2')
    """
    nodes: Nodes = {"front": Node(_front(settings), "x")} | _conditions(settings)
    given = [name for name in CONDITIONS if name in nodes or (name == "h" and settings.condition)]
    layers, skips = _layers(settings, "front", given, warmup)
    return Graph(
        **nodes,
        **layers,
        relu1=Node(ReLU(), skips),
        end1=Node(Conv(cast("int", settings.end), kernel=1), "relu1"),
        relu2=Node(ReLU(), "end1"),
        end2=Node(Conv(settings.classes, kernel=1), "relu2"),
    )


def upsampling(settings: Settings) -> Chain:
    """The local condition brought to audio rate; in the network its parameters are those of "upsample".

    Transposed convolutions begin as linear interpolation, and overlap evenly.

    >>> upsampling(Settings((1,), local=80, upsample=(4, 5))).on((10, 80)).shapes["up2"]
    (200, 80)
    """
    steps: dict[str, Element] = {}
    for i, factor in enumerate(settings.upsample, start=1):
        if settings.upsampling == "transposed":
            steps[f"up{i}"] = ConvTranspose(
                settings.local, kernel=2 * factor, stride=factor, padding="same", initial="bilinear"
            )
        else:
            steps[f"resize{i}"] = Resize(factor)
            steps[f"conv{i}"] = Conv(settings.local, kernel=RESIZED, padding="same")
    return Chain(**steps)


def _front(settings: Settings) -> Element | Composite:
    """The first causal convolution.

    For a one-hot vector, x w[k] is the row of w[k] that the code names: one embedding a tap, moved to where the tap is
    read. Before the first sample there is no code, and zeros are added. A bias would be one more number in each row.
    """
    if settings.input == "scalar":
        return Conv(settings.residual, kernel=settings.kernel, padding="causal")
    rows = Embedding(settings.classes, settings.residual)
    nodes: Nodes = {"now": Node(rows, "x")}
    taps = ["now"]
    for back in range(1, settings.kernel):
        nodes[f"past{back}"] = Node(rows, "x")
        nodes[f"padded{back}"] = Node(Pad((back, 0)), f"past{back}")
        nodes[f"moved{back}"] = Node(Crop((0, back)), f"padded{back}")
        taps.append(f"moved{back}")
    return Graph(**nodes, sum=Node(Sum(), *taps))


def _conditions(settings: Settings) -> Nodes:
    """What conditions the gates, at audio rate; "h" is an input, unless there are speakers."""
    nodes: Nodes = {}
    if settings.speakers:
        nodes["h"] = Node(Embedding(settings.speakers, settings.condition), "speaker")
    if settings.local:
        nodes["upsample"] = Node(upsampling(settings), "local")
        nodes["local_series"] = Node(Crop(size="like", align="start"), "upsample", "front")
    if settings.context:
        nodes["context"] = Node(_context(settings, settings.context), "x")
        nodes["context_series"] = Node(Crop(size="like", align="start"), "context", "front")
    return nodes


def _context(settings: Settings, context: Context) -> Graph:
    """What was heard before the last multiple of ``pool``, at audio rate.

    Frame j is made of the ``pool`` samples before sample j pool; the samples from j pool on look at it.
    """
    pool, source = context.pool, "x"
    nodes: Nodes = {}
    if settings.input == "onehot":
        nodes["rows"] = Node(Embedding(settings.classes, context.residual), "x")
        source = "rows"
    nodes["slow"] = Node(Conv(context.residual, kernel=pool, stride=pool, padding=(pool, 0)), source)
    layers, skips = _layers(context, "slow")
    return Graph(**nodes, **layers, relu=Node(ReLU(), skips), resize=Node(Resize(pool), "relu"))


def _layers(settings: Settings | Context, stream: str, given: Sequence[str] = (), warmup: int = 0) -> tuple[Nodes, str]:
    """The stack of gated layers on a stream, and the name of the sum of its skips.

    Two are added at a time, so that no more than two arrays of skips are needed at once.
    """
    nodes: Nodes = {}
    skips = ""
    for i, dilation in enumerate(settings.dilations, start=1):
        gate = heard = f"gate{i}"
        nodes[gate] = Node(_gate(settings, dilation, given), stream, *given)
        if warmup:
            heard = f"heard{i}"
            nodes[heard] = Node(Crop((warmup, 0)), gate)
        nodes[f"skip{i}"] = Node(Conv(settings.skip, kernel=1), heard)
        if skips:
            nodes[f"skips{i}"] = Node(Sum(), skips, f"skip{i}")
        skips = f"skips{i}" if skips else f"skip{i}"
        if i < len(settings.dilations):
            nodes[f"residual{i}"] = Node(Conv(settings.residual, kernel=1), gate)
            nodes[f"sum{i}"] = Node(Sum(), stream, f"residual{i}")
            stream = f"sum{i}"
    return nodes, skips


def _gate(settings: Settings | Context, dilation: int, given: Sequence[str]) -> Graph:
    """tanh(W x + V h + ...) sigmoid(the same with other weights): one convolution for both."""
    wide = 2 * settings.gate
    nodes: Nodes = {"conv": Node(Conv(wide, kernel=settings.kernel, dilation=dilation, padding="causal"), "x")}
    inside, series = "conv", [name.removesuffix("_series") for name in given if name != "h"]
    if series:
        nodes |= {f"from_{name}": Node(Conv(wide, kernel=1, bias=False), name) for name in series}
        nodes["inside"] = Node(Sum(), inside, *(f"from_{name}" for name in series))
        inside = "inside"
    if "h" in given:
        nodes["from_h"] = Node(Affine(wide, bias=False), "h")
        nodes["offset"] = Node(Offset(), inside, "from_h")
        inside = "offset"
    return Graph(**nodes, gate=Node(Gate(), inside))
