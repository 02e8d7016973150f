"""A printed network: every number is one that can be checked by hand."""

import numpy as np
import pytest

from faltung.elements import (
    AdaptivePool,
    Affine,
    Concat,
    Conv,
    ConvTranspose,
    Embedding,
    Flatten,
    GlobalPool,
    LayerNorm,
    MaxPool,
    MeanPool,
    Product,
    ReLU,
    Reshape,
    Resize,
    Sigmoid,
    Sum,
    Tanh,
)
from faltung.network import Chain, Graph, Node
from faltung.network.table import receptive_fields

UFLDL = """
node   element             reads  shape         parameters  multiplications  sees
------------------------------------------------------------------------------------
x      input                      28 x 28 x 1
conv1  Conv(20, kernel=9)  x      20 x 20 x 20       1,640          648,000  9 x 9
sigm   Sigmoid()           conv1  20 x 20 x 20                               9 x 9
pool   MeanPool(2)         sigm   10 x 10 x 20                               10 x 10
flat   Flatten()           pool   2000                                       varies
dense  Affine(10)          flat   10                20,010           20,000  all
total                                               21,650          668,000
"""

OPEN = """
node   element                                 reads  shape      parameters  multiplications  sees
---------------------------------------------------------------------------------------------------
x      input                                          ? x 9 x 1
conv1  Conv(2, kernel=3, padding='same')       x      ? x 9 x 2          20                ?  3 x 3
pool   MaxPool(3, stride=2)                    conv1  ? x 4 x 2                               5 x 5
conv2  Conv(2, kernel=(3, 1), padding='same')  pool   ? x 4 x 2          14                ?  9 x 5
mean   GlobalPool('mean')                      conv2  2                                       all
dense  Affine(3)                               mean   3                   9                6  all
total                                                                    43                ?
"""

SHARED = """
node      element                            reads     shape  parameters  multiplications  sees
-----------------------------------------------------------------------------------------------
x         input                                        7 x 2
one.conv  Conv(2, kernel=3, padding='same')  x         7 x 2          14               84  3
one.tanh  Tanh()                             one.conv  7 x 2                               3
two.conv  Conv(2, kernel=3, padding='same')  one.tanh  7 x 2      shared               84  5
two.tanh  Tanh()                             two.conv  7 x 2                               5
total                                                                 14              168
"""


def ufldl():
    return Chain(conv1=Conv(20, kernel=9), sigm=Sigmoid(), pool=MeanPool(2), flat=Flatten(), dense=Affine(10))


def wavenet(blocks=1, layers=10):
    """Gated, dilated, causal convolutions of kernel 2 with residual and skip connections."""

    def gated(dilation):
        conv = Conv(2, kernel=2, dilation=dilation, padding="causal")
        return Graph(
            filter=Node(conv, "x"),
            f=Node(Tanh(), "filter"),
            gate=Node(conv, "x"),
            g=Node(Sigmoid(), "gate"),
            gated=Node(Product(), "f", "g"),
            out=Node(Conv(2, kernel=1), "gated"),
            sum=Node(Sum(), "x", "out"),
        )

    nodes, source = {}, "x"
    for n in range(blocks * layers):
        nodes[f"layer{n}"] = Node(gated(2 ** (n % layers)), source)
        source = f"layer{n}"
    skips = {"skips": Node(Sum(), *nodes)} if len(nodes) > 1 else {}
    return Graph(outputs=None, **nodes, **skips).on((None, 2))


# The text


def test_the_table_of_the_ufldl_network():
    assert str(ufldl().on((28, 28, 1))) == UFLDL.strip()


def test_open_sizes_and_what_depends_on_them_show_a_question_mark():
    net = Chain(
        conv1=Conv(2, kernel=3, padding="same"),
        pool=MaxPool(3, stride=2),
        conv2=Conv(2, kernel=(3, 1), padding="same"),
        mean=GlobalPool("mean"),
        dense=Affine(3),
    ).on((None, 9, 1))
    assert str(net) == OPEN.strip()


def test_shared_parameters_count_once_and_their_multiplications_each_time():
    block = Chain(conv=Conv(2, kernel=3, padding="same"), tanh=Tanh())
    net = Graph(one=Node(block, "x"), two=Node(block, "one", weights="one")).on((7, 2))
    assert str(net) == SHARED.strip()


def test_every_node_reads_what_it_says():
    net = Graph(a=Node(ReLU(), "p"), s=Node(Sum(), "a", "q"), c=Node(Concat(), "s", "p")).on(p=(3, 1), q=(3, 1))
    lines = str(net).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["p", "q", "a", "s", "c", "total"]
    assert "a, q" in lines[5]
    assert "s, p" in lines[6]


def test_the_columns_stand_under_each_other():
    lines = str(ufldl().on((28, 28, 1))).splitlines()
    start = lines[0].index("element")
    assert all(line[start - 2 : start] == "  " for line in lines if "---" not in line)
    assert not any(line.endswith(" ") for line in lines)
    assert len(lines[1]) == max(map(len, lines))


def test_the_counts_are_those_of_the_network():
    net = ufldl().on((28, 28, 1))
    count = sum(w.size for w in net.initial().values())
    assert str(net).splitlines()[-1].split() == ["total", f"{count:,}", f"{20 * 20 * 81 * 20 + 2000 * 10:,}"]


