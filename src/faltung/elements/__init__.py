"""The function elements and the costs: what networks are composed of, and what they are trained by."""

from faltung.elements.activations import ELU, GELU, Identity, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from faltung.elements.adaptive import AdaptivePool, GlobalPool
from faltung.elements.affine import Affine
from faltung.elements.conv import Conv
from faltung.elements.conv_transpose import ConvTranspose
from faltung.elements.costs import BinaryCrossEntropy, Cost, CrossEntropy, SquaredError
from faltung.elements.dropout import Dropout
from faltung.elements.edges import Crop, Pad
from faltung.elements.element import Element, Parameter, Run
from faltung.elements.embedding import Embedding
from faltung.elements.gate import Gate, Offset
from faltung.elements.joins import Concat, Product, Sum
from faltung.elements.normalisation import BatchNorm, LayerNorm
from faltung.elements.pointwise import Pointwise
from faltung.elements.pool import Pool
from faltung.elements.pooling import LpPool, MaxPool, MeanPool
from faltung.elements.reshape import Flatten, Reshape
from faltung.elements.resize import Resize
from faltung.elements.softmax import LogSoftmax, Softmax

__all__ = [
    "ELU",
    "GELU",
    "AdaptivePool",
    "Affine",
    "BatchNorm",
    "BinaryCrossEntropy",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Cost",
    "Crop",
    "CrossEntropy",
    "Dropout",
    "Element",
    "Embedding",
    "Flatten",
    "Gate",
    "GlobalPool",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "LpPool",
    "MaxPool",
    "MeanPool",
    "Offset",
    "Pad",
    "Parameter",
    "Pointwise",
    "Pool",
    "Product",
    "ReLU",
    "Reshape",
    "Resize",
    "Run",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SquaredError",
    "Sum",
    "Tanh",
]
