"""Launcher, so that `python src/main.py` works as it always did."""

import sys

from simple_dqn.main import main

if __name__ == "__main__":
    sys.exit(main())
