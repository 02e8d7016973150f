"""Recipes: networks that tell images apart, each with the settings that train it well.

All of them end in one logit a class, and are trained by stochastic gradient descent with momentum on the cross-entropy.

>>> recipe = find_recipe("ufldl")
>>> net = recipe.network((28, 28, 1), classes=10)
>>> sum(w.size for w in net.initial(seed=0).values())
21650
>>> recipe.optimiser(examples=10_000, batch=64).rate
0.1
"""

from collections.abc import Callable
from dataclasses import dataclass

from faltung.data.dataset import steps
from faltung.elements import Affine, Conv, Flatten, GlobalPool, MeanPool, ReLU, Sigmoid, Tanh
from faltung.elements.settings import check_count
from faltung.errors import SettingError
from faltung.network import Chain, Network
from faltung.training import SGD, Piecewise, StepDecay
from faltung.training.schedules import Setting


@dataclass(frozen=True)
class Recipe:
    """How one network for images is composed, and how it is trained unless told otherwise.

    >>> tiny = Recipe("tiny", "one dense layer", lambda classes: Chain(flat=Flatten(), dense=Affine(classes)), rate=0.5)
    >>> tiny.network((28, 28, 1), classes=10).shapes["dense"], tiny.optimiser(examples=100, batch=10)
    ((10,), SGD(0.5, momentum=0.9))
    """

    name: str
    summary: str
    compose: Callable[[int], Chain]
    """From the number of classes to the composite."""
    any_size: bool = False
    """Whether height and width of the images stay open, or are fixed when the network is made."""
    epochs: int = 20
    batch: int = 64
    rate: float = 0.1
    decay: float = 1.0
    """By what the rate is multiplied after each epoch."""
    momentum: Setting = 0.9
    drop_last: bool = False
    """Whether the examples that do not fill a last batch are left out of an epoch."""

    def network(self, shape: tuple[int, int, int], classes: int) -> Network:
        """The network for images of this shape (height, width, channels), or only of its channels.

        Raises: ShapeError, naming the node, where images of this size are too small.
        """
        return self.compose(classes).on((None, None, shape[-1]) if self.any_size else shape)

    def optimiser(self, examples: int, batch: int, *, rate: float | None = None, momentum: float | None = None) -> SGD:
        """The optimiser for so many examples and this batch.

        ``rate``, where it is given, is the one to begin with; ``momentum``, where it is given, stays the same.
        Raises: SettingError where batch, rate or momentum are out of range; DataError where there is no step to make.
        """
        check_count(self.name, batch=batch)
        rate = self.rate if rate is None else rate
        every = steps(examples, batch, drop_last=self.drop_last)
        schedule = rate if self.decay == 1 else StepDecay(rate, factor=self.decay, every=every)
        return SGD(schedule, momentum=self.momentum if momentum is None else momentum)


def ufldl(classes: int) -> Chain:
    """The convolutional network of the UFLDL tutorial, in the memo's function elements.

    Source: http://ufldl.stanford.edu/tutorial/supervised/ExerciseConvolutionalNeuralNetwork; memo p. 8. Its page speaks
    of 10 filters, its code has these 20, and begins with these parameters.

    >>> ufldl(10).on((28, 28, 1)).shapes["pool"]
    (10, 10, 20)
    """
    return Chain(
        conv1=Conv(20, kernel=9, initial="ufldl"),
        sigm=Sigmoid(),
        pool=MeanPool(2),
        flat=Flatten(),
        dense=Affine(classes, initial="ufldl"),
    )


def lenet5(classes: int) -> Chain:
    """LeNet-5 as it is read today.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document recognition*
    (1998), section II-B. Sizes and numbers of filters are the paper's; its 32 x 32 input is here 28 x 28 and two zeros
    on every side. Differences: a plain mean where the paper's pooling has a weight and a bias a map, and a sigmoid
    after it; a plain tanh, not 1.7159 tanh(2/3 x); every filter of ``conv2`` sees all six maps, not some of them; one
    logit a class and cross-entropy, not distances to drawn digits.

    >>> shapes = lenet5(10).on((28, 28, 1)).shapes
    >>> shapes["conv1"], shapes["conv2"], shapes["flat"]
    ((28, 28, 6), (10, 10, 16), (400,))
    """
    return Chain(
        conv1=Conv(6, kernel=5, padding=2),
        tanh1=Tanh(),
        pool1=MeanPool(2),
        conv2=Conv(16, kernel=5),
        tanh2=Tanh(),
        pool2=MeanPool(2),
        flat=Flatten(),
        dense1=Affine(120),
        tanh3=Tanh(),
        dense2=Affine(84),
        tanh4=Tanh(),
        dense3=Affine(classes),
    )


def allconv(classes: int) -> Chain:
    """Convolutions only: stride 2 in place of pooling, and a global mean in place of dense layers, for any size.

    Source: J. T. Springenberg, A. Dosovitskiy, T. Brox, M. Riedmiller, *Striving for simplicity: the all convolutional
    net* (2014), arXiv 1412.6806: Strided-CNN-C, with a sixth of its filters, and without dropout and weight decay.

    >>> net = allconv(10).on((None, None, 3))
    >>> net.shapes["conv7"], net.shapes["pool"]
    ((None, None, 10), (10,))
    """

    def conv(filters: int, kernel: int = 3, stride: int = 1) -> Conv:
        return Conv(filters, kernel=kernel, stride=stride, padding="same", initial="he")

    return Chain(
        conv1=conv(16),
        relu1=ReLU(),
        conv2=conv(16, stride=2),
        relu2=ReLU(),
        conv3=conv(32),
        relu3=ReLU(),
        conv4=conv(32, stride=2),
        relu4=ReLU(),
        conv5=conv(32),
        relu5=ReLU(),
        conv6=conv(32, kernel=1),
        relu6=ReLU(),
        conv7=conv(classes, kernel=1),
        pool=GlobalPool("mean"),
    )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("ufldl", "convolution 9x9, sigmoid, mean pool, dense: the network of the UFLDL tutorial", ufldl),
        Recipe(
            "ufldl-tutorial",
            "the same network, trained exactly as in the tutorial, on full MNIST",
            ufldl,
            epochs=3,
            batch=256,
            decay=0.5,
            # The tutorial counts from 1 and compares before it updates: its 20th update has the larger momentum.
            momentum=Piecewise(((0, 0.5), (19, 0.95))),
            drop_last=True,
        ),
        Recipe(
            "lenet5",
            "two convolutions 5x5 and three dense layers, after LeCun et al. 1998",
            lenet5,
            epochs=10,
            rate=0.05,
        ),
        Recipe(
            "allconv",
            "convolutions 3x3 only, no dense layer, images of any size, after Springenberg et al. 2014",
            allconv,
            any_size=True,
            rate=0.02,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises: SettingError where there is none.

    >>> find_recipe("lenet5").summary
    'two convolutions 5x5 and three dense layers, after LeCun et al. 1998'
    """
    if name not in RECIPES:
        raise SettingError(f"got the network {name!r}, expected one of {', '.join(RECIPES)}", way_out="choose another")
    return RECIPES[name]
