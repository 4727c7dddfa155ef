#!/usr/bin/env python3
"""Train and test a two-step model: the same as `twostep train`."""

import sys

from twostep.__main__ import main

main(["train", *sys.argv[1:]])
