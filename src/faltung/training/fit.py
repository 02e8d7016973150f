"""Training: steps of backpropagation and update, until the epochs are over."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from faltung.data.dataset import Data
from faltung.elements.costs import Cost
from faltung.elements.element import Array, Params
from faltung.elements.settings import check_count
from faltung.errors import NonFiniteError, SettingError
from faltung.network import Network
from faltung.training.interrupt import Interrupted, Signals, Stop
from faltung.training.job import Job, Row, State, order
from faltung.training.optimisers import Optimiser
from faltung.training.progress import Lines, Silent, View

if TYPE_CHECKING:
    from faltung.training.folder import Folder


@dataclass(frozen=True, eq=False)
class Fitted:
    """What training found: the parameters (and states) by name, and one row of numbers an epoch.

    Example: see ``fit``.
    """

    params: dict[str, Array]
    history: tuple[Row, ...]


def fit(
    network: Network,
    params: Params,
    data: Data,
    *,
    cost: Cost,
    optimiser: Optimiser,
    epochs: int,
    batch: int = 64,
    seed: int = 0,
    test: Data | None = None,
    drop_last: bool = False,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | View = True,
    about: Mapping[str, Any] | None = None,
) -> Fitted:
    """Train: for each batch of each epoch, backpropagate the cost and let the optimiser move the parameters.

    ``data`` and ``test`` hand out (x, target) by indices, see ``faltung.data``. The order of the examples is drawn anew
    for each epoch, from (seed, epoch), and ``Redrawn`` data are other examples in each; ``drop_last`` leaves out a last
    batch that is not full. ``test`` is evaluated after each epoch, with the parameters that the optimiser
    gives as its result. A row of the history holds epoch, step, cost (mean over the epoch, while the parameters moved),
    test_cost, test_accuracy (from 0 to 1), seconds and examples_per_second.

    The folder ``out`` receives checkpoint.safetensors (at the start, after each epoch, and every ten minutes),
    log.jsonl, curve.svg, and at the end model.safetensors with ``about`` and the history in it. ``resume`` goes on from
    the checkpoint, on the same machine bit for bit as if the run had never stopped; ``epochs`` may be another
    number, as long as not more are done. ``progress=False`` is silent; a ``View`` of one's own hears of all steps.

    Ctrl-C or SIGTERM: the step is finished and a checkpoint written before ``Interrupted`` is raised; a second one acts
    at once, and the checkpoint of before stays.
    Raises: NonFiniteError, naming the node where NaN or infinity first appeared; SettingError, DataError,
    NetworkError, ShapeError where arguments do not fit each other; FileError where ``out`` cannot be written;
    ModelFileError where the checkpoint is damaged or of another run, or the network cannot be written into a file.
    Source: UFLDL tutorial, stochastic gradient descent.

    >>> from faltung.data import Arrays
    >>> from faltung.elements import Affine, SquaredError
    >>> from faltung.network import Chain
    >>> from faltung.training.optimisers import SGD
    >>> x = np.linspace(-1, 1, 32)[:, None]
    >>> line = Chain(dense=Affine(1)).on((1,))
    >>> zeros = {"dense.w": np.zeros((1, 1)), "dense.b": np.zeros(1)}
    >>> settings = {"cost": SquaredError(), "optimiser": SGD(0.5), "epochs": 20, "batch": 8, "progress": False}
    >>> fitted = fit(line, zeros, Arrays(x, 3 * x + 1), **settings)
    >>> {name: w.round(3).item() for name, w in fitted.params.items()}
    {'dense.w': 3.0, 'dense.b': 1.0}
    >>> [round(row["cost"], 4) for row in fitted.history[:3]]
    [1.1676, 0.2094, 0.0421]
    """
    check_count("fit", epochs=epochs)
    if resume and out is None:
        raise SettingError("got resume=True without out, expected the folder of the run", way_out="write out='...'")
    job = Job(network, data, cost, optimiser, batch, seed, test, drop_last)
    state = job.begin(params)
    folder = None
    if out is not None:
        from faltung.training.folder import Folder

        folder = Folder(out, job, about or {})
    if folder:
        state = folder.open(state, resume, epochs)
    view = (Lines(job, epochs) if progress else Silent()) if isinstance(progress, bool) else progress
    with Signals() as signals, view, np.errstate(all="ignore"):  # what overflows is found after each step
        try:
            while len(state.history) < epochs:
                epoch = len(state.history)
                examples, sequence = job.examples_of(epoch), order(seed, epoch, len(data))
                while job.done(state) < job.steps:
                    signals.heed()
                    state = job.advance(state, examples, sequence)
                    view.step(state)
                    if folder:
                        folder.save_if_due(state)
                state = job.close(state, signals.heed)
                if folder:
                    folder.close_epoch(state)
                view.epoch(state)
        except Stop as stop:
            if folder:
                folder.save(state)
            raise _interrupted(job, state, folder, stop.signal) from None
        except NonFiniteError as error:
            if folder:
                error.way_out = f"{error.way_out}; the last checkpoint is kept in {folder.checkpoint}"
            raise
        if folder:
            folder.finish(state)
    return Fitted(job.result(state), state.history)


def _interrupted(job: Job, state: State, folder: "Folder | None", signal: int) -> Interrupted:
    go_on = (
        f"resume with out={str(folder.out)!r}, resume=True"
        if folder
        else "nothing is written, as there is no out; the parameters so far are in .params of this exception"
    )
    where = f"stopped at epoch {len(state.history) + 1}, step {job.done(state)}"
    return Interrupted(f"{where}; {go_on}", job.result(state), state.history, signal)
