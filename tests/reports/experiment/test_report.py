"""The report of an experiment: what it says, of what it can be made, and one clear line for what is wrong."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cv2
import pytest
from synthetic import OPTIONS, VARIANTS, scores_of, write_csv, write_experiment, write_record

import main as program
from fakes import HEADER
from simple_dqn.reports.experiment import films
from simple_dqn.reports.experiment.report import main
from simple_dqn.saving.files import Lock

SHIPPED = Path(__file__).resolve().parents[3] / "snapshots" / "pretrained" / "pong_16.pkl"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*words: str) -> str:
    """The report as Markdown."""
    assert main(["night", "--films", "false", *words], program.GROUPS) == 0
    return Path("results/night/report.md").read_text()


def table(text: str, heading: str) -> list[dict[str, str]]:
    """The first table of a section."""
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (found,) = [part for part in section if part.startswith(heading + "\n")]
    lines = [line.strip("| ") for line in found.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines if not line.startswith("---")]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]


def test_report_of_a_complete_experiment(folder: Path) -> None:
    write_experiment(folder)
    text = report()
    assert "2 games, 2 variants, 3 seeds: 12 runs, 9.0 hours in total. Runs: 12 complete." in text
    assert "unfinished" not in text
    assert "./experiment.sh night --games pong breakout --learning_rate 0.0001" in text
    assert "All runs: --epochs 5 --learning_rate 0.0001" in text
    assert table(text, "Variants")[1] == {"Variant": "double", "Options": "--double_dqn true"}
    scores = table(text, "Scores")
    assert [(row["Game"], row["Variant"]) for row in scores] == [
        (game, variant) for game in ("pong", "breakout") for variant in VARIANTS
    ]
    finals = [scores_of("pong", "plain", seed, 5)[-1] for seed in (1, 2, 3)]
    assert scores[0]["Final score"].startswith(f"{sum(finals) / 3:.1f} [{min(finals):.1f}, {max(finals):.1f}]")
    assert scores[0]["Final of each seed"] == ", ".join(f"{score:.1f}" for score in finals)
    assert scores[0]["Human-normalised"].startswith(f"{100 * (sum(finals) / 3 + 20.7) / 35.3:.0f} [")
    assert [row["Variant"] for row in table(text, "All games together")] == ["plain", "double"]
    assert re.fullmatch(
        r"[01]\.\d\d \[[01]\.\d\d, [01]\.\d\d\]", table(text, "Probability of improvement")[0]["Probability"]
    )
    assert table(text, "Runs")[4] == {
        "Run": "pong_double_2", "Seed": "2", "State": "complete", "Epoch": "5", "Frames": "20,000", "Hours": "0.75",
        "Machine": "node1, Xeon; node2, EPYC", "Commit": "abc1234", "Options": "–",
    }  # fmt: skip
    assert text.count("How to read it") == 5


def test_best_scores_on_request(folder: Path) -> None:
    results = write_experiment(folder, seeds=(1, 2))
    write_csv(results / "pong_plain_1.csv", [-20, 14, -3])
    final, best = report(), report("--score", "best")
    assert table(final, "Scores") == table(best, "Scores")
    assert "The best score of each run, normalised" in best
    assert table(final, "All games together") != table(best, "All games together")


class Page(HTMLParser):
    """Every tag's attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_page_is_one_file_with_a_figure_per_panel(folder: Path) -> None:
    write_experiment(folder)
    report()
    text = Path("results/night/report.html").read_text()
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("svg") == tags.count("figure") == 5
    assert not {"script", "link", "img", "iframe"} & set(tags)
    urls = {
        url for _, facts in page.tags for name, url in facts.items() if name in ("src", "href", "xlink:href") and url
    }
    assert all(url.startswith(("#", "data:")) for url in urls)
    ids = [facts["id"] for _, facts in page.tags if "id" in facts]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"var\(--(\w+)\)", text))
    assert all(len(re.findall(rf"--{name}: #", text)) == 2 for name in used), "light and dark"
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert not any(re.search("#[0-9a-f]{6}", svg.replace("url(#", "")) for svg in figures), "a colour of one theme"
    image = cv2.imread("results/night/report.png")
    assert image is not None
    assert image.shape[1] > 1500


def test_equal_files_make_equal_reports(folder: Path) -> None:
    results = write_experiment(folder, seeds=(1, 2))
    report()
    before = {path.name: path.read_bytes() for path in results.glob("report.*")}
    assert set(before) == {"report.html", "report.png", "report.md"}
    report()
    assert {path.name: path.read_bytes() for path in results.glob("report.*")} == before


