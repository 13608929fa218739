"""Launcher, so that `python src/plot.py` works as it always did."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends --watch without a word
    from simple_dqn.plot import main

    sys.exit(main())
