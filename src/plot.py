"""Launcher, so that `python src/plot.py` works as it always did."""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends --watch without a word
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out
    from simple_dqn.reports.plot import main

    sys.exit(main())
