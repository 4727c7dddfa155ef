"""Console output: log lines, a progress bar, and log files of a run."""

from __future__ import annotations

import logging
import math
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

SECONDS_BETWEEN_EPOCHS = 5.0
QUIET, NORMAL, VERBOSE = logging.WARNING, logging.INFO, logging.DEBUG


class _Terminal(logging.Handler):
    """Writes to the current `sys.stdout` or `sys.stderr`, so that lines appear above a progress bar."""

    def __init__(self, stream: str) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        stream = getattr(sys, self._stream)
        stream.write(self.format(record) + "\n")
        stream.flush()


class _RunFile(logging.FileHandler):
    """Drops lines that can't be written because the disk is full, which the next checkpoint reports."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):  # of lines that were dropped
            super().close()


def _is_information(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING


class _SomeEpochs(logging.Filter):
    """Drops epoch lines on a terminal, where a progress bar shows the same; elsewhere, optional ones that come fast."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "epoch_line", False):
            return True
        if sys.stdout.isatty():
            return False
        if getattr(record, "optional", False) and record.created < self._shown + SECONDS_BETWEEN_EPOCHS:
            return False
        self._shown = record.created
        return True


def _log_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    logger.warning("%s: %s", category.__name__, message)


def _log_thread_error(failed: threading.ExceptHookArgs) -> None:
    """Ignore a full disk in a writer thread: the error is also raised in the thread that waits for it."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)


_json = False


def prints_json() -> bool:
    """Whether commands print their results as JSON, alone on stdout."""
    return _json


@contextmanager
def logging_to_terminal(level: int, as_json: bool = False) -> Generator[None]:
    """Log information to stdout and warnings to stderr, and buffer both for the files of a run.

    With `as_json` all of it goes to stderr, and `prints_json` is true.
    """
    global _json
    out, err = _Terminal("stderr" if as_json else "stdout"), _Terminal("stderr")
    out.setLevel(level)
    out.addFilter(_is_information)
    out.addFilter(_SomeEpochs())
    err.setLevel(logging.WARNING)
    early = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    for handler in (out, err, early):
        logger.addHandler(handler)
    before = logger.level, logger.propagate
    logger.setLevel(min(level, logging.INFO))
    logger.propagate = False
    show, warnings.showwarning = warnings.showwarning, _log_warning
    hook, threading.excepthook = threading.excepthook, _log_thread_error
    json_before, _json = _json, as_json
    try:
        yield
    finally:
        _json = json_before
        warnings.showwarning, threading.excepthook = show, hook
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]


def log_to_files(folder: Path) -> None:
    """Append all log lines, including earlier ones, to the files `stdout` and `stderr` in the directory of a run."""
    out, err = _RunFile(folder / "stdout"), _RunFile(folder / "stderr")
    out.addFilter(_is_information)
    err.setLevel(logging.WARNING)
    for early in [handler for handler in logger.handlers if isinstance(handler, MemoryHandler)]:
        for record in early.buffer:
            for handler in (out, err):
                if record.levelno >= handler.level:
                    handler.handle(record)
        logger.removeHandler(early)
    logger.addHandler(out)
    logger.addHandler(err)


class ProgressBar:
    """A progress bar of one trainer with remaining time, shown on a terminal only, and not if quiet.

    Of `total` steps `done` are taken already. It is drawn under the bar `above`; closing either closes both.
    """

    def __init__(self, name: str, total: int, done: int, above: ProgressBar | None = None) -> None:
        self._progress: Progress | None = None if above is None else above._progress
        shown = any(isinstance(handler, _Terminal) and handler.level <= NORMAL for handler in logger.handlers)
        if self._progress is None and shown and sys.stdout.isatty():
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
        """Show the number of steps taken, and a short text."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, shown=shown)

    def close(self) -> None:
        """Stop updating the bar."""
        if self._progress is not None:
            self._progress.stop()
