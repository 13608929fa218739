"""CleanRL: its dqn_atari.py, run as it is from the file --source.

It is a script, so what is counted is counted in what it calls: steps of the vector environment and of the optimizer.
"""

import contextlib
import os
import runpy
import sys
import tempfile
from pathlib import Path

from stopwatch import BATCH_SIZE, EXPLORATION, REPLAY_SIZE, TARGET_STEPS, TRAIN_FREQUENCY, Stopwatch

stopwatch = Stopwatch(lambda: Adam.steps)

import ale_py.registration  # noqa: E402
import gymnasium  # noqa: E402
import torch  # noqa: E402


class Done(Exception):
    pass


class SyncVectorEnv(gymnasium.vector.SyncVectorEnv):
    begun = False

    def step(self, actions):
        if self.begun and stopwatch.step():  # all that belongs to the last step is done
            raise Done
        self.begun = True
        return super().step(actions)


class Adam(torch.optim.Adam):
    steps = 0

    def step(self, *args, **kwargs):
        Adam.steps += 1
        return super().step(*args, **kwargs)


gymnasium.vector.SyncVectorEnv = SyncVectorEnv
torch.optim.Adam = Adam
ale_py.registration.register_v0_v4_envs()
source = Path(stopwatch.source).resolve()
sys.path.insert(0, str(source.parents[1]))  # where cleanrl_utils is
sys.argv = [
    source.name,
    *("--total-timesteps", str(stopwatch.stop + 2)),
    *("--learning-starts", str(stopwatch.random_steps)),
    *("--buffer-size", str(REPLAY_SIZE)),
    *("--batch-size", str(BATCH_SIZE)),
    *("--train-frequency", str(TRAIN_FREQUENCY)),
    *("--target-network-frequency", str(TARGET_STEPS)),
    *("--start-e", str(EXPLORATION)),
    *("--end-e", str(EXPLORATION)),
    "--no-cuda",
]
with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
    os.chdir(folder)  # it writes its log there
    with contextlib.suppress(Done):
        runpy.run_path(str(source), run_name="__main__")
stopwatch.report("torch", "ale-py", "gymnasium", "numpy")
