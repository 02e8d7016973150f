"""Ctrl-C in the middle of a long run: remembered until the run is in a state that can be kept."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A run that stopped because it was told to, after a whole step; the message says where and how to go on.

    ``params`` and ``history`` are those of that moment, ``signal`` the number of the signal.
    """

    def __init__(self, message: str, params: dict[str, Any], history: tuple[dict[str, Any], ...], signal: int):
        super().__init__(message)
        self.params = params
        self.history = history
        self.signal = signal


class Stop(Exception):  # noqa: N818 -- not an error, but the wish to stop
    """Raised by ``Signals.heed``."""

    def __init__(self, signal: int):
        super().__init__(signal)
        self.signal = signal


class Signals:
    """While this context lasts, the first SIGINT or SIGTERM is only remembered; another one acts as it always did.

    ``heed``, called where stopping does no harm, raises ``Stop`` for what was remembered; what nobody heeded is
    delivered at the end. Signals that the process ignores stay ignored, and outside the main thread, where Python
    delivers none, nothing happens.
    """

    def __init__(self):
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: not installed from Python, and so not ours to restore
                    self._before[number] = before
                    signal.signal(number, self._remember)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._restore()
        if self.received is not None and kind is None:
            signal.raise_signal(self.received)

    def heed(self) -> None:
        """Stop here, if a signal asked for it."""
        if self.received is not None:
            raise Stop(self.received)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}
