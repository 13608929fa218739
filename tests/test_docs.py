"""What README, CONTRIBUTING and docs/ say holds: options, files, names in the code, commands and the worked example."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import main
from simple_dqn import options
from simple_dqn.command_line import EPILOG
from simple_dqn.deepqnetwork import BackendOptions
from simple_dqn.experiments.command import ExperimentOptions
from simple_dqn.reports import plot
from simple_dqn.reports.experiment import report
from test_deepqnetwork import random_batch

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "roms/README.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
ALL_GROUPS = (*main.GROUPS, plot.PlotOptions, report.ReportOptions, ExperimentOptions)
OTHER_PROGRAMS: dict[str, list[type[options.Options]]] = {
    "./plot.sh": [plot.PlotOptions],
    "./report.sh": [report.ReportOptions],
}
NAMES = {f.name for group in ALL_GROUPS for f in dataclasses.fields(group)}


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def code(page: str) -> list[str]:
    """What stands between backticks in the running text."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL))


def options_table() -> Iterator[str]:
    """The table of docs/options.md, as the parsers have it."""
    yield from ("| option | default | meaning |", "|---|---|---|")
    for group in ALL_GROUPS:
        yield f"| **{group.title}** | | |"
        for f in dataclasses.fields(group):
            meta = f.metadata
            name = f.name if meta["positional"] else f"--{f.name}"
            choices = "".join(f" {word}" for word in [r"\|".join(meta["choices"])] if word)
            default = meta["default_text"] or shown(f.default)
            yield f"| `{name}{choices}` | {default} | {meta['help']} |".replace("|  |", "| |")


def shown(default: Any) -> str:
    if default in (None, ()):
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_table_of_options_is_the_parsers() -> None:
    found = [line for line in text("docs/options.md").splitlines() if line.startswith("|")]
    wanted = list(options_table())
    assert found == wanted, "the table should be:\n" + "\n".join(wanted)


@pytest.mark.parametrize("page", PAGES)
def test_options_in_the_text_exist(page: str) -> None:
    own = {
        "dev",
        "cluster",
        "help",
        "clipped_q",
        "trials",
        "seed",
        "depth",
        "unshallow",
    }  # of scripts, the worked example, benchmarks, git
    found = {name for word in code(page) for name in re.findall(r"--(\w+)", word)}
    assert found <= NAMES | own


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        *("docs/" + name for name in ("training.md", "watching.md", "curves.md", "filters.md", "reports.md")),
    ],
)
def test_examples_can_be_run(page: str) -> None:
    examples = commands(page)
    assert examples
    for script, *arguments in examples:
        assert (ROOT / script).is_file(), script
        if script in ("./check.sh", "scripts/python"):
            for word in arguments:
                assert not word.endswith(".py") or (ROOT / word).is_file(), word
            continue
        if script == "./train.sh" and arguments[1:] and not arguments[1].startswith("-"):
            del arguments[1]  # the label
        prefix = {"./resume.sh": ["--resume"], "./train.sh": []}.get(script, ["--load_weights"])
        prefix = [] if script in OTHER_PROGRAMS else prefix
        if arguments == ["--help"]:
            continue
        groups = OTHER_PROGRAMS.get(script, main.GROUPS)
        values = options.parse(groups, [*prefix, *arguments], usage="", description="", epilog="")
        assert all(word[2:] in values for word in arguments if word.startswith("--")), "an option is shortened"
        for group in groups:
            options.build(group, values)


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    names = [word for word in code(page) if re.fullmatch(r"[\w./]+\.(sh|py|md|toml|txt)|scripts/\w+|tests/", word)]
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text(page)) if "://" not in link]
    for name in names:
        assert (ROOT / name).exists(), name
    for link in links:
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def headings(page: Path) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines]


WHERE_FILES_GO = re.compile(r"(?:snapshots|results|videos)/[\w./{}]+|(?<!\S)[\w/]+\.(?:gif|mov|mp4|wav|html|png|csv)")


def git(*words: str, lines: str = "") -> list[str]:
    run = subprocess.run(["git", *words], cwd=ROOT, input=lines, capture_output=True, text=True, check=False)
    if run.returncode > 1:
        pytest.skip("no git repository")
    return run.stdout.splitlines()


@pytest.mark.parametrize("page", [*PAGES, "benchmarks/README.md"])
def test_git_ignores_what_commands_leave(page: str) -> None:
    """Also what their comments name."""
    words = [word.strip(".") for block in blocks(page, "sh") for word in WHERE_FILES_GO.findall(block)]
    words += [word for line in code(page) if "--output" in line or "--plot" in line for word in line.split()[2:]]
    files = [word for word in words if re.search(r"[^.]\.\w+$", word) and "pretrained/" not in word]
    files += [word.replace("{snapshot}", "pong_16").replace("{name}", "pong") for word in files]
    if files:
        assert set(files) - set(git("check-ignore", "--no-index", "--stdin", lines="\n".join(files))) == set()


def test_git_ignores_what_scripts_leave() -> None:
    texts = [path.read_text() for path in ROOT.glob("*.sh")]
    files = {word.strip(".") for script in texts for word in WHERE_FILES_GO.findall(script) if "csv_file" not in word}
    files |= {"snapshots/pong.1/pong_3.pkl", "results/pong.csv.1", "snapshots/pong.lock", "snapshots/pong_1.checkpoint"}
    files |= {
        "pong.gif",
        "pong.csv.1",
        "pong.tensorboard/events",
        "results/pong.tensorboard.1/events",
        "pong_1.checkpoint",
    }  # what options put into the root
    files |= {"snapshots/pong_100.replay", "results/Breakout-v0/scores.json", "videos/pong/000001.png"}
    assert len(files) > 12
    assert files - set(git("check-ignore", "--no-index", "--stdin", lines="\n".join(files))) == set()


