"""ROM files: those that ship with ale-py, by name, and one's own, looked at before the emulator sees them."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path

from simple_dqn.errors import GameError


def game_of(stem: str) -> str:
    """The game that a snapshot's name begins with: its name up to the first _, or further where that is a game."""
    from ale_py import roms

    parts, names = stem.split("_"), roms.get_all_rom_ids()
    longer = ("_".join(parts[:n]) for n in range(len(parts), 1, -1))
    return next((name for name in longer if name in names), parts[0])


def same_game(environment: str, one: str, other: str) -> bool:
    """Whether two values of `game` name the same game: a ROM's folder and ending do not matter, all of an id does."""
    return one == other or (environment == "ale" and _name(one) == _name(other))


def _name(game: str) -> str:
    """The name by which ale-py ships a game, of its name or its ROM file's."""
    return Path(game).stem.lower().replace("-", "_").replace(" ", "_")


def find_rom(game: str) -> Path:
    """The ROM file that `game` names: a path, else the ROM that ale-py ships under the path's stem.

    Raises:
        GameError: there is no such file or game, or the file is not an Atari game.
    """
    from ale_py import ALEInterface, roms

    path, names = Path(game), roms.get_all_rom_ids()
    name = _name(game)
    shadowed = path.is_dir() and game == name and name in names  # a folder called breakout is not meant
    if path.exists() and not path.is_file() and not shadowed:
        kind = "a folder" if path.is_dir() else "no file"
        raise GameError(f"{game} is {kind}, not a ROM: name a file such as roms/breakout.bin, or a game")
    if shadowed or not path.exists():
        if name in names:
            rom = Path(str(roms.get_rom_path(name)))
            if not ALEInterface.isSupportedROM(rom):
                raise GameError(f"{name} is a game for two, which the emulator cannot play alone: choose another")
            return rom
        close = difflib.get_close_matches(name, names, n=3)
        hint = f"closest are {', '.join(close)}" if close else "games are breakout, pong, space_invaders and others"
        gym_hint = "; for a Gymnasium environment add --environment gym" if _looks_like_gym(game) else ""
        raise GameError(f"no ROM file {game} and no game {name!r}: {hint}{gym_hint}")
    # The emulator exits the whole process on a ROM it cannot read, so the file is looked at first.
    content = path.read_bytes()
    advice = f": remove it to play the {name} that ships with ale-py" if name in names else ""
    if not content:
        raise GameError(f"{game} is empty, not an Atari 2600 ROM{advice}")
    if not ALEInterface.isSupportedROM(path):
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        raise GameError(
            f"{game} is not an Atari 2600 game that the emulator knows (MD5 {md5}, {len(content)} bytes){advice}"
        )
    return path


def _looks_like_gym(game: str) -> bool:
    return bool(game) and game[-1].isdigit() and "-v" in game
