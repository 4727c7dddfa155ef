"""Signals that ask a process to end, as one exception that no `except Exception` swallows.

The command line listens to them from its first moment. In Python only Ctrl-C is heard, as always: what SIGTERM does to
a user's own process is left as it is.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from types import FrameType

SECONDS_BETWEEN_LOOKS = 0.05
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Interrupted(KeyboardInterrupt):
    """A signal has asked the process to end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number

    @property
    def signal_name(self) -> str:
        """Name of the signal, like SIGTERM."""
        return signal.Signals(self.number).name

    @property
    def status(self) -> int:
        """Exit status of a process that ends for the signal."""
        return 128 + self.number


@contextmanager
def interrupting() -> Generator[None]:
    """Raise `Interrupted` at each signal of `ENDING` that is not ignored, as SIGHUP is under nohup.

    In the middle of an import it is raised when that is done: C code that imports drops exceptions. Inside of another
    `interrupting` this does nothing: the outer one may hold a signal that came during an import.
    """
    if isinstance(getattr(signal.getsignal(signal.SIGALRM), "__self__", None), _Interrupter):
        yield
        return
    handler = _Interrupter()
    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    with _handling([signal.SIGALRM], handler.again), _handling(heard, handler):
        yield


class FirstNoted:
    """Whether a signal has come, and which: the first one is only noted, a second one interrupts at once."""

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def listening(self) -> Generator[None]:
        """Note what would interrupt this process: Ctrl-C, and in the command line every signal of `ENDING`."""
        handlers = {number: signal.getsignal(number) for number in ENDING}
        heard = [
            number
            for number, handler in handlers.items()
            if handler is signal.default_int_handler or isinstance(handler, _Interrupter)
        ]
        with _handling(heard, self._note):
            yield

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise Interrupted(number)
        self.number = number


class _Interrupter:
    """A handler that raises, after the import that is under way; at a second signal, at once."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._number:
            raise Interrupted(number)
        self._number = number
        self.again(number, frame)

    def again(self, alarm: int, frame: FrameType | None) -> None:
        """Raise, or look again a moment later."""
        if not _is_importing(frame):
            raise Interrupted(self._number)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_BETWEEN_LOOKS)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def _handling(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """Handle signals, and put back what handled them; only the main thread may, so in others nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