def test_no_command_writes_where_files_ship() -> None:
    tracked = git("ls-files", "snapshots", "results", "videos")
    assert len(tracked) > 10
    assert [name for name in tracked if "/pretrained/" not in name and not name.endswith("/.gitkeep")] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_ship_are_there(page: str) -> None:
    shown = "\n".join([text(page), EPILOG, *(path.read_text() for path in ROOT.glob("*.sh"))])
    for name in re.findall(r"(?:snapshots|results|videos)/pretrained/\w+\.\w+", shown):
        assert (ROOT / name).is_file(), name


BENCHMARKS = {path.name for path in (ROOT / "benchmarks").glob("*.py")} - {"report.py"}  # no program


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_benchmarks_start_as_their_table_says(name: str, tmp_path: Path) -> None:
    assert f"`scripts/python benchmarks/{name}" in text("benchmarks/README.md")
    command = [sys.executable, str(ROOT / "benchmarks" / name), "--help"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"usage: {name}")


def test_every_script_is_in_the_docs() -> None:
    scripts = {path.name for path in ROOT.glob("*.sh")} | {"scripts/python"}
    assert scripts <= {word.removeprefix("./").split()[0] for word in code("docs/training.md")}
    shown = {word.removeprefix("./").split()[0] for word in code("README.md")}
    assert {name for name in scripts if not name.startswith(("profile", "test_gym", "upload", "scripts/"))} <= shown


def test_names_in_the_code_exist() -> None:
    words = code("CONTRIBUTING.md")
    paths = {word.removeprefix("src/") for word in words}
    files = [path.removesuffix(".py") for path in paths if re.fullmatch(r"(simple_dqn|nvis)/[\w/]+\.py", path)]
    modules = [importlib.import_module(name.replace("/", ".")) for name in files]
    found = [word for word in words if re.fullmatch(r"_?[A-Z]\w+(\.\w+)*", word) and not word.endswith(".md")]
    assert "QLearning.target_parts" in found
    for name in found:
        first, *rest = name.split(".")
        things = {id(vars(m)[first]): vars(m)[first] for m in modules if first in vars(m)}
        assert len(things) == 1, f"{name}: {len(things)} things of that name"
        (thing,) = things.values()
        for part in rest:
            fields = {f.name for f in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else set()
            assert part in fields or hasattr(thing, part), name
            thing = getattr(thing, part, None)


@pytest.mark.parametrize("page", PAGES)
def test_rows_of_a_table_have_as_many_cells_as_its_head(page: str) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", text(page), re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


@pytest.mark.parametrize("page", PAGES)
def test_no_host_of_a_package_registry(page: str) -> None:
    assert not re.search(r"pypi|pythonhosted|conda|download\.pytorch|index-url", text(page), re.IGNORECASE)


@pytest.mark.parametrize(
    ("program", "groups"),
    [(main.main, main.GROUPS), (plot.main, [plot.PlotOptions]), (report.main, [report.ReportOptions])],
)
def test_help_names_every_group_and_option(
    program: Callable[[list[str]], int], groups: Sequence[type[options.Options]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        program(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for group in groups:
        assert f"\n{group.title}:\n" in shown
        for f in dataclasses.fields(group):
            assert re.search(rf"^  (--)?{f.name}\b", shown, re.MULTILINE), f.name


# The worked example in CONTRIBUTING.


def patched(diff: str) -> ModuleType:
    """The module that a diff of ours changes, changed."""
    header, *hunks = re.split(r"^@@.*\n", diff, flags=re.MULTILINE)
    path = header.splitlines()[0].removeprefix("--- a/")
    source = text(path)
    for hunk in hunks:
        lines = hunk.splitlines()
        old, new = ("\n".join(line[1:] for line in lines if line[:1] != sign) for sign in ("+", "-"))
        if new in source:
            continue  # someone is trying the example
        assert source.count(old) == 1, f"{path} has not once:\n{old}"
        source = source.replace(old, new)
    assert max(map(len, source.splitlines())) <= 120
    module = ModuleType("patched")
    sys.modules["patched"] = module  # where dataclasses look up types
    exec(compile(source, path, "exec"), vars(module))
    return module


@pytest.mark.parametrize("clipped", [True, False])
def test_clipped_double_q_learning_example(clipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "patched", ModuleType("patched"))  # taken away again
    (diff,) = blocks("CONTRIBUTING.md", "diff")
    module = patched(diff)
    network = module.DeepQNetwork(
        4, (4, 36, 36), module.DeepQNetworkOptions(clipped_q=clipped), BackendOptions(backend="cpu"), seed=1
    )
    batch = random_batch(np.random.default_rng(1), size=36)
    online = network.predict(batch.poststates)
    target = network._target.forward(network._tensor(batch.poststates)).detach().numpy()
    assert (online < target).any()
    best = (np.minimum(online, target) if clipped else target).max(axis=1)
    expected = np.clip(batch.rewards[:, 0], -1, 1) + 0.99 * best * ~batch.terminals
    np.testing.assert_allclose(network.targets(network._to_batch(batch)).numpy(), expected, rtol=1e-6)
    assert network.train(batch).cost > 0
