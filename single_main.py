#!/usr/bin/env python3
"""Train and test one model alone: the same as `twostep train-single`."""

import sys

from twostep.cli import main

main(["train-single", *sys.argv[1:]])
