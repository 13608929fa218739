"""Start a command that receives SIGTERM when the process that started it dies: tether.py PID COMMAND...

A worker that is killed must not leave a training that goes on without it. macOS has no such signal. There the training
goes on, and the next leg of the run waits for its end.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # because Ray's workers block Ctrl-C
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == int(sys.argv[1]):  # it may have died before
        os.execv(sys.argv[2], sys.argv[2:])
