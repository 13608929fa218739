"""The figure of learning curves: which lines, labels and panels are drawn of which files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from test_table import FIELDS, ORIGINAL, RANDOM, ROWS, TEST, TRAIN, read, write

from fakes import HEADER
from simple_dqn.reports import figure as module
from simple_dqn.reports.atari_scores import REFERENCE_SCORES
from simple_dqn.reports.curves import grouped, run_of
from simple_dqn.reports.figure import FigureSpec, draw
from simple_dqn.reports.table import Table


def drawn(
    *tables: Table, fields: Sequence[str] = FIELDS, by: str = "none", games: Sequence[str] = (), **spec: Any
) -> Figure:
    figure = Figure()
    axis = spec.get("axis", "epoch")
    runs = [run_of(table, axis) for table in tables]
    draw(figure, grouped(runs, by, games or [""] * len(runs)), FigureSpec(fields, **spec))
    return figure


def curves(panel: Axes) -> list[tuple[list[float], list[float]]]:
    """What a panel shows, apart from baselines and marks of pieces: epochs and values."""
    lines = [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in panel.lines]
    return [(x.tolist(), y.tolist()) for x, y in lines if x.tolist() != [0, 1] and y.tolist() != [0, 1]]


def baselines(panel: Axes) -> list[float]:
    lines = [(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) for line in panel.lines]
    return [y[0] for x, y in lines if x == [0, 1]]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


# Drawing


def test_a_panel_for_each_field_and_a_curve_for_each_phase(tmp_path: Path) -> None:
    later = [row.replace("1,t", "2,t", 1).replace(",1000,1500", ",2000,1500") for row in (TRAIN, TEST)]
    figure = drawn(read(write(tmp_path / "pong.csv", HEADER, *ROWS, *later)))
    score, q, games, loss = figure.axes
    titles = [(panel.get_title(), panel.get_ylabel(), panel.get_xlabel()) for panel in figure.axes]
    assert titles == [
        ("Average score", "points per game", "epoch"),
        ("Average maximum Q", "discounted reward", "epoch"),
        ("Games played", "games per phase", "epoch"),
        ("Training loss", "halved squared error", "epoch"),
    ]
    assert [baselines(panel) for panel in figure.axes] == [[-20.5], [0.001], [3], []]
    assert curves(score) == [([1, 2], [-18, -18]), ([1, 2], [-19, -19])]
    assert curves(q) == [([1, 2], [0.3, 0.3]), ([1, 2], [0.2, 0.2])]
    assert curves(games) == [([1, 2], [4, 4]), ([1, 2], [5, 5])]
    assert curves(loss) == [([1, 2], [0.01, 0.01])]  # there is none where nothing is learned
    assert legend(figure) == [
        "random moves (500 steps)",
        "training (1,000 steps per epoch)",
        "testing (800 steps per epoch)",
    ]
    assert figure.get_suptitle() == "Learning curves of pong"


def test_phase_without_rows_is_left_out(tmp_path: Path) -> None:
    figure = drawn(read(write(tmp_path / "a.csv", HEADER, TEST, TEST.replace("800", "900"))), fields=["meanq"])
    assert legend(figure) == ["testing"]  # of no one length
    (panel,) = figure.axes
    assert (baselines(panel), curves(panel)) == ([], [([1, 1], [0.3, 0.3])])


def test_gaps_and_single_points(tmp_path: Path) -> None:
    """No game ended in epochs 2 and 4: the line has gaps, and what stands alone has a marker."""
    scores = ["1", "nan", "3", "nan", *["5"] * 60, "inf"]
    rows = [f"{i},test,1,0,{score}{',1' * 11}" for i, score in enumerate(scores, 1)]
    (panel,) = drawn(read(write(tmp_path / "a.csv", HEADER, *rows)), fields=["average_reward"]).axes
    ((_, values),) = curves(panel)
    np.testing.assert_array_equal(values, [1, np.nan, 3, np.nan, *[5] * 60, np.nan])
    assert panel.lines[0].get_markevery() == [0, 2]


def test_panel_without_values_says_so(tmp_path: Path) -> None:
    rows = [row.replace("-19,-21,-17", "nan,nan,nan") for row in ROWS[1:2]]
    figure = drawn(read(write(tmp_path / "a.csv", HEADER, *rows)))
    assert [[text.get_text() for text in panel.texts] for panel in figure.axes] == [
        ["no game has ended yet"],
        [],
        [],
        [],
    ]


def test_numbers_too_large_to_draw_are_left_out(tmp_path: Path) -> None:
    write(
        tmp_path / "a.csv", HEADER, TRAIN.replace("0.2", "1e308"), TRAIN.replace("0.2", "-1e308").replace("-19", "3e38")
    )
    score, q, *_ = drawn(read(tmp_path / "a.csv")).axes
    assert [text.get_text() for text in q.texts] == ["no values"]
    assert curves(score) == [([1, 1], [-19, 3e38])]


def test_files_are_told_apart_by_colour_and_phases_by_line(tmp_path: Path) -> None:
    tables = [read(write(tmp_path / f"{name}.csv", HEADER, *ROWS)) for name in ("pong", "_double$x$")]
    figure = drawn(*tables)
    assert legend(figure) == ["pong", " _double$x$", "random moves", "training", "testing"]
    (score, *_) = figure.axes
    looks = {(line.get_color(), line.get_linestyle(), line.get_linewidth()) for line in score.lines}
    assert len(looks) == 6
    assert len({colour for colour, *_ in looks}) == 2
    assert len({look[1:] for look in looks}) == 3


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    tables = [read(write(tmp_path / folder / "pong.csv", HEADER, *ROWS)) for folder in ("a", "b")]
    assert legend(drawn(*tables))[:2] == [str(tmp_path / "a" / "pong"), str(tmp_path / "b" / "pong")]
    kept = [tables[0]._replace(path=Path(name)) for name in ("pong.csv", "pong.csv.1", "pong.csv.2")]
    assert legend(drawn(*kept))[:3] == ["pong.csv", "pong.csv.1", "pong.csv.2"]


def test_many_files_differ_in_colour_or_marker(tmp_path: Path) -> None:
    table = read(write(tmp_path / "a.csv", HEADER, *ROWS))
    figure = drawn(*(table._replace(path=Path(f"{i}.csv")) for i in range(20)), fields=["meanq"])
    (panel,) = figure.axes
    assert len({(line.get_color(), line.get_marker()) for line in panel.lines if line.get_marker()}) == 20


def test_long_curves_of_several_files_have_markers_in_places(tmp_path: Path) -> None:
    rows = [f"{i},test,1,1,{i}{',1' * 11}" for i in range(1, 201)]
    table = read(write(tmp_path / "a.csv", HEADER, *rows))
    for tables, marked in (([table], []), ([table, table._replace(path=Path("b.csv"))], list(range(0, 200, 5)))):
        (panel,) = drawn(*tables, fields=["average_reward"]).axes
        assert panel.lines[0].get_markevery() == marked


def test_legend_lies_outside_the_panels(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", HEADER, *ROWS)
    figure = Figure(figsize=(16, 9), layout="constrained")
    draw(figure, grouped([run_of(read(tmp_path / "a.csv"), "epoch")], "none", [""]), FigureSpec(FIELDS))
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert 0 <= box.y0 < box.y1 < min(panel.get_tightbbox().y0 for panel in figure.axes)  # type: ignore[union-attr]


def seen(colour: str, lacking: str) -> np.ndarray[Any, Any]:
    """A colour in CIE L*a*b*, as those see it who have all cones, or none for red, green or blue (Viénot et al. 1999,
    and for blue the like of it)."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_lms = np.array([[17.8824, 43.5161, 4.1193], [3.4557, 27.1554, 3.8671], [0.02996, 0.18431, 1.4670]])
    lms = to_lms @ linear
    if lacking == "red":
        lms[0] = 2.02344 * lms[1] - 2.52581 * lms[2]
    elif lacking == "green":
        lms[1] = 0.494207 * lms[0] + 1.24827 * lms[2]
    elif lacking == "blue":
        lms[2] = -0.395913 * lms[0] + 0.801109 * lms[1]
    linear = np.linalg.solve(to_lms, lms).clip(0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    x, y, z = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("lacking", ["nothing", "red", "green", "blue"])
def test_colours_can_be_told_apart(theme: str, lacking: str) -> None:
    colours = module.THEMES[theme]
    for group in (tuple(colours.phases.values()), colours.experiments):
        all_seen = [seen(colour, lacking) for colour in group]
        for i, one in enumerate(all_seen):
            assert abs(one[0] - seen(colours.paper, lacking)[0]) > 38, group[i]  # lightness, of 100
            for other, name in zip(all_seen[:i], group, strict=False):
                assert np.linalg.norm(one - other) > 15, (group[i], name)


# Seeds, smoothing, games, reference scores, pieced-together runs


def training(path: Path, scores: Sequence[float], steps: int = 1000, began: int = 0) -> Table:
    """A file with an epoch per score; nan for an epoch without a test."""
    rows = [RANDOM]
    for epoch, score in enumerate(scores, 1):
        rows.append(
            f"{epoch},train,{steps},5,-19,-21,-17,0.9,{began + steps * epoch},1500,0.2,0.01,250,{60 * epoch},3,9"
        )
        if not np.isnan(score):
            rows.append(f"{epoch},test,800,4,{score},0,9,0.05,{began + steps * epoch},1500,0.3,0,250,{60 * epoch},2,9")
    return read(write(path, HEADER, *rows))


def bands(panel: Axes) -> list[tuple[float, float]]:
    """Lower and upper end of a panel's bands."""
    paths = [path for band in panel.collections if isinstance(band, PolyCollection) for path in band.get_paths()]
    heights = [np.asarray(path.vertices)[:, 1] for path in paths]
    return [(float(some.min()), float(some.max())) for some in heights]


def seams(panel: Axes) -> list[float]:
    lines = [(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) for line in panel.lines]
    return [x[0] for x, y in lines if len(x) == 2 and x[0] == x[1] and y[0] == 0]


def test_files_of_different_epoch_lengths_on_one_axis(tmp_path: Path) -> None:
    tables = [training(tmp_path / "a.csv", [1, 2]), training(tmp_path / "b.csv", [1, 2, 3], steps=500)]
    expected: dict[str, list[list[float]]] = {
        "steps": [[1000, 2000], [500, 1000, 1500]],
        "frames": [[4000, 8000], [2000, 4000, 6000]],
    }
    expected |= {"hours": [[1 / 60, 2 / 60], [1 / 60, 2 / 60, 3 / 60]], "epoch": [[1, 2], [1, 2, 3]]}
    for axis, places in expected.items():
        (panel,) = drawn(*tables, fields=["average_reward"], axis=axis, x_label=f"in {axis}").axes
        tests = [x for x, y in curves(panel) if y[0] == 1]
        assert tests == [pytest.approx(place) for place in places]
        assert panel.get_xlabel() == f"in {axis}"
    (panel,) = drawn(*tables, fields=["average_reward"], axis="steps").axes
    assert panel.xaxis.get_major_formatter()(2_500_000, 0) == "2.5M"


def test_smooth_curve_and_faint_raw_curve(tmp_path: Path) -> None:
    figure = drawn(training(tmp_path / "a.csv", [0, 3, 6, 0]), fields=["average_reward"], smooth=3)
    (panel,) = figure.axes
    raw, smooth = [line for line in panel.lines if line.get_linestyle() == "-"]
    assert (np.asarray(raw.get_ydata()).tolist(), raw.get_alpha()) == ([0, 3, 6, 0], 0.35)
    assert (np.asarray(smooth.get_ydata()).tolist(), smooth.get_alpha()) == ([1.5, 3, 3, 3], None)
    assert legend(figure)[-1] == "before the mean over 3 epochs"


def test_mean_and_band_of_seeds(tmp_path: Path) -> None:
    tables = [training(tmp_path / f"pong_slow_{i}.csv", [i, 2 * i]) for i in (1, 3)]
    figure = drawn(*tables, fields=["average_reward"], by="seed")
    (panel,) = figure.axes
    assert ([1, 2], [2, 4]) in curves(panel)
    assert bands(panel)[0] == (1, 6)  # the standard error of two values is half their difference
    assert figure.get_suptitle() == "Learning curves of pong_slow"
    assert legend(figure)[-1] == "mean of 2 seeds, band: ± 1 standard error of the mean"


def test_seeds_beside_another_run(tmp_path: Path) -> None:
    names, lengths = ("pong-1", "pong-2", "pong_fast"), (3, 2, 3)
    tables = [training(tmp_path / f"{name}.csv", range(n)) for name, n in zip(names, lengths, strict=True)]
    figure = drawn(*tables, fields=["average_reward"], by="seed")
    assert legend(figure) == [
        "pong (mean of 1 to 2 seeds)",
        "pong_fast",
        "random moves",
        "training",
        "testing",
        "band: ± 1 standard error of the mean",
    ]
    assert len(drawn(*tables, fields=["average_reward"]).axes[0].lines) == 9  # each for itself


def test_games_have_panels_of_their_own(tmp_path: Path) -> None:
    names = ["pong", "pong_fast", "breakout", "breakout_fast", "qbert"]
    tables = [training(tmp_path / f"{name}.csv", [1, 2]) for name in names]
    games = [name.split("_")[0] for name in names]
    figure = drawn(*tables, fields=["average_reward", "meanq"], games=games)
    assert [panel.get_title() for panel in figure.axes] == [
        f"{game}: {field}" for game in ("pong", "breakout", "qbert") for field in ("Average score", "Average maximum Q")
    ]
    assert [len(panel.lines) for panel in figure.axes] == [6, 6, 6, 6, 3, 3]
    assert legend(figure)[:3] == ["no label", "fast", "random moves"]
    first, second = ([line.get_color() for line in figure.axes[i].lines] for i in (0, 2))
    assert first == second  # a label has one colour
    assert legend(drawn(tables[0], tables[2], games=["pong", "breakout"]))[0] == "random moves (500 steps)"
    assert len(drawn(*tables[:2], fields=["meanq"], games=["pong", ""]).axes) == 1  # a game that is not known


def test_reference_scores_are_labelled_lines(tmp_path: Path) -> None:
    table = training(tmp_path / "breakout.csv", [1, 20, 100])
    score, q = drawn(table, fields=["average_reward", "meanq"], games=["breakout"], references=True).axes
    assert [text.get_text() for text in score.texts] == ["random 1.7", "human 30.5"]
    assert baselines(score) == [-20.5, 1.7, 30.5]
    assert (len(q.texts), len(q.lines)) == (0, 3)


def test_labels_of_reference_scores_far_away_do_not_overlap(tmp_path: Path) -> None:
    table = training(tmp_path / "space_invaders.csv", [1, 2, 3])
    (panel,) = drawn(table, fields=["average_reward"], games=["space_invaders"], references=True).axes
    assert [text.get_text() for text in panel.texts] == ["random 148 ↑", "human 1,669 ↑"]
    boxes = [text.get_window_extent() for text in panel.texts]
    assert not boxes[0].overlaps(boxes[1])


def test_reference_scores_far_away_leave_the_scale_to_the_curves(tmp_path: Path) -> None:
    table = training(tmp_path / "seaquest.csv", [60, 100, 200])
    (panel,) = drawn(table, fields=["average_reward"], games=["seaquest"], references=True).axes
    assert [text.get_text() for text in panel.texts] == ["random 68.4", "human 42,055 ↑"]
    assert panel.get_ylim()[1] < 300


@pytest.mark.parametrize("game", ["breakout", "seaquest", "video_pinball", "double_dunk"])
@pytest.mark.parametrize("several", [False, True])
def test_texts_do_not_overlap_and_nothing_is_clipped(game: str, several: bool, tmp_path: Path) -> None:
    high = REFERENCE_SCORES[game].human
    tables = [
        training(tmp_path / f"{game}_{i}.csv", [0, high / 9, high * 3]) for i in "abcdefghij"[: 10 if several else 1]
    ]
    games = [game] * len(tables)
    if several:
        tables, games = [*tables, training(tmp_path / "pong.csv", [1, 2])], [*games, "pong"]
    figure = Figure(figsize=(16, 9), layout="constrained")
    runs = [run_of(table, "epoch") for table in tables]
    draw(figure, grouped(runs, "none", games), FigureSpec(FIELDS, references=True, smooth=2))
    figure.draw_without_rendering()
    texts = [
        text for panel in figure.axes for text in (panel.title, *panel.texts, panel.xaxis.label, panel.yaxis.label)
    ]
    boxes = [text.get_window_extent() for text in (*texts, *figure.legends[0].get_texts(), *figure.texts)]
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 <= box.x1 <= figure.bbox.x1
        assert 0 <= box.y0 <= box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_title_of_a_long_name_fits(tmp_path: Path) -> None:
    figure = Figure(figsize=(8, 6), layout="constrained")
    table = training(tmp_path / f"{'a_rather_long_name_' * 5}.csv", [1])
    draw(figure, grouped([run_of(table, "epoch")], "none", [""]), FigureSpec(FIELDS))
    figure.draw_without_rendering()
    box = figure.texts[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_runs_pieced_together_are_marked(tmp_path: Path) -> None:
    table = training(tmp_path / "a.csv", [1, 2, 3])
    assert seams(drawn(table, fields=["meanq"]).axes[0]) == []
    table.columns["total_train_steps"][5:] += 777
    figure = drawn(table, fields=["meanq", "meancost"])
    assert [seams(panel) for panel in figure.axes] == [[2.5], [2.5]]
    assert legend(figure)[-1] == "continued by another run or with other options"


def test_level_of_random_moves_is_that_before_the_training(tmp_path: Path) -> None:
    """A resumed training makes random moves again, and the Q-values are those of a trained network then."""
    again = RANDOM.replace("0.001", "5")
    (panel,) = drawn(read(write(tmp_path / "a.csv", HEADER, *ROWS, again)), fields=["meanq"]).axes
    assert baselines(panel) == [0.001]


# The curves of 2015


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason="the statistics of 2015 are not here")
@pytest.mark.parametrize("game", ["breakout", "pong", "seaquest", "space_invaders"])
def test_curves_of_2015(game: str) -> None:
    table = read(ORIGINAL / f"{game}.csv")
    assert [table.phases.count(phase) for phase in ("random", "train", "test")] == [1, 200, 200]
    figure = drawn(table)
    assert [len(panel.lines) for panel in figure.axes] == [3, 3, 3, 1]
    assert legend(figure)[2] == "testing (125,000 steps per epoch)"
    assert np.nanmax(np.abs(table.columns["max_game_reward"])) < 10_000