# Less than a complete experiment


def test_unfinished_experiment_says_what_is_missing(folder: Path) -> None:
    results = write_experiment(folder, ["pong"])
    write_csv(results / "pong_plain_1.csv", [-20, -15])
    write_record(results / "pong_plain_1.json", 1, "running", **OPTIONS)
    (results / "pong_plain_2.csv").write_text(HEADER + "\n")
    write_record(results / "pong_plain_2.json", 2, "running", **OPTIONS)
    write_record(results / "pong_double_1.json", 1, "failed", "The loss is NaN or infinite.", **OPTIONS)
    for kind in ("csv", "json"):
        (results / f"pong_double_3.{kind}").unlink()
    assert "Runs: 2 stopped, 2 complete, 1 failed, 1 not started." in report()  # as the experiment was killed
    lock = Lock(str(results / "experiment"))
    text = report()
    lock.close()
    assert "Runs: 2 running, 2 complete, 1 failed, 1 not started." in text
    for line in (
        "- pong_plain_1: running, epoch 2 of 5",
        "- pong_plain_2: running, no rows yet",
        "- pong_double_1: failed, epoch 5 of 5. The loss is NaN or infinite.",
        "- pong_double_3: not started",
    ):
        assert line + "\n" in text
    assert table(text, "Scores")[0]["Final of each seed"].startswith("-15.0\\*, ")
    assert table(text, "Runs")[1]["Frames"] == "–"


def test_files_without_a_plan(folder: Path) -> None:
    """Their names say what they are. Hours are those of the CSV file; the state is unknown."""
    results = folder / "results" / "night"
    for seed, epochs in ((1, 3), (2, 3), (10, 2)):
        write_csv(results / f"space_invaders_slow_{seed}.csv", [100.0 * seed * i for i in range(1, epochs + 1)])
    text = report()
    assert [(row["Run"], row["Seed"], row["Hours"]) for row in table(text, "Runs")] == [
        ("space_invaders_slow_1", "1", "0.30"),
        ("space_invaders_slow_2", "2", "0.30"),
        ("space_invaders_slow_10", "10", "0.20"),
    ]
    assert table(text, "Variants") == [{"Variant": "slow", "Options": "unknown"}]
    assert "3 of unknown state" in text
    assert "space_invaders_slow_10: it ends at epoch 2, before others of its game" in text
    assert "Probability of improvement" not in text  # of one variant


def test_one_seed_has_no_interval(folder: Path) -> None:
    write_experiment(folder, ["pong"], seeds=[7])
    text = report()
    final = scores_of("pong", "plain", 7, 5)[-1]
    assert table(text, "Scores")[0]["Final score"] == f"{final:.1f}"
    assert table(text, "Probability of improvement")[0]["Probability"] in ("0.00", "1.00")


def test_game_without_human_score(folder: Path) -> None:
    write_experiment(folder, ["CartPole-v1"], {"plain": []})
    assert "There are no human scores for CartPole-v1" in report()
    folder.joinpath("results/night").rename(folder / "earlier")
    write_experiment(folder, ["CartPole-v1", "ALE/Pong-v5"])
    text = report()
    assert [row["Human-normalised"] == "–" for row in table(text, "Scores")] == [True, True, False, False]
    assert "Games: Pong-v5. No human score is known for CartPole-v1." in text


def test_training_scores_if_nothing_was_tested(folder: Path) -> None:
    results = write_experiment(folder, ["pong"], {"plain": []}, [1])
    path = results / "pong_plain_1.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if ",test," not in line))
    text = report()
    assert "The runs have no tests" in text
    assert table(text, "Scores")[0]["Final score"] == f"{scores_of('pong', 'plain', 1, 5)[-1] - 1:.1f}"


def test_options_and_frames_from_snapshots(folder: Path) -> None:
    """As a run without a record has them."""
    write_csv(folder / "results" / "night" / "pong_fast_1.csv", [1, 2])
    (folder / "snapshots" / "night").mkdir(parents=True)
    (folder / "snapshots" / "night" / "pong_fast_1_2.pkl").symlink_to(SHIPPED)
    text = report()
    assert table(text, "Runs")[0]["Frames"] == "8,000"
    assert "All runs: --" in text


