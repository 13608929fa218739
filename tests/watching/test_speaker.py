"""Sounds: without a gap, and without a deadlock at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from simple_dqn.watching import speaker

PLAY_THREE = """
speaker = Speaker(512, 30720)
for loudness in (200, 201, 202):
    speaker.play(np.full(512, loudness, np.uint8))
while speaker.waiting:
    time.sleep(0.01)
speaker.close()
"""
CLOSE_WHILE_BUSY = """
sys.setswitchinterval(100)
for _ in range(3):
    speaker = Speaker(512, 30720)
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    speaker.close()
"""


def run(program: str, **variables: str) -> None:
    """Run a program with a time limit, because signals do not end a deadlock."""
    program = f"import sys, time\nimport numpy as np\nfrom simple_dqn.watching.speaker import Speaker\n{program}"
    variables = os.environ | {"PYTHONPATH": str(Path(speaker.__file__).parents[2])} | variables
    subprocess.run([sys.executable, "-c", program], env=variables, check=True, capture_output=True, timeout=60)


def test_sounds_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    file = tmp_path / "sound"
    run(PLAY_THREE, SDL_AUDIODRIVER="disk", SDL_DISKAUDIOFILE=str(file), SDL_DISKAUDIODELAY="1")
    assert file.read_bytes().strip(b"\x80") == b"".join(bytes([loudness]) * 512 for loudness in (200, 201, 202))


def test_the_sound_device_closes_while_python_is_busy() -> None:
    """SDL's thread must not wait for Python's lock then, because the main thread holds it."""
    run(CLOSE_WHILE_BUSY, SDL_AUDIODRIVER="dummy")
