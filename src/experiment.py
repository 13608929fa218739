"""Launcher of experiment.sh. It imports main for the list of all options of train.sh."""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # because there is nothing to save yet
    sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
    from main import GROUPS
    from simple_dqn.experiments.command import main

    sys.exit(main(GROUPS))