def test_names_and_errors_are_text_on_every_page(folder: Path) -> None:
    results = write_experiment(folder, ["pong"], {"_<b>|": [], "$x^2$": []}, [1, 2])
    write_record(results / "pong_$x^2$_1.json", 1, "failed", "<script>alert(1)</script> [x](y) *a* `", **OPTIONS)
    text = report()
    assert "\\<script>alert(1)\\</script> [x\\](y) \\*a\\* \\`" in text
    assert "<script" not in Path("results/night/report.html").read_text()
    assert [row["Variant"] for row in table(text, "Variants")] == ["\\_\\<b>\\|", "$x^2$"]


# Films


def test_film_of_the_best_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "_SECONDS", 3)  # more than its 30 no-ops
    results = write_experiment(folder, ["pong", "breakout"], {"plain": []}, [1, 2])
    with (results / "pong_plain_2.csv").open() as file:
        assert len(list(csv.reader(file))) == 12
    write_csv(results / "pong_plain_2.csv", [1.0, 20.5, 3.0])
    (folder / "snapshots" / "night").mkdir(parents=True)
    (folder / "snapshots" / "night" / "pong_plain_2_best.pkl").symlink_to(SHIPPED)
    assert main(["night"], program.GROUPS) == 0
    text = Path("results/night/report.md").read_text()
    link = "../../videos/night/pong_plain_2_best.mp4"
    assert f"[pong]({link}): the best run, pong_plain_2, with 20.5 points in its best test." in text
    assert re.search(
        r"breakout: no film, because there is no snapshot snapshots/night/breakout_plain_\d_best.pkl", text
    )
    assert (results / link).is_file()
    page = Path("results/night/report.html").read_text()
    assert page.count("<video") == page.count("data:video/mp4;base64,") == 1
    before = (results / link).stat().st_mtime_ns
    assert main(["night"], program.GROUPS) == 0
    assert (results / link).stat().st_mtime_ns == before  # it is still the film of this snapshot
    assert Path("results/night/report.html").read_text() == page
    shutil.rmtree(folder / "snapshots")  # as in a copy of the results alone
    assert main(["night"], program.GROUPS) == 0
    assert Path("results/night/report.html").read_text() == page


# Bad input


@pytest.fixture
def refuse(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the program, which must change no file, and returns the one line that it says."""

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def refuse(*words: str) -> str:
        before = contents()
        status = main(words)
        out, err = capsys.readouterr()
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert contents() == before
        return err.removeprefix("error: ").strip()

    return refuse


def test_no_such_experiment(folder: Path, refuse: Callable[..., str]) -> None:
    assert refuse() == "no experiment given: name one that has a folder in results/"
    missing = "there is no experiment day: results/day is missing"
    assert refuse("day") == f"{missing}; --folder says where results/ is"
    write_experiment(folder)
    assert refuse("day") == f"{missing}; there are night"
    assert "type the name alone, such as night" in refuse("results/night")
    assert refuse("night", "more").startswith("unrecognized argument")
    assert refuse("night", "--score", "mean").startswith("argument --score: invalid choice")


def test_no_rows_yet(folder: Path, refuse: Callable[..., str]) -> None:
    results = folder / "results" / "night"
    results.mkdir(parents=True)
    assert refuse("night").startswith("results/night holds no statistics: an experiment has files such as ")
    (results / "pong_plain_1.csv").write_text(HEADER + "\n")
    assert refuse("night") == "results/night holds no rows yet: try again after the first epoch of a run"


def test_damaged_files(folder: Path, refuse: Callable[..., str]) -> None:
    results = write_experiment(folder, ["pong"], {"plain": []}, [1, 2])
    plan = (results / "experiment.json").read_text()
    for damaged, why in (
        ("{", "cannot read results/night/experiment.json: it is not JSON"),
        ("[]", "cannot read results/night/experiment.json: it is not a JSON object"),
        (
            plan.replace('"seeds": [1, 2]', '"seeds": 2'),
            "results/night/experiment.json is damaged: it has no valid seeds",
        ),
    ):
        (results / "experiment.json").write_text(damaged)
        assert refuse("night") == why
    (results / "experiment.json").write_text(plan)
    (results / "pong_plain_1.csv").write_text(HEADER + "\n1,test,oops\n")
    assert refuse("night") == "results/night/pong_plain_1.csv, line 2: 3 values instead of 16"


def test_folder_of_files_that_ship(refuse: Callable[..., str]) -> None:
    root = Path(__file__).resolve().parents[3]
    assert "no command changes the included files" in refuse("pretrained", "--folder", str(root), "--films", "false")
