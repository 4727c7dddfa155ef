"""`python -m twostep` is the command `twostep`."""

from twostep.cli import main

main()
