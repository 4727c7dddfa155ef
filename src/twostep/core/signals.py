"""Signals that terminate a process, as one exception that `except Exception` does not catch.

The command line handles them from its start. Used as a library, the package handles only Ctrl-C, as Python does.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from types import FrameType

RETRY_SECONDS = 0.05
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Interrupted(KeyboardInterrupt):
    """A signal, by its number, requested termination of the process."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number

    @property
    def signal_name(self) -> str:
        """Name of the signal, like SIGTERM."""
        return signal.Signals(self.number).name

    @property
    def status(self) -> int:
        """Exit status of a process terminated by the signal."""
        return 128 + self.number


@contextmanager
def interrupting() -> Generator[None]:
    """Raise `Interrupted` at each signal in `ENDING` that is not ignored (as SIGHUP is under nohup).

    During an import it is raised afterwards, because C code that imports drops exceptions. Within another
    `interrupting` this does nothing: the outer one may have a pending signal.
    """
    if isinstance(getattr(signal.getsignal(signal.SIGALRM), "__self__", None), _Interrupter):
        yield
        return
    handler = _Interrupter()
    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    with _handling([signal.SIGALRM], handler.again), _handling(heard, handler):
        yield


class FirstNoted:
    """Records the first signal instead of interrupting; a second one interrupts immediately."""

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def listening(self) -> Generator[None]:
        """Record the signals that would interrupt this process: Ctrl-C, and in the command line all of `ENDING`."""

        def interrupts(number: int) -> bool:
            handler = signal.getsignal(number)
            return handler is signal.default_int_handler or isinstance(handler, _Interrupter)

        with _handling(filter(interrupts, ENDING), self._note):
            yield

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise Interrupted(number)
        self.number = number


class _Interrupter:
    """A handler that raises after a running import, or immediately at a second signal."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._number:
            raise Interrupted(number)
        self._number = number
        self.again(number, frame)

    def again(self, alarm: int, frame: FrameType | None) -> None:
        """Raise, or try again a moment later."""
        if not _is_importing(frame):
            raise Interrupted(self._number)
        signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def _handling(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """Set handlers of signals and restore the previous ones; threads other than the main one can't."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
