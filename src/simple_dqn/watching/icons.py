"""What is drawn without letters: actions as arrows and fire, and the icon of the window."""

from __future__ import annotations

import re
from typing import Any

import pygame

from simple_dqn.watching.display import BLUE, ORANGE

_ACTION = re.compile(r"(NOOP|(UP|DOWN)?(LEFT|RIGHT)?(FIRE)?)")
_STEPS = {"UP": (0, -1), "DOWN": (0, 1), "LEFT": (-1, 0), "RIGHT": (1, 0)}


def has_icon(action: str) -> bool:
    """Whether `action` is one of a joystick. Others are written as text."""
    return bool(action and _ACTION.fullmatch(action))


def draw_action(surface: Any, action: str, place: Any, colour: tuple[int, int, int]) -> None:
    """Draw an arrow for a direction, a disc for fire, a ring for doing nothing, in the square `place`."""
    size = place.height
    centre = pygame.Vector2(place.center)
    move = pygame.Vector2()
    for name, step in _STEPS.items():
        if name in action:
            move += step
    fire = "FIRE" in action
    if move:
        along = move.normalize()
        across = pygame.Vector2(-along.y, along.x)
        middle = centre - along * size * 0.02
        tip, neck, tail = (middle + along * size * share for share in (0.46, 0.05, -0.42))
        wide, narrow = across * size * 0.32, across * size * 0.11
        points = [tip, neck + wide, neck + narrow, tail + narrow, tail - narrow, neck - narrow, neck - wide]
        pygame.draw.polygon(surface, colour, points)
        if fire:
            corner = pygame.Vector2(place.right - size * 0.16, place.bottom - size * 0.16)
            pygame.draw.circle(surface, colour, corner, max(1, size * 0.16))
    elif fire:
        pygame.draw.circle(surface, colour, centre, max(1, size * 0.34))
    else:
        pygame.draw.circle(surface, colour, centre, max(1, size * 0.24), max(1, round(size * 0.09)))


def window_icon() -> Any:
    """A paddle and a ball with the trace of its path."""
    icon = pygame.Surface((64, 64), pygame.SRCALPHA)
    pygame.draw.rect(icon, (16, 16, 20), (0, 0, 64, 64), border_radius=12)
    for i in range(5):
        trace = tuple(channel * (i + 1) // 6 for channel in ORANGE)
        pygame.draw.rect(icon, trace, (10 + 8 * i, 12 + 7 * i, 9, 9))
    pygame.draw.rect(icon, (255, 255, 255), (49, 46, 9, 9))
    pygame.draw.rect(icon, BLUE, (8, 54, 26, 5))
    return icon
