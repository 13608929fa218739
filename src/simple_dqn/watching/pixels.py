"""Pictures enlarged without a blur: every pixel becomes a block of whole pixels, of about the right shape."""

from __future__ import annotations

import math

from simple_dqn.environment import Picture


def block(pixel_width: float, height: int) -> tuple[int, int]:
    """Width and height of what a pixel becomes: `height` pixels high and, to the nearest, as wide as it should be."""
    return max(1, math.floor(pixel_width * height + 0.5)), height


def least_height(pixel_width: float, height: int) -> int:
    """The least height of a block that has the same shape as one of `height`."""
    return height // math.gcd(*block(pixel_width, height))


def enlarged(picture: Picture, pixel_width: float, height: int) -> Picture:
    """`picture` with each pixel `height` pixels high."""
    across, down = block(pixel_width, height)
    return picture.repeat(down, axis=0).repeat(across, axis=1)
