#!/usr/bin/env python3
"""Train and test one model alone: the same as `twostep train-single`."""

import sys

from twostep.__main__ import main

main(["train-single", *sys.argv[1:]])
