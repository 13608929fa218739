"""The house of the code: imports run downward, without circles, and libraries load only where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    ".".join(path.relative_to(folder).with_suffix("").parts): path
    for folder, names in ((ROOT / "src", "simple_dqn/**/*.py"), (ROOT, "nvis/*.py"), (ROOT / "src", "main.py"))
    for path in folder.glob(names)
    if path.name != "__init__.py"
}


def imports(path: Path) -> set[str]:
    """The modules of this project that a file imports when it is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    names = {name for node in found for name in (node.module, *(f"{node.module}.{a.name}" for a in node.names))}
    return {str(name) for name in names if name in FILES}


def test_no_module_imports_itself_through_others() -> None:
    left = {name: imports(path) for name, path in FILES.items()}
    assert left["main"] >= {"simple_dqn.agent", "nvis.visualization"}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


def test_the_filter_page_is_not_imported_by_the_package() -> None:
    for name, path in FILES.items():
        assert not name.startswith("simple_dqn.") or not {n for n in imports(path) if n.startswith("nvis")}, name


@pytest.mark.parametrize(
    "module",
    [
        "simple_dqn.agent",
        "simple_dqn.saving.snapshot",
        "simple_dqn.reports.plot",
        "simple_dqn.reports.experiment.report",
    ],
)
def test_these_modules_need_no_library_for_networks_or_games(module: str) -> None:
    libraries = "{'torch', 'cv2', 'ale_py', 'pygame', 'av', 'matplotlib'}"
    code = f"import sys; sys.path.insert(0, 'src'); import {module}; print(sorted({libraries} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("[]\n", "")
