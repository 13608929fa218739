"""Launcher, so that `python src/experiment_report.py` works like `python src/main.py`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
    from main import GROUPS
    from simple_dqn.reports.experiment.report import main

    sys.exit(main(groups=GROUPS))
