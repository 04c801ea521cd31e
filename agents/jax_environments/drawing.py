"""Shapes on a picture, for simulations that draw themselves; numpy only.

A picture is uint8 `[H, W, 3]`; places are `(x, y)` in pixels, y downward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Picture: TypeAlias = npt.NDArray[np.uint8]
Place: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[int, int, int]

PAPER: Colour = (250, 249, 245)
INK: Colour = (48, 48, 52)
GREY: Colour = (205, 203, 196)
BLUE: Colour = (46, 108, 164)
RED: Colour = (200, 80, 48)


def paper(height: int, width: int) -> Picture:
    """An empty picture."""
    return np.full((height, width, 3), PAPER, np.uint8)


def line(picture: Picture, begin: Place, end: Place, thickness: float, colour: Colour) -> None:
    """Draws a line with round ends; one whose ends are the same is a disc."""
    height, width = picture.shape[:2]
    y, x = np.ogrid[:height, :width]
    dx, dy = end[0] - begin[0], end[1] - begin[1]
    length = max(dx * dx + dy * dy, 1e-9)
    along = np.clip(((x - begin[0]) * dx + (y - begin[1]) * dy) / length, 0.0, 1.0)
    away = np.hypot(x - begin[0] - along * dx, y - begin[1] - along * dy)
    _blend(picture, np.clip(thickness / 2 + 0.5 - away, 0.0, 1.0), colour)


def disc(picture: Picture, centre: Place, radius: float, colour: Colour) -> None:
    """Draws a disc."""
    line(picture, centre, centre, 2 * radius, colour)


def box(picture: Picture, corner: Place, size: Place, colour: Colour) -> None:
    """Draws an upright rectangle; what is beyond the edge is cut off."""
    (x, y), (width, height) = corner, size
    rows = slice(max(0, round(y)), max(0, round(y + height)))
    columns = slice(max(0, round(x)), max(0, round(x + width)))
    picture[rows, columns] = colour


def board(cells: npt.NDArray[np.integer], colours: dict[int, Colour], side: int) -> Picture:
    """A picture of a board of numbers `[rows, columns]`; 0 is empty.

    Args:
      cells: the numbers.
      colours: of each that is not 0.
      side: of a cell, in pixels.
    """
    picture = paper(cells.shape[0] * side + 1, cells.shape[1] * side + 1)
    picture[::side] = GREY
    picture[:, ::side] = GREY
    for row, column in np.argwhere(cells).tolist():
        colour = colours[int(cells[row, column])]
        box(picture, (column * side + 2, row * side + 2), (side - 3, side - 3), colour)
    return picture


def shaded(values: npt.NDArray[np.floating], side: int) -> Picture:
    """A picture of a board of brightness `[rows, columns]`: from paper, 0, to ink, 1.

    Args:
      values: in [0, 1].
      side: of a cell, in pixels.
    """
    picture = paper(values.shape[0] * side + 1, values.shape[1] * side + 1)
    cover = np.clip(values, 0.0, 1.0).repeat(side, 0).repeat(side, 1)
    _blend(picture[:-1, :-1], cover, INK)
    picture[::side] = GREY
    picture[:, ::side] = GREY
    return picture


def beside(pictures: Sequence[Picture], gap: int) -> Picture:
    """Pictures in a row, their upper edges in line, with paper between them."""
    joined = paper(
        max(picture.shape[0] for picture in pictures),
        sum(picture.shape[1] + gap for picture in pictures) - gap,
    )
    left = 0
    for picture in pictures:
        joined[: picture.shape[0], left : left + picture.shape[1]] = picture
        left += picture.shape[1] + gap
    return joined


def _blend(picture: Picture, cover: npt.NDArray[np.floating], colour: Colour) -> None:
    mixed = picture + cover[..., None] * (np.asarray(colour, np.float64) - picture)
    picture[...] = np.rint(mixed).astype(np.uint8)