def test_a_network_without_axes_sees_no_window():
    assert str(Chain(Affine(3)).on((4,))).splitlines()[3].split() == ["affine1", "Affine(3)", "x", "3", "15", "12"]


# What a unit sees


@pytest.mark.parametrize(("blocks", "size"), [(1, 1024), (2, 2047), (3, 3070)])
def test_a_wavenet_sees_what_its_dilations_add_up_to(blocks, size):
    net = wavenet(blocks)
    fields = receptive_fields(net)[net.outputs[0]]
    assert not isinstance(fields, str)
    assert [(field.size, field.start) for field in fields] == [(size, 1 - size)]


def test_a_unit_sees_the_entries_that_change_it():
    net = wavenet(layers=4)
    fields = receptive_fields(net)[net.outputs[0]]
    assert not isinstance(fields, str)
    params = net.initial(seed=0, dtype=np.float64)
    x = np.random.default_rng(0).normal(size=(1, 40, 2))
    y = net.predict(params, x)
    for unit in (17, 30):
        changes = []
        for entry in range(40):
            moved = x.copy()
            moved[:, entry] += 1
            if (net.predict(params, moved)[:, unit] != y[:, unit]).any():
                changes.append(entry)
        assert changes == list(fields[0].of(unit))


def test_branches_of_equal_jump_see_what_both_see():
    net = Graph(
        down=Node(Conv(2, kernel=4, stride=2, padding=1), "x"),
        up=Node(ConvTranspose(2, kernel=4, stride=2, padding=1), "down"),
        near=Node(Conv(2, kernel=1), "x"),
        sum=Node(Sum(), "up", "near"),
    ).on((16, 1))
    fields = receptive_fields(net)
    assert {name: field[0].size for name, field in fields.items() if not isinstance(field, str)} == {
        "x": 1, "down": 4, "up": 6, "near": 1, "sum": 6
    }  # fmt: skip
    assert not isinstance(fields["sum"], str)
    assert fields["sum"][0].jump == 1


def test_what_units_of_branches_see_that_drift_apart_varies():
    net = Graph(
        strided=Node(Conv(2, kernel=3, stride=2, padding=1), "x"),
        dense=Node(Conv(2, kernel=5), "x"),
        sum=Node(Sum(), "strided", "dense"),
        conv=Node(Conv(2, kernel=3), "sum"),
    ).on((8, 1))
    fields = receptive_fields(net)
    assert fields["sum"] == fields["conv"] == "varies"
    assert str(net).splitlines()[5].endswith("  varies")


def test_regions_of_equal_size_are_a_window_and_others_are_not():
    net = Chain(conv=Conv(2, kernel=3), even=AdaptivePool(2, "max")).on((8, 1))
    odd = Chain(conv=Conv(2, kernel=3), odd=AdaptivePool(4, "max")).on((8, 1))
    assert str(net).splitlines()[4].endswith("  5")
    assert str(odd).splitlines()[4].endswith("  varies")


def test_what_sees_all_goes_on_seeing_all_and_what_varies_varies_until_all_is_seen():
    net = Graph(
        drifting=Node(Resize(1.5), "x"),
        conv=Node(Conv(2, kernel=3, padding="same"), "drifting"),
        every=Node(LayerNorm(axes="all"), "x"),
        later=Node(Conv(2, kernel=3, padding="same"), "every"),
        up=Node(Resize(1.5), "later"),
        both=Node(Sum(), "conv", "up"),
        flat=Node(Flatten(), "conv"),
        dense=Node(Affine(4), "flat"),
        image=Node(Reshape((2, 2)), "dense"),
        mean=Node(GlobalPool("mean"), "drifting"),
    ).on((8, 2))
    fields = receptive_fields(net)
    assert {name for name, view in fields.items() if view == "varies"} == {"drifting", "conv", "flat"}
    assert {name for name, view in fields.items() if view == "all"} == fields.keys() - {"x", "drifting", "conv", "flat"}


def test_the_words_tell_the_truth():
    """Entry by entry: "all" where one unit sees the whole input, "varies" where units see differently much or none."""
    for element, view in ((Resize(1.5), "varies"), (AdaptivePool(5, "mean"), "varies"), (LayerNorm(axes="all"), "all")):
        net = Chain(element=element).on((8, 1))
        assert receptive_fields(net)["element"] == view
        params = net.initial(dtype=np.float64)
        x = np.random.default_rng(0).normal(size=(1, 8, 1))
        moved = net.predict(params, x + np.eye(8)[..., None]) != net.predict(params, x)  # (entry, unit, 1)
        counts, apart = moved.sum((0, 2)), np.diff(moved[..., 0].argmax(0))
        assert (counts == 8).all() == (view == "all")
        assert (len(set(counts)) > 1 or len(set(apart)) > 1) == (view == "varies")


def test_indices_have_axes_but_no_channels():
    net = Chain(Embedding(256, 8), Conv(4, kernel=2, dilation=4, padding="causal")).on((None,))
    rows = [line.split() for line in str(net).splitlines()[2:-1]]
    assert rows[0] == ["x", "input", "?"]
    assert [row[-1] for row in rows[1:]] == ["1", "5"]
    fields = receptive_fields(net)["conv1"]
    assert not isinstance(fields, str)
    assert list(fields[0].of(9)) == [5, 6, 7, 8, 9]
