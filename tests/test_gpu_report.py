"""benchmarks/gpu.py: a part that crashes or hangs leaves the others, and what it has printed so far."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runs import DEADLINE, ROOT

FILE = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("gpu_report", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("pass", ""),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import os; os.abort()", "exit status -6"),
        ("import time; time.sleep(60)", "stopped after 2 s"),
        ("import subprocess; subprocess.run(['sleep', '60'])", "stopped after 2 s"),
    ],
)  # fmt: skip
def test_a_part_that_ends_early(code: str, why: str, gpu: Any) -> None:
    started = time.monotonic()
    program = f"import faulthandler; faulthandler.disable(); print('row', flush=True); {code}"
    assert gpu.run([sys.executable, "-c", program], 2, new_group=True) == ("row\n", why)
    assert time.monotonic() - started < 50  # the 60 seconds of what hangs


def test_what_saves_gets_its_time(gpu: Any) -> None:
    code = "import sys, time\nprint('row', flush=True)\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('saved')"
    assert gpu.run([sys.executable, "-c", code], 22, saving=20) == ("row\nsaved\n", "stopped after 22 s")


def test_a_report_without_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, str(FILE), "--seconds", "100", "--only", "machine", "peers", "--output", "report.md"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=DEADLINE, check=True)
    text = (tmp_path / "report.md").read_text()
    assert "- Python" in text
    assert "Not measured: `--cleanrl FOLDER` must name a checkout of CleanRL." in text
    assert "ended early" not in text
