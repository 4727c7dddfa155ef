"""The command line, `twostep`: train, train-single, evaluate, sample, score, encode, diagnose, report, compare,
compare-samples, runs, models, datasets.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from twostep.cli.compare_samples import compare_samples
from twostep.cli.diagnose import diagnose
from twostep.cli.evaluate import evaluate
from twostep.cli.flags import Flag
from twostep.cli.show import compare, datasets, encode, models, report, runs, sample, score
from twostep.cli.train import FAILED, train, train_single
from twostep.core import console
from twostep.core.factories import given
from twostep.core.machine import Ranks
from twostep.core.schema import LostRankError, UserError
from twostep.core.signals import Interrupted, interrupting

DEFECT, USER_MISTAKE = 1, 2
# OpenMP's threads wait by spinning for milliseconds, and so take the core from the process they wait for when the
# machine is busy. This many turns take microseconds (benchmarks/busy_machine.py). It must be set before torch is
# imported.
SPIN_COUNT = "1000"
# All ranks find the same mistake. The first one reports it and ends, and its launcher ends the others while they wait;
# one that is still running then has a mistake of its own.
SECONDS_FOR_FIRST_RANK = 20.0

app = App(
    name="twostep",
    help="Two-step deep generative models: an autoencoder, then a density on its embeddings.",
    version_flags=(),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
for command in (
    train,
    train_single,
    evaluate,
    sample,
    score,
    encode,
    diagnose,
    report,
    compare,
    compare_samples,
    runs,
    models,
    datasets,
):
    app.command(command)
app.register_install_completion_command(help="Install completion of commands and flags for this shell.")


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    verbose: Annotated[bool, Parameter(name=["-v", "--verbose"], negative=())] = False,
    quiet: Annotated[bool, Parameter(name=["-q", "--quiet"], negative=())] = False,
    json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    gae_module: str | None = None,
    debug: Flag = False,
    version: Flag = False,
) -> int:
    """Run a command.

    Args:
        verbose: Print more.
        quiet: Print only warnings and errors.
        json: Print results as JSON on stdout, and all else on stderr.
        gae_module: module:factory of the encoder of a run that was trained with your own (--gae-model external).
        debug: Print the traceback of an error.
        version: Print the version.
    """
    if version:
        from importlib.metadata import version as installed

        sys.stdout.write(f"twostep {installed('twostep')}\n")
        return 0
    first = not _is_later_rank()
    quiet = quiet or not first
    level = console.VERBOSE if verbose else console.QUIET if quiet else console.NORMAL
    with console.logging_to_terminal(level, json):
        try:
            with interrupting(), given(gae_module):
                return int(_parse(app, tokens) or 0)
        except (UserError, CycloptsError) as error:
            return _fail(error, USER_MISTAKE, debug)
        except LostRankError as error:
            return _fail(error, FAILED, debug)
        except Interrupted as stop:
            if first:
                again = shlex.join(["twostep", *tokens])
                console.logger.error("interrupted by %s; run it again with: %s", stop.signal_name, again)
            return stop.status
        except Exception as error:
            line = _one_line(error)
            if isinstance(error, OSError) and error.filename is not None:
                return _fail(error, USER_MISTAKE, debug, f"{error.filename}: {error.strerror}")
            # torch has an error of its own for that on GPUs only
            of_torch = "allocate memory" in line or type(error).__name__ == "OutOfMemoryError"
            if of_torch or isinstance(error, MemoryError):
                line = f"not enough memory for this model, batch or dataset ({line})"
                return _fail(error, FAILED, debug, line)
            console.logger.exception("this is a defect of twostep; please report the following:")
            return DEFECT
        finally:
            # The group of ranks, if there is one, has threads that abort a process which ends with them.
            distributed = sys.modules.get("torch.distributed")
            if distributed is not None and distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: not every terminal has ± and ‖
    try:
        status = int(_parse(app.meta, sys.argv[1:] if arguments is None else arguments) or 0)
    except CycloptsError as error:
        status = USER_MISTAKE
        sys.stderr.write(f"{_one_line(error)}\n")
    sys.exit(status)


def _parse(parser: App, tokens: Sequence[str]) -> Any:
    return parser(tokens, exit_on_error=False, print_error=False, result_action="return_value")


def _is_later_rank() -> bool:
    """Whether another process, the first of several ranks, prints messages."""
    try:
        return Ranks.of_environment().rank > 0
    except UserError:  # which the engine raises too, where it can be reported
        return False


def _fail(error: Exception, status: int, debug: bool, line: str = "") -> int:
    if _is_later_rank():
        time.sleep(SECONDS_FOR_FIRST_RANK)
    console.logger.error("%s", line or _one_line(error), exc_info=error if debug else None)
    return status


def _one_line(error: Exception) -> str:
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return (
            f"{' '.join(error.unused_tokens)}: belongs to no flag; repeat a flag for each value: --flag a=1 --flag b=2"
        )
    return " ".join(str(error).split())
