"""The joystick: which action the keys stand for."""

from __future__ import annotations

from collections.abc import Sequence

JOYSTICK = ("up", "down", "left", "right", "space")  # names of keys


def joystick(keys: set[str], names: Sequence[str]) -> int:
    """The number of the action, among those with `names`, that `keys` stand for. 0 if there is none.

    If a game has only left and right, such as Pong, up means right and down means left.
    """
    digits = sorted(int(key) for key in keys if key.isdecimal() and int(key) < len(names))
    if digits:
        return digits[0]
    up_down = [key.upper() for key in ("up", "down") if key in keys]
    left_right = [key.upper() for key in ("left", "right") if key in keys]
    vertical = up_down[0] if len(up_down) == 1 else ""
    horizontal = left_right[0] if len(left_right) == 1 else ""
    turned = {"UP": "RIGHT", "DOWN": "LEFT"}.get(vertical, "") if not horizontal and "UP" not in names else ""
    fire = "FIRE" if "space" in keys else ""
    moves = (vertical + horizontal, horizontal or turned, vertical)
    wanted = [move + fire for move in moves] + list(moves) + [fire]
    return next((names.index(name) for name in wanted if name and name in names), 0)
