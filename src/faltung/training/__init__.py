"""Training: optimisers, schedules, metrics, and ``fit`` with checkpoints and exact resume."""

from faltung.training.fit import Fitted, fit
from faltung.training.interrupt import Interrupted
from faltung.training.metrics import evaluate
from faltung.training.optimisers import SGD, Adam, AdamW, Averaged, Optimiser
from faltung.training.progress import View
from faltung.training.schedules import Cosine, Piecewise, Schedule, StepDecay, WarmUp

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Averaged",
    "Cosine",
    "Fitted",
    "Interrupted",
    "Optimiser",
    "Piecewise",
    "Schedule",
    "StepDecay",
    "View",
    "WarmUp",
    "evaluate",
    "fit",
]
