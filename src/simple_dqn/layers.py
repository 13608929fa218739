"""The kinds of layers that a network is made of."""

from __future__ import annotations

from typing import NamedTuple


class Conv(NamedTuple):
    """A convolutional layer followed by a rectifier: no bias, no padding."""

    filters: int
    size: int
    stride: int


class Linear(NamedTuple):
    """A fully connected layer without bias, followed by a rectifier unless it is the last."""

    outputs: int
