"""The command `twostep`, and `python -m twostep`: signals are heard before anything heavy is imported."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from twostep.core.signals import Interrupted, interrupting


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status, 128 + n after signal n."""
    try:
        with interrupting():
            from twostep.cli import main as run

            run(arguments)
    except Interrupted as stop:  # the command line was not there yet
        if "WORLD_SIZE" not in os.environ or os.environ.get("RANK") == "0":
            sys.stderr.write(f"interrupted by {stop.signal_name}; run the command again\n")
        sys.exit(stop.status)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is said: Ctrl-C while Python ends needs no traceback


if __name__ == "__main__":
    main()
