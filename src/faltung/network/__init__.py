"""Composing elements into networks, and running them."""

from faltung.network.composite import Chain, Composite, Graph, Node
from faltung.network.executors import Backward, Forward
from faltung.network.network import Network
from faltung.network.predictor import Predictor

__all__ = ["Backward", "Chain", "Composite", "Forward", "Graph", "Network", "Node", "Predictor"]
