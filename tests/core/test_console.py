"""What a person sees: which stream, which files, a bar on a terminal and plain lines elsewhere."""

import io
import logging
import os
import pty
import re
import select
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from helpers.arguments import only_run, repeated, single_arguments, two_step_arguments
from twostep.core.console import NORMAL, QUIET, VERBOSE, ProgressBar, log_to_files, logging_to_terminal

logger = logging.getLogger("twostep")


def say():
    logger.debug("a detail")
    logger.info("information")
    logger.warning("a warning")
    logger.error("an error")


@pytest.mark.parametrize(
    ("level", "out"), [(QUIET, ""), (NORMAL, "information\n"), (VERBOSE, "a detail\ninformation\n")]
)
def test_information_goes_to_stdout_and_warnings_to_stderr(capsys, level, out):
    with logging_to_terminal(level):
        say()
    assert capsys.readouterr() == (out, "a warning\nan error\n")


def test_python_warnings_are_one_line_on_stderr(capsys):
    with warnings.catch_warnings(), logging_to_terminal(NORMAL):
        warnings.simplefilter("always")
        warnings.warn("odd numbers", RuntimeWarning, stacklevel=1)
    assert capsys.readouterr() == ("", "RuntimeWarning: odd numbers\n")


def test_everything_is_put_back_afterwards(capsys):
    before = logger.level, logger.propagate, logger.handlers[:], warnings.showwarning
    with pytest.raises(ZeroDivisionError), logging_to_terminal(VERBOSE):
        raise ZeroDivisionError
    assert (logger.level, logger.propagate, logger.handlers[:], warnings.showwarning) == before


def test_files_keep_lines_from_before_and_after_they_were_there(capsys, tmp_path):
    with logging_to_terminal(VERBOSE):
        say()
        log_to_files(tmp_path)
        say()
    out, err = capsys.readouterr()
    assert (tmp_path / "stdout").read_text() == out == "a detail\ninformation\n" * 2
    assert (tmp_path / "stderr").read_text() == err == "a warning\nan error\n" * 2


def test_files_of_a_quiet_run_keep_information(capsys, tmp_path):
    with logging_to_terminal(QUIET):
        say()
        log_to_files(tmp_path)
        say()
    assert capsys.readouterr().out == ""
    assert (tmp_path / "stdout").read_text() == "information\n" * 2


def test_a_run_that_goes_on_appends_to_its_files(capsys, tmp_path):
    for _ in range(2):
        with logging_to_terminal(NORMAL):
            log_to_files(tmp_path)
            logger.info("once more")
    assert (tmp_path / "stdout").read_text() == "once more\n" * 2


def test_both_files_are_there_when_a_stream_stays_empty(capsys, tmp_path):
    with logging_to_terminal(NORMAL):
        log_to_files(tmp_path)
        logger.info("information")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stderr", "stdout"]
    assert (tmp_path / "stderr").read_text() == ""


def test_tracebacks_are_kept_whole(capsys, tmp_path):
    with logging_to_terminal(NORMAL):
        log_to_files(tmp_path)
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logger.exception("it failed:")
    assert (tmp_path / "stderr").read_text() == capsys.readouterr().err
    assert "Traceback" in (tmp_path / "stderr").read_text()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("level", "shown"), [(QUIET, False), (NORMAL, True)])
def test_a_bar_is_drawn_on_a_terminal_unless_quiet(monkeypatch, level, shown):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    with logging_to_terminal(level):
        bar = ProgressBar("gae vae", 10, 3)
        bar.update(7, "epoch 2 loss 1.5, 300 samples/s")
        bar.close()
        logger.info("an epoch line", extra={"epoch_line": True})
    text = sys.stdout.getvalue()
    assert ("gae vae" in text and "7/10" in text and "epoch 2 loss 1.5" in text) == shown
    assert "an epoch line" not in text
    assert bool(text) == shown


def test_of_many_short_epochs_the_output_shows_few_and_the_file_all(capsys, tmp_path):
    with logging_to_terminal(NORMAL):
        log_to_files(tmp_path)
        for epoch in range(20):
            logger.info("epoch %d", epoch, extra={"epoch_line": True, "optional": 0 < epoch < 19})
    assert capsys.readouterr().out == "epoch 0\nepoch 19\n"
    assert len((tmp_path / "stdout").read_text().splitlines()) == 20


def test_without_a_command_line_nothing_is_drawn(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    bar = ProgressBar("vae", 10, 0)
    bar.update(5, "epoch 1")
    bar.close()
    assert sys.stdout.getvalue() == ""


def test_a_run_keeps_what_the_terminal_showed(twostep, own_images, tmp_path):
    """Among it what was said before the directory existed (constant columns) and a warning at the end."""
    path = tmp_path / "own.npy"
    np.save(path, np.c_[np.random.default_rng(0).normal(size=(60, 3)), np.zeros(60)])
    outcome = twostep(*single_arguments(str(path), tmp_path / "runs"))
    assert outcome.status == 0
    run = only_run(tmp_path / "runs")
    assert "1 of 4 columns are constant: 3" in outcome.err
    assert (run / "stdout").read_text() == outcome.out
    assert (run / "stderr").read_text() == outcome.err
    assert [
        line for line in outcome.out.splitlines() if re.match(r"model ae: epoch [12]/2: loss \S+, valid loss ", line)
    ]
    again = twostep("train-single", "--load-dir", run, "--only-test")
    assert (run / "stdout").read_text() == outcome.out + again.out


def test_epoch_lines_are_plain_without_a_terminal(twostep, own_images, tmp_path):
    outcome = twostep(*two_step_arguments(str(own_images), tmp_path / "runs"))
    found = re.findall(
        r"^(gae vae|de flow): epoch (\d)/2: loss \S+, valid loss \S+, [\d,]+ samples/s, \d+ s left", outcome.out, re.M
    )
    assert found == [("gae vae", "1"), ("gae vae", "2"), ("de flow", "1"), ("de flow", "2")]
    assert "\x1b" not in outcome.out
    assert "\r" not in outcome.out


def in_a_terminal(arguments, seconds=120):
    """Run the command on a pseudo-terminal and return its status and what the terminal got."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    program = [sys.executable, "-m", "twostep", *map(str, arguments)]
    process = subprocess.Popen(program, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([ours], [], [], 0.5)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
    os.close(ours)
    return process.wait(timeout=10), shown.decode()


def training(dataset, root):
    return [*single_arguments(str(dataset), root), *repeated("--config", ("max_epochs=60",))]


def check_what_a_terminal_shows(shown, root):
    assert "\x1b[" in shown
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"ae .*180/180 .*loss \S+, valid loss \S+, [\d,]+ samples/s .*\d:\d\d:\d\d", shown), shown[-3000:]
    assert re.search(r"epoch \d+ loss", shown)
    assert "epoch 2/60" not in shown
    assert "test model: l2_reconstruction_error" in shown
    kept = (only_run(root) / "stdout").read_text()
    assert "model ae: epoch 60/60: loss " in kept
    assert "\x1b" not in kept


@pytest.mark.cmd
def test_a_terminal_shows_a_bar_and_no_epoch_lines(own_images, tmp_path):
    status, shown = in_a_terminal(training(own_images, tmp_path / "runs"))
    assert status == 0
    check_what_a_terminal_shows(shown, tmp_path / "runs")


def test_a_stream_that_says_it_is_a_terminal_is_treated_as_one(monkeypatch, twostep, own_images, tmp_path):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert twostep(*training(own_images, tmp_path / "runs")).status == 0
    check_what_a_terminal_shows(sys.stdout.getvalue(), tmp_path / "runs")
