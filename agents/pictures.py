"""Frames become a GIF, or a PNG strip; the one file that imports Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lpml.agents.jax_environments.drawing import GREY, Picture
from lpml.errors import LaunchError, UsageError, closest

FORMATS = (".gif", ".png")
_ACROSS = 8  # frames of an episode in a strip
_GAP = 4  # pixels between them
_COLOURS = 64


def check_format(path: Path) -> None:
    """Raises what `save` would raise, before there are frames.

    Raises:
      UsageError: the file's ending is not one that can be written, or there is no such folder.
      LaunchError: Pillow is missing.
    """
    if not path.parent.is_dir():
        raise UsageError(
            f"{path} cannot be written: there is no folder {path.parent}; make it, or give another"
        )
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"{path}: pictures end in .gif (all frames) or .png (some, side by side)"
            f"{closest(path.suffix, FORMATS)}"
        )
    try:
        import PIL  # noqa: F401
    except ModuleNotFoundError as error:
        raise LaunchError(
            "lpml render needs Pillow, which is not installed: pip install 'lpml[render]'"
        ) from error


def save(path: Path, episodes: Sequence[Sequence[Picture]], frames_per_second: float) -> None:
    """Writes episodes one after the other as a GIF, or one below the other as a PNG.

    Args:
      path: of the file; `check_format` has passed it.
      episodes: of each its frames, all of one size.
      frames_per_second: of a GIF; the format has hundredths of a second.

    Raises:
      LaunchError: it cannot be written.
    """
    from PIL import Image

    try:
        if path.suffix.lower() == ".png":
            Image.fromarray(strip(episodes)).save(path)
            return
        colours = Image.fromarray(strip(episodes)).quantize(_COLOURS)  # one palette for all frames
        frames = [
            Image.fromarray(frame).quantize(palette=colours, dither=Image.Dither.NONE)
            for episode in episodes
            for frame in episode
        ]
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=max(20, round(100 / frames_per_second) * 10),
            loop=0,
        )
    except OSError as error:
        raise LaunchError(
            f"{path} cannot be written: {error.strerror or error}; free some space there, or give "
            "another file"
        ) from error


def strip(episodes: Sequence[Sequence[Picture]]) -> Picture:
    """One row for each episode, of at most eight of its frames, the first and the last included."""
    rows = [_row(frames) for frames in episodes]
    width = max(row.shape[1] for row in rows)
    return _joined([_padded(row, width) for row in rows], axis=0)


def _row(frames: Sequence[Picture]) -> Picture:
    places = np.linspace(0, len(frames) - 1, min(_ACROSS, len(frames))).round().astype(int)
    return _joined([frames[place] for place in places.tolist()], axis=1)


def _joined(pictures: Sequence[Picture], axis: int) -> Picture:
    parts: list[Picture] = []
    for picture in pictures:
        shape = list(picture.shape)
        shape[axis] = _GAP
        parts += [np.full(shape, GREY, np.uint8), picture]
    return np.concatenate(parts[1:], axis=axis)


def _padded(row: Picture, width: int) -> Picture:
    rest = np.full((row.shape[0], width - row.shape[1], 3), GREY, np.uint8)
    return np.concatenate([row, rest], axis=1)
