"""What a person sees: log lines, a progress bar, and files that keep what the terminal showed."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger("twostep")

QUIET, NORMAL, VERBOSE = logging.WARNING, logging.INFO, logging.DEBUG


class _Lenient(logging.Handler):
    """Drops lines that can't be written: the disk is full, which the next checkpoint tells of, or nobody reads on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Show the traceback of a line that can't be made, which is a defect."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _RunFile(_Lenient, logging.FileHandler):
    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")

    def close(self) -> None:
        with suppress(OSError):  # of the lines that were dropped
            super().close()


class _Terminal(_Lenient):
    """Writes to what `sys.stdout` or `sys.stderr` is at the moment, so that lines go above a progress bar."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._stream = name

    def emit(self, record: logging.LogRecord) -> None:
        stream = getattr(sys, self._stream)
        stream.write(self.format(record) + "\n")
        stream.flush()


class _Below(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.WARNING


class _HideUnderBar(logging.Filter):
    """On a terminal the bar tells what epoch lines tell."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (getattr(record, "epoch_line", False) and sys.stdout.isatty())


def _shows_information() -> bool:
    """Whether the terminal gets information; the files of a run get it anyway."""
    return any(isinstance(handler, _Terminal) and handler.level <= logging.INFO for handler in logger.handlers)


def _log_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    logger.warning("%s: %s", category.__name__, message)


def _log_thread_error(failed: threading.ExceptHookArgs) -> None:
    """Leave a full disk to the thread for whom another writes: it raises there too."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)


@contextmanager
def logging_to_terminal(level: int) -> Generator[None]:
    """Send information to stdout and warnings to stderr, and remember both for the files of a run."""
    out, err = _Terminal("stdout"), _Terminal("stderr")
    out.addFilter(_Below())
    out.addFilter(_HideUnderBar())
    out.setLevel(level)
    err.setLevel(logging.WARNING)
    early = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    handlers: list[logging.Handler] = [out, err, early]
    formatter = logging.Formatter("%(message)s")
    for handler in handlers:
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    before = logger.level, logger.propagate
    logger.setLevel(min(level, logging.INFO))
    logger.propagate = False
    show, warnings.showwarning = warnings.showwarning, _log_warning
    hook, threading.excepthook = threading.excepthook, _log_thread_error
    try:
        yield
    finally:
        warnings.showwarning = show
        threading.excepthook = hook
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            if handler not in (out, err):
                handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]


def log_to_files(folder: Path) -> None:
    """Append all log lines, those so far too, to the files `stdout` and `stderr` in a run's directory."""
    out, err = (_RunFile(folder / name) for name in ("stdout", "stderr"))
    out.addFilter(_Below())
    err.setLevel(logging.WARNING)
    for handler in (out, err):
        handler.setFormatter(logging.Formatter("%(message)s"))
    for early in [handler for handler in logger.handlers if isinstance(handler, MemoryHandler)]:
        for record in early.buffer:
            for handler in (out, err):
                if record.levelno >= handler.level and handler.filter(record):
                    handler.emit(record)
        logger.removeHandler(early)
        early.close()
    logger.addHandler(out)
    logger.addHandler(err)


class ProgressBar:
    """A bar for the epochs of one trainer: epoch, loss, samples a second, time left. Only on a terminal, unless quiet.

    Args:
        name: what is being trained.
        total: steps in all.
        done: steps already taken.
        beside: a bar that is there still, under which this one is drawn; closing either closes both.
    """

    def __init__(self, name: str, total: int, done: int, beside: ProgressBar | None = None) -> None:
        self._progress: Progress | None = None if beside is None else beside._progress
        if self._progress is None and sys.stdout.isatty() and _shows_information():
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[shown]}"),
                TimeRemainingColumn(),
                console=Console(file=sys.stdout),
            )
            self._progress.start()
        if self._progress is not None:
            self._task = self._progress.add_task(name, total=total, completed=done, shown="")

    def update(self, done: int, shown: str) -> None:
        """Show the number of steps taken, and a few words."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, shown=shown)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.stop()
