"""The shell scripts: scripts/python makes .venv, the others turn their arguments into those of main.py."""

import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRINT_VERSION = "import dummy; print(dummy.VERSION)"


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = environment(**variables)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def environment(**variables: str) -> dict[str, str]:
    """Little of the caller's, so that its settings of Python and pip have no say; and no network."""
    own = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHON": sys.executable, "PIP_NO_INDEX": "1"}
    return own | variables


def make_wheel(folder: Path, version: str) -> None:
    folder.mkdir(exist_ok=True)
    info = f"dummy-{version}.dist-info"
    with zipfile.ZipFile(folder / f"dummy-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("dummy.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: dummy\nVersion: {version}\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project set up for real, with one package; tests work on copies, as making .venv takes seconds."""
    base = tmp_path_factory.mktemp("scripts")
    for version in ("1", "2"):
        make_wheel(base / "wheels", version)
    root = base / "made here"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "python", root / "scripts")
    (root / "requirements.txt").write_text(f"--find-links {base / 'wheels'}\ndummy==1\n")
    (root / "requirements-dev.txt").write_text("# nothing\n")
    result = run(root / "scripts" / "python", "-c", PRINT_VERSION, cwd=base)
    assert (result.returncode, result.stdout) == (0, "1\n"), result.stderr
    for step in ("making .venv with Python", "installing the packages", "done in"):
        assert step in result.stderr
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A moved project, too: .venv has to work in another place than where it was made."""
    return shutil.copytree(made, tmp_path / "a project", symlinks=True)


def replace(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


def test_later_calls_are_silent_and_install_nothing(project: Path, tmp_path: Path) -> None:
    (project / "requirements.txt").touch()  # the content counts, not the time
    log_time = (project / ".venv" / "setup.log").stat().st_mtime_ns
    result = run("a project/scripts/python", "-c", "import sys; print(sys.prefix, *sys.argv)", "x  y", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{project / '.venv'} -c x  y\n"
    assert (project / ".venv" / "setup.log").stat().st_mtime_ns == log_time


@pytest.mark.parametrize("variables", [{}, {"PYTHONHOME": "/nonexistent"}, {"PYTHONINSPECT": "1"}])
def test_exit_status_is_that_of_python_whatever_it_is_set_to(variables: dict[str, str], project: Path) -> None:
    result = run(project / "scripts/python", "-c", f"{PRINT_VERSION}; raise SystemExit(7)", cwd=project, **variables)
    assert (result.returncode, result.stdout, result.stderr) == (7, "1\n", "")


def test_symlink(project: Path, tmp_path: Path) -> None:
    (project / "link").symlink_to("scripts/python")
    (tmp_path / "link to link").symlink_to(project / "link")
    result = run("./link to link", "-c", PRINT_VERSION, cwd=tmp_path)
    assert (result.stdout, result.stderr) == ("1\n", "")


def test_changed_requirements_are_installed(project: Path) -> None:
    replace(project / "requirements.txt", "dummy==1", "dummy==2")
    result = run(project / "scripts/python", "-c", PRINT_VERSION, cwd=project)
    assert result.stdout == "2\n", result.stderr
    assert "making .venv" not in result.stderr


def test_development_packages(project: Path) -> None:
    python = project / "scripts/python"
    replace(project / "requirements-dev.txt", "# nothing", "dummy>=1")
    assert run(python, "-c", PRINT_VERSION, cwd=project).stderr == ""  # they matter to --dev only
    result = run(python, "--dev", "-c", PRINT_VERSION, cwd=project)
    assert result.stdout == "1\n"
    assert "installing" in result.stderr
    for arguments in (["--dev", "-V"], ["-V"], ["--dev", "-V"]):
        assert run(python, *arguments, cwd=project).stderr == ""


def test_packages_for_clusters_remain_when_those_for_development_come(project: Path) -> None:
    python = project / "scripts/python"
    (project / "requirements-cluster.txt").write_text("dummy>=1\n")
    assert "installing" in run(python, "--cluster", "-V", cwd=project).stderr
    replace(project / "requirements-dev.txt", "# nothing", "dummy<3")
    assert "installing" in run(python, "--dev", "-V", cwd=project).stderr
    for arguments in (["--cluster", "-V"], ["--dev", "-V"], ["-V"]):
        assert run(python, *arguments, cwd=project).stderr == ""
    (project / "requirements-cluster.txt").write_text("dummy>0\n")
    assert "installing" in run(python, "--cluster", "-V", cwd=project).stderr
    assert run(python, "--cluster", "-V", cwd=project).stderr == ""


def test_packages_for_clusters_come_with_those_for_development_that_include_them(project: Path) -> None:
    python = project / "scripts/python"
    (project / "requirements-cluster.txt").write_text("dummy>=1\n")
    (project / "requirements-dev.txt").write_text("-r requirements-cluster.txt\n")
    assert "installing" in run(python, "--dev", "-V", cwd=project).stderr
    assert run(python, "--cluster", "-V", cwd=project).stderr == ""


def test_a_file_that_another_one_includes_is_installed_when_it_changes(project: Path) -> None:
    python, nested = project / "scripts/python", project / "requirements-more.txt"
    (project / "requirements-dev.txt").write_text("-r requirements-more.txt  # why\n")
    nested.write_text("dummy>=1")  # without a line end
    assert "installing" in run(python, "--dev", "-V", cwd=project).stderr
    assert run(python, "--dev", "-V", cwd=project).stderr == ""
    nested.write_text("dummy>=0")
    assert "installing" in run(python, "--dev", "-V", cwd=project).stderr
    for arguments in (["--dev", "-V"], ["-V"]):
        assert run(python, *arguments, cwd=project).stderr == ""
    nested.unlink()
    result = run(python, "--dev", "-V", cwd=project)
    assert (result.returncode, result.stdout) == (2, "")
    assert "requirements-more.txt" in result.stderr


def killed_installation(project: Path) -> Path:
    """Leave .venv as after a kill -9 during an installation, before packages change. Return its folder of packages."""
    (project / ".venv" / "setup.stamp").rename(project / ".venv" / "setup.stamp.old")
    return next((project / ".venv").glob("lib/python*/site-packages"))


def test_after_a_killed_installation_the_next_call_installs_into_the_same_venv(project: Path) -> None:
    (kept := killed_installation(project) / "kept.py").touch()
    replace(project / "requirements.txt", "dummy==1", "dummy==3")
    assert run(project / "scripts/python", "-V", cwd=project).returncode == 2
    assert not (project / ".venv" / "setup.stamp").exists()  # because packages may have changed before the kill
    replace(project / "requirements.txt", "dummy==3", "dummy==2")
    result = run(project / "scripts/python", "-c", PRINT_VERSION, cwd=project)
    assert (result.returncode, result.stdout) == (0, "2\n"), result.stderr
    assert "making .venv" not in result.stderr
    assert kept.exists()
    assert run(project / "scripts/python", "-c", PRINT_VERSION, cwd=project).stderr == ""


@pytest.mark.parametrize("moment", ["removing", "copying"])
def test_a_package_that_was_being_changed_makes_a_new_venv(moment: str, project: Path) -> None:
    site = killed_installation(project)
    if moment == "removing":  # pip renames first what it removes
        (site / "dummy.py").rename(site / "~ummy.py")
    else:  # and names itself last in what it has installed
        (site / "dummy-1.dist-info" / "INSTALLER").unlink()
        (site / "dummy.py").unlink()
    result = run(project / "scripts/python", "-c", PRINT_VERSION, cwd=project)
    assert (result.returncode, result.stdout) == (0, "1\n"), result.stderr
    assert "making .venv" in result.stderr


def test_failed_installation_is_clear_and_undone(project: Path) -> None:
    replace(project / "requirements.txt", "dummy==1", "dummy==3")
    result = run(project / "scripts/python", "-V", cwd=project)
    assert (result.returncode, result.stdout) == (2, "")
    assert "No matching distribution found for dummy==3" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("scripts/python: could not install the packages")
    replace(project / "requirements.txt", "dummy==3", "dummy==1")
    result = run(project / "scripts/python", "-c", PRINT_VERSION, cwd=project)
    assert (result.stdout, result.stderr) == ("1\n", "")


def test_two_calls_heal_a_half_made_venv_together(project: Path) -> None:
    """As a killed first call leaves it: with neither stamp nor all files."""
    (project / ".venv" / "setup.stamp").unlink()
    next((project / ".venv").glob("lib/python*/site-packages/dummy.py")).unlink()
    command: list[str | Path] = [project / "scripts/python", "-c", PRINT_VERSION]
    calls = [
        subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [call.communicate(timeout=120) for call in calls]
    errors = "".join(err for _, err in ends)
    assert [out for out, _ in ends] == ["1\n", "1\n"], errors
    assert errors.count("making .venv") == 1
    assert errors.count("waiting for another call") == 1


def test_venv_of_a_vanished_python_is_made_anew(project: Path) -> None:
    for link in (project / ".venv" / "bin").glob("python*"):
        link.unlink()
        link.symlink_to("/nonexistent/python")
    result = run(project / "scripts/python", "-c", PRINT_VERSION, cwd=project)
    assert result.stdout == "1\n", result.stderr
    assert "making .venv" in result.stderr


def fake_pythons(folder: Path, **scripts: str) -> str:
    """A PATH of few tools, with the Pythons given as shell scripts."""
    folder.mkdir()
    for tool in ("bash", "sh", "dirname", "readlink", "mkdir", "rm", "mv", "cat", "tail", "tee"):
        (folder / tool).symlink_to(shutil.which(tool) or "")
    for name, script in scripts.items():
        (folder / name.replace("_", ".")).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name.replace("_", ".")).chmod(0o755)
    return str(folder)


@pytest.fixture
def bare(project: Path) -> Path:
    shutil.rmtree(project / ".venv")
    return project


def failure(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of a call that failed as it should."""
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    return line


def test_no_fitting_python(bare: Path, tmp_path: Path) -> None:
    shim = "echo pyenv: not found >&2; exit 127"
    old = f"exec {sys.executable} -I -c 'assert False'"  # what a Python out of the range does
    path = fake_pythons(tmp_path / "bin", python3=old, python3_12=shim)
    line = failure(run(bare / "scripts/python", "-V", cwd=bare, PATH=path, PYTHON=""))
    assert "no working Python 3.10 to 3.13" in line
    assert not (bare / ".venv").exists()


def test_chosen_python_does_not_work(bare: Path) -> None:
    assert "PYTHON=/no/python is not" in failure(run(bare / "scripts/python", "-V", cwd=bare, PYTHON="/no/python"))


def test_python_without_venv_module(bare: Path, tmp_path: Path) -> None:
    no_venv = tmp_path / "no venv"
    fake_pythons(tmp_path / "bin", python3=f'case "$*" in *probe*|*print*) echo 3.12 "{no_venv}" ;; esac')
    line = failure(run(bare / "scripts/python", "-V", cwd=bare, PATH=str(tmp_path / "bin"), PYTHON=""))
    assert str(no_venv) in line
    assert "apt-get install python3-venv" in line


def test_shim_that_fails_is_skipped(bare: Path, tmp_path: Path) -> None:
    """Only the choice: the interpreter found then fails to make .venv, so that this takes no time."""
    real = tmp_path / "real python"
    real.write_text('#!/bin/sh\ncase "$*" in *"-m venv"*) echo no luck; exit 1 ;; esac\n')
    real.chmod(0o755)
    path = fake_pythons(tmp_path / "bin", python3="exit 127", python3_11=f'echo 3.11 "{real}"')
    result = run(bare / "scripts/python", "-V", cwd=bare, PATH=path, PYTHON="")
    assert result.returncode == 2
    assert f"making .venv with Python 3.11 ({real})" in result.stderr
    assert "no luck\nscripts/python: could not make .venv" in result.stderr


# The other scripts, with a scripts/python that prints its arguments.


@pytest.fixture(scope="module")
def echo_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("echo") / "a project"
    (root / "scripts").mkdir(parents=True)
    for script in ROOT.glob("*.sh"):
        shutil.copy(script, root)
    shutil.copy(ROOT / "scripts" / "usage.sh", root / "scripts")
    (root / "scripts" / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (root / "scripts" / "python").chmod(0o755)
    return root


def train(name: str, game: str, *options: str) -> list[str]:
    return ["--save_weights_prefix", f"snapshots/{name}", "--csv_file", f"results/{name}.csv", game, *options]


SNAPSHOT = ["my snapshots/pong_1.pkl", "--seed", "1"]
SCRIPTS = {  # and what each puts before its arguments
    "resume": "--resume",
    "test": "--random_steps 0 --train_steps 0 --epochs 1 --load_weights",
    "play": "--play_games 1 --display_screen true --load_weights",
    "nvis": "--play_games 1 --visualization_file results/{name}.html --load_weights",
    "record": "--play_games 1 --record_screen_path videos/{name} --video_file videos/{snapshot}.mov --load_weights",
    "test_gym": "--environment gym --play_games 100 --scores_path results/{name} "
    "--video_file results/{name}/{name}.mp4 --record_games 1 --load_weights",
}
FILM_ONLY = "--play_games 1 --video_file videos/{snapshot}.mov --load_weights"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train.sh", "pong"], train("pong", "pong")),
        (["train.sh", "Space Invaders"], train("space_invaders", "Space Invaders")),
        (["train.sh", "Space-Invaders"], train("space_invaders", "Space-Invaders")),
        (["train.sh", "roms/pong.bin", "--epochs", "3"], train("pong", "roms/pong.bin", "--epochs", "3")),
        (["train.sh", "ALE/Breakout-v5"], train("Breakout-v5", "ALE/Breakout-v5")),
        (["train.sh", "my roms/space_invaders.bin"], train("space_invaders", "my roms/space_invaders.bin")),
        (["train.sh", "pong", "slow", "--epochs", "3"], train("pong_slow", "pong", "--epochs", "3")),
        (["train.sh", "roms/pong.bin", "very slow"], train("pong_very slow", "roms/pong.bin")),
        *(
            (["train.sh", game, "--environment", "gym"], train(name, game, "--environment", "gym"))
            for game, name in {
                "my_pkg.envs:A-v0": "my_pkg.envs.A-v0",
                "my_pkg.envs:ns/A-v0": "my_pkg.envs.ns-A-v0",
                "other/A": "other-A",
                "A.b": "A.b",
                "CartPole-v1": "CartPole-v1",
                "ALE/Breakout-v5": "Breakout-v5",
                "ale_py:ALE/Breakout-v5": "Breakout-v5",
            }.items()
        ),
        (["train.sh", "ns/A", "slow", "--environment=gym"], train("ns-A_slow", "ns/A", "--environment=gym")),
        (["train.sh", "m.e:A-v12", "slow", "@gym options"], train("m.e.A-v12_slow", "m.e:A-v12", "@gym options")),
        (["train.sh", "pong", "gym"], train("pong_gym", "pong")),
        (["train.sh", "./my.roms/breakout.v2.bin"], train("breakout.v2", "./my.roms/breakout.v2.bin")),
        (["train.sh", "pong", "@my options"], train("pong", "pong", "@my options")),
        (["train.sh", "-h", "pong"], ["--help"]),
        *(([f"{name}.sh", *SNAPSHOT], [*words.split(), *SNAPSHOT]) for name, words in SCRIPTS.items()),
        *(
            (["record.sh", *SNAPSHOT, *more], [*words.split(), *SNAPSHOT, *more])
            for more, words in (
                (["--video_file", "a.gif"], FILM_ONLY),
                (["--video_file=a.gif"], FILM_ONLY),
                (["--video_from", "3"], SCRIPTS["record"]),
            )
        ),
        *(([f"{name}.sh", word], ["--help"]) for name in ("train", *SCRIPTS) for word in ("-h", "--help")),
    ],
)
def test_arguments(arguments: list[str], expected: list[str], echo_project: Path, tmp_path: Path) -> None:
    result = run(echo_project / arguments[0], *arguments[1:], cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [f"{echo_project}/src/main.py", *expected]
    assert list(tmp_path.iterdir()) == []  # whatever is written is for main.py to write


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--video_seconds 9\n --video_file a.gif", FILM_ONLY),
        ("-video_file a.gif", FILM_ONLY),
        ("# --video_file", SCRIPTS["record"]),
    ],
)
def test_a_film_that_a_file_of_options_names_has_no_png_files(
    text: str, words: str, echo_project: Path, tmp_path: Path
) -> None:
    (tmp_path / "my options").write_text(text)
    result = run(echo_project / "record.sh", *SNAPSHOT, "@my options", cwd=tmp_path)
    assert result.stdout.splitlines()[1:] == [*words.split(), *SNAPSHOT, "@my options"]


@pytest.mark.parametrize("script", ["train.sh", "test_gym.sh", "plot.sh", "report.sh", "profile_train.sh"])
def test_scripts_may_be_called_by_a_link(script: str, echo_project: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(echo_project / script)
    result = run("./link", "pong", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    program = {"plot.sh": "plot", "report.sh": "experiment_report"}.get(script, "main")
    assert f"{echo_project}/src/{program}.py" in result.stdout.splitlines()


@pytest.mark.parametrize("arguments", [["try", "--games", "pong", "--variant", "double --double_dqn true"], ["--help"]])
def test_experiments(arguments: list[str], echo_project: Path, tmp_path: Path) -> None:
    result = run(echo_project / "experiment.sh", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["--cluster", f"{echo_project}/src/experiment.py", *arguments]


@pytest.mark.parametrize("script", ["train", "resume", "test"])
def test_games_on_a_cluster_need_its_packages(script: str, echo_project: Path, tmp_path: Path) -> None:
    for words in (["--cluster", "local"], ["--cluster=auto"], ["--cluster_cores", "2"]):
        result = run(echo_project / f"{script}.sh", "pong", *words, cwd=tmp_path)
        assert (result.stdout.splitlines()[0] == "--cluster") == (words[0] != "--cluster_cores")
        assert result.stdout.splitlines()[-len(words) :] == words


@pytest.mark.parametrize("arguments", [["my results/pong.csv", "--watch"], ["-csv_file", "a.csv"], ["--help"]])
def test_plotting(arguments: list[str], echo_project: Path, tmp_path: Path) -> None:
    result = run(echo_project / "plot.sh", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [f"{echo_project}/src/plot.py", *arguments]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("plot", []),
        ("experiment", []),
        ("report", []),
        *((name, words) for name in ("train", *SCRIPTS) for words in ([], ["--epochs", "1"], ["@options"])),
    ],
)
def test_usage(name: str, arguments: list[str], echo_project: Path, tmp_path: Path) -> None:
    result = run(echo_project / f"{name}.sh", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    usage, example = result.stderr.splitlines()
    assert usage.startswith(f"usage: ./{name}.sh ")
    assert example.startswith(f"example: ./{name}.sh ")


def test_a_file_of_options_without_its_at_sign(echo_project: Path, tmp_path: Path) -> None:
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "options").touch()
    result = run(echo_project / "train.sh", "pong", "my/options", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.endswith("; to use the options in this file, type @my/options\n")


def test_upload_says_in_one_line_what_to_do(echo_project: Path, tmp_path: Path) -> None:
    line = failure(run(echo_project / "upload_gym.sh", "results/Breakout-v0", cwd=tmp_path))
    assert "closed the Gym scoreboard in 2017" in line
    assert "./test_gym.sh SNAPSHOT" in line


@pytest.mark.parametrize(("script", "steps"), [("train", "5000"), ("test", "10000"), ("random", "10000")])
def test_profiling(script: str, steps: str, echo_project: Path, tmp_path: Path) -> None:
    result = run(echo_project / f"profile_{script}.sh", "--seed", "1", cwd=tmp_path)
    arguments = result.stdout.splitlines()
    assert arguments[:5] == ["-m", "cProfile", "-s", "cumtime", f"{echo_project}/src/main.py"]
    assert arguments[arguments.index(f"--{script}_steps") + 1] == steps
    assert arguments[-3:] == ["pong", "--seed", "1"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no PYTHONSAFEPATH")
def test_profiling_beside_a_file_with_the_name_of_a_standard_module(echo_project: Path, tmp_path: Path) -> None:
    root = shutil.copytree(echo_project, tmp_path / "project")
    (root / "scripts" / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (root / "src").mkdir(exist_ok=True)
    (root / "src" / "main.py").write_text("print('profiled')\n")
    (tmp_path / "profile.py").write_text("raise SystemExit('the wrong one')\n")
    result = run(root / "profile_random.sh", cwd=tmp_path)
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, "profiled"), result.stderr


def test_checks_run_in_the_root_and_stop_at_the_first_failure(echo_project: Path, tmp_path: Path) -> None:
    root = shutil.copytree(echo_project, tmp_path / "a project")
    result = run("a project/check.sh", "-k", "some thing", cwd=tmp_path)
    assert result.returncode == 0
    assert [line for line in result.stdout.splitlines() if line.startswith("== ")] == [
        "== ruff format --check",
        "== ruff check",
        "== mypy src nvis tests benchmarks",
        "== pytest -n logical -k some thing",
    ]
    replace(root / "scripts" / "python", "#!/bin/sh\n", '#!/bin/sh\n[ "$3 $4" != "ruff check" ] || exit 5\n')
    result = run("a project/check.sh", cwd=tmp_path)
    assert result.returncode == 5
    assert "mypy" not in result.stdout
