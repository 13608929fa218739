"""ROM files: those of ale-py, found by name, and the user's files, checked before the emulator reads them."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from simple_dqn.errors import GameError


def game_of(stem: str) -> str:
    """The game in a snapshot's name: its longest beginning that is a game, else the part before the first _."""
    from ale_py import roms

    parts, names = stem.split("_"), roms.get_all_rom_ids()
    longer = ("_".join(parts[:n]) for n in range(len(parts), 1, -1))
    return next((name for name in longer if name in names), parts[0])


def same_game(environment: str, one: str, other: str) -> bool:
    """Whether two values of `game` mean the same game. For ROMs only the stem counts, for ids the whole text."""
    return one == other or (environment == "ale" and name_of_game(one) == name_of_game(other))


def name_of_game(game: str) -> str:
    """The name that ale-py has for a game, from the game's name or its ROM file."""
    return Path(game).stem.lower().replace("-", "_").replace(" ", "_")


def stem_of(game: str, environment: str = "ale") -> str:
    """What the names of a game's files begin with: pong for roms/pong.bin, Pong-v5 for ALE/Pong-v5.

    scripts/usage.sh has the same rule.
    """
    is_file = Path(game).is_file()
    if environment == "gym" or (re.fullmatch(r".*-v\d\d?", game) and not is_file):
        return game.removeprefix("ale_py:").removeprefix("ALE/").replace(":", ".").replace("/", "-")
    return Path(game).stem if is_file else name_of_game(game)


def find_rom(game: str) -> Path:
    """The ROM file that `game` names: a path, else the ROM that ale-py ships under the path's stem.

    Raises:
        GameError: there is no such file or game, or the file is not an Atari game.
    """
    from ale_py import ALEInterface, roms

    path, names = Path(game), roms.get_all_rom_ids()
    name = name_of_game(game)
    shadowed = path.is_dir() and game == name and name in names  # a folder called breakout is not meant
    if path.exists() and not path.is_file() and not shadowed:
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise GameError(f"{game} is {kind}, not a ROM: name a file such as roms/breakout.bin, or a game")
    if shadowed or not path.exists():
        if name in names:
            rom = Path(str(roms.get_rom_path(name)))
            if not ALEInterface.isSupportedROM(rom):
                raise GameError(f"{name} is a two-player game, which the emulator does not support: choose another")
            return rom
        raise GameError(_missing(game, name, names))
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


def _missing(game: str, name: str, names: Sequence[str]) -> str:
    """What is missing and what to type instead; other games only if their names are close."""
    is_path = bool(Path(game).suffix) or os.sep in game
    what = f"there is no file {game}" if is_path else f"there is no game {game}"
    environment = _in_gymnasium(game)
    if environment or re.fullmatch(r".*\S-v\d+", game):
        return f"{what}: for Gymnasium's {environment or game} add --environment gym"
    what += f", and ale-py has no game {name}" if is_path else ""
    close = [other for other in names if len(name) > 3 and other.startswith(name)]
    close = close or difflib.get_close_matches(name, names, n=3, cutoff=0.75)
    if close:
        return f"{what}: did you mean {' or '.join(close)}?"
    return f"{what}: name a ROM file, or a game such as breakout, pong or space_invaders"


def _in_gymnasium(game: str) -> str:
    """The newest Gymnasium environment of this name, in upper or lower case; empty if there is none."""
    import gymnasium

    wanted = game.lower()
    known = [
        spec
        for spec in gymnasium.registry.values()
        if wanted in (spec.id.lower(), spec.id.lower().rpartition("/")[2], spec.name.lower())
    ]
    newest = max(known, key=lambda spec: (spec.namespace in (None, "ALE"), spec.version or 0), default=None)
    return newest.id if newest else ""
