"""ROM files: found by path or name, and checked before the emulator reads them."""

from __future__ import annotations

import os
from pathlib import Path

import ale_py
import numpy as np
import pytest

from fakes import ale
from simple_dqn.environment import EnvironmentOptions
from simple_dqn.errors import GameError
from simple_dqn.games.game import make_environment
from simple_dqn.games.roms import find_rom, game_of, same_game


def test_rom_that_is_a_file(tmp_path: Path) -> None:
    rom = tmp_path / "My Game.BIN"
    rom.write_bytes(Path(str(ale_py.roms.get_rom_path("pong"))).read_bytes())
    assert find_rom(str(rom)) == rom
    assert ale(str(rom)).num_actions == 6


@pytest.mark.parametrize(
    "game", ["breakout", "Breakout", "roms/breakout.bin", "no/such/folder/BREAKOUT.ROM", "./breakout.a26"]
)
def test_rom_that_ships_with_ale_py(game: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_rom(game) == Path(str(ale_py.roms.get_rom_path("breakout")))


@pytest.mark.parametrize("game", ["space_invaders", "space-invaders", "Space Invaders", "roms/Space_Invaders.bin"])
def test_rom_of_two_words(game: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_rom(game).stem == "space_invaders"


@pytest.mark.parametrize(
    ("game", "words"),
    [
        ("brekout", r"^there is no game brekout: did you mean breakout\?$"),
        ("montezuma", r"did you mean montezuma_revenge\?$"),
        (
            "roms/spaceinvaders.bin",
            r"^there is no file roms/spaceinvaders.bin, and ale-py has no game spaceinvaders: did you mean space_inv",
        ),
        ("roms/doom.bin", "^there is no file roms/doom.bin, and ale-py has no game doom: name a ROM file, or a game"),
        ("my_game.bin", "^there is no file my_game.bin, and ale-py has no game my_game: name a ROM file, or a game"),
        ("Breakout-v5", "^there is no game Breakout-v5: for Gymnasium's ALE/Breakout-v5 add --environment gym$"),
        ("cartpole", "for Gymnasium's CartPole-v1 add --environment gym$"),
        ("my_pkg.envs:A-v0", "for Gymnasium's my_pkg.envs:A-v0 add --environment gym$"),
        ("0", "^there is no game 0: name a ROM file, or a game such as breakout, pong or space_invaders$"),
    ],
)
def test_unknown_game(game: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GameError, match=words):
        find_rom(game)


BAD_ROMS = {
    "empty": (b"", "is empty"),
    "text": (b"this is no game\n" * 20, "is not an Atari 2600 game that the emulator knows"),
    "random": (np.random.default_rng(0).bytes(4096), "4096 bytes.: remove it to play the breakout that ships"),
}


@pytest.mark.parametrize("kind", BAD_ROMS)
def test_file_that_is_no_rom(kind: str, tmp_path: Path) -> None:
    content, words = BAD_ROMS[kind]
    rom = tmp_path / "breakout.bin"
    rom.write_bytes(content)
    with pytest.raises(GameError, match=words):
        make_environment(EnvironmentOptions(game=str(rom)), seed=1)
    assert rom.read_bytes() == content
    if kind == "random":
        other = rom.rename(tmp_path / "unheard of.bin")
        with pytest.raises(GameError, match=r"4096 bytes\)$"):
            find_rom(str(other))


def test_folder_or_pipe_is_no_rom(tmp_path: Path) -> None:
    with pytest.raises(GameError, match="is a folder"):
        find_rom(str(tmp_path))
    os.mkfifo(tmp_path / "breakout.bin")
    with pytest.raises(GameError, match="is a device or a pipe"):
        find_rom(str(tmp_path / "breakout.bin"))


@pytest.mark.parametrize("name", ["combat", "joust", "warlords"])
def test_a_game_for_two_is_refused(name: str) -> None:
    with pytest.raises(GameError, match=f"{name} is a two-player game"):
        find_rom(name)


@pytest.mark.parametrize(
    ("stem", "game"),
    [("pong_141", "pong"), ("pong_fast_3", "pong"), ("space_invaders_126", "space_invaders"),
     ("ms_pacman_label_2", "ms_pacman"), ("Breakout-v0_77", "Breakout-v0"), ("mine", "mine")],
)  # fmt: skip
def test_the_game_in_a_snapshots_name(stem: str, game: str) -> None:
    assert game_of(stem) == game


def test_games_that_are_the_same_and_environments_that_are_not() -> None:
    assert same_game("ale", "roms/breakout.bin", "Breakout")
    assert same_game("ale", "Space-Invaders", "my.roms/space_invaders.bin")
    assert not same_game("ale", "my.roms/breakout.v2.bin", "my.roms/breakout.bin")
    assert same_game("gym", "my_pkg.envs:A-v0", "my_pkg.envs:A-v0")
    for other in ("my_pkg.envs:B-v0", "my_pkg.envs:A-v1", "my_pkg.envs:ns/A-v0"):
        assert not same_game("gym", "my_pkg.envs:A-v0", other)
    assert not same_game("gym", "ns/A-v0", "other/A-v0")


def test_a_folder_called_like_a_game_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "breakout").mkdir()
    assert find_rom("breakout").name == "breakout.bin"
    with pytest.raises(GameError, match="is a folder"):
        find_rom("./breakout")
