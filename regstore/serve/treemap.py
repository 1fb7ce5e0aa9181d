"""A treemap: areas in proportion to bytes, as near to squares as they come (Bruls, Huizing, van Wijk, 2000)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Units of the drawing.
WIDTH: Final = 1000.0
HEIGHT: Final = 500.0


@dataclass(frozen=True, slots=True)
class Area:
    """What is drawn: own and shared, in bytes."""

    name: str
    own: int
    shared: int

    @property
    def total(self) -> int:
        return self.own + self.shared


@dataclass(frozen=True, slots=True)
class Placed:
    """An area, and where it lies; own_width: of the part that stands for its own bytes."""

    area: Area
    x: float
    y: float
    width: float
    height: float

    @property
    def own_width(self) -> float:
        return self.width * self.area.own / self.area.total


def treemap(areas: Sequence[Area], width: float = WIDTH, height: float = HEIGHT) -> list[Placed]:
    """Each area with its place, the largest at the top left. Areas of no bytes are left out."""
    left = sorted((area for area in areas if area.total > 0), key=lambda area: -area.total)
    scale = width * height / sum(area.total for area in left) if left else 0.0
    placed: list[Placed] = []
    x = y = 0.0
    while left:
        short = min(width, height)
        row = [left[0]]
        while len(row) < len(left) and _worst([*row, left[len(row)]], short, scale) <= _worst(row, short, scale):
            row.append(left[len(row)])
        left = left[len(row) :]
        depth = sum(area.total for area in row) * scale / short
        along = 0.0
        for area in row:
            length = area.total * scale / depth
            if width >= height:
                placed.append(Placed(area, x, y + along, depth, length))
            else:
                placed.append(Placed(area, x + along, y, length, depth))
            along += length
        if width >= height:
            x, width = x + depth, width - depth
        else:
            y, height = y + depth, height - depth
    return placed


def _worst(row: Sequence[Area], short: float, scale: float) -> float:
    """The worst ratio of the sides of the row's areas, laid along a side of this length."""
    total = sum(area.total for area in row) * scale
    return max(
        max(short**2 * area.total * scale / total**2, total**2 / (short**2 * area.total * scale)) for area in row
    )
