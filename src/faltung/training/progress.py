"""What a run says while it goes: a bar with rate, time left and cost in a terminal, and one line an epoch anywhere."""

from typing import Any, Protocol

from faltung.text import percent
from faltung.training.job import Job, Row, State


class View(Protocol):
    """Who is told how a run goes: entered before the first step, left after the last one, however it ends."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: Any) -> None: ...

    def step(self, state: State, /) -> None:
        """Called after each step."""

    def epoch(self, state: State, /) -> None:
        """Called after each epoch, whose row is the last one of the history."""


class Silent:
    """Says nothing."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def step(self, state: State) -> None: ...

    def epoch(self, state: State) -> None: ...


class Lines:
    """One line an epoch, and in a terminal a bar below; both go to the standard error."""

    def __init__(self, job: Job, epochs: int):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.job, self.epochs = job, epochs
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = ("{task.description}", "{task.fields[rate]}", "cost {task.fields[cost]}")
        description, rate, cost = map(TextColumn, columns)
        bar = (description, BarColumn(), rate, TimeRemainingColumn(), cost)
        self.bar = Progress(*bar, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=epochs * job.steps, rate="", cost="")

    def __enter__(self) -> None:
        if not self.bar.disable:
            self.bar.start()

    def __exit__(self, *error: object) -> None:
        if not self.bar.disable:  # or rich before 14.3 prints an empty line
            self.bar.stop()

    def step(self, state: State) -> None:
        done = self.job.done(state)
        rate = done * self.job.batch / max(state.seconds, 1e-9)
        self.bar.update(
            self.task,
            completed=state.step,
            description=f"epoch {len(state.history) + 1}/{self.epochs}",
            rate=f"{rate:,.0f} examples/s",
            cost=f"{state.tally.mean:.4f}",
        )

    def epoch(self, state: State) -> None:
        self.console.print(line(state.history[-1], self.epochs))


def line(row: Row, epochs: int) -> str:
    """One epoch as text.

    >>> row = {"epoch": 3, "cost": 0.51234, "test_cost": 0.6, "test_accuracy": 0.8125, "seconds": 1.5}
    >>> line(row | {"examples_per_second": 6666.7}, 20)
    'epoch  3/20  cost 0.5123  test cost 0.6000  test accuracy 81.25 %  6,667 examples/s  1.5 s'
    """
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"cost {row['cost']:.4f}"]
    if row.get("test_cost") is not None:
        parts.append(f"test cost {row['test_cost']:.4f}")
    if row.get("test_accuracy") is not None:
        parts.append(f"test accuracy {percent(row['test_accuracy'])}")
    return "  ".join([*parts, f"{row['examples_per_second']:,.0f} examples/s", f"{row['seconds']:.1f} s"])
