"""Launcher, so that `python src/main.py` works as it always did."""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    # Until there is something to save, which main() sees to, Ctrl-C ends the program without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
    from simple_dqn.main import main

    sys.exit(main())
