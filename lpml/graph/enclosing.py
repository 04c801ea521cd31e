"""Boxes around the groups of a drawing whose nodes are placed. Pure: places in, boxes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from lpml.graph.folding import Picture
from lpml.graph.layout import Place

_SIDE = 8.0
_TOP = 17.0  # room for the label


@final
@dataclass(frozen=True)
class Enclosure:
    """The box around a group, by its corners."""

    label: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Enclosure) -> bool:
        """Whether the two have a point in common."""
        apart = self.left > other.right or other.left > self.right
        return not (apart or self.top > other.bottom or other.top > self.bottom)


def enclosures(shown: Picture, places: Mapping[str, Place]) -> list[Enclosure]:
    """A box for each group that has one and whose nodes stand by themselves, outer before inner.

    The layout does not know of groups. Where nodes of others stand between those of a group, there
    is no box, since it would say what is not so.
    """
    boxes = {key: _around(place) for key, place in places.items()}
    found: dict[tuple[str, ...], Enclosure] = {}
    for path, group in reversed(list(shown.groups().items())):
        if group is None:
            continue
        members = {one.key for one in shown.nodes if _within(tuple(one.group.split("/")), path)}
        parts = [boxes[key] for key in members]
        parts += [box for inner, box in found.items() if _within(inner, path)]
        box = Enclosure(
            group.label,
            min(part.left for part in parts) - _SIDE,
            min(part.top for part in parts) - _TOP,
            max(part.right for part in parts) + _SIDE,
            max(part.bottom for part in parts) + _SIDE,
        )
        strangers = [boxes[key] for key in boxes.keys() - members]
        strangers += [other for inner, other in found.items() if not _within(inner, path)]
        if not any(map(box.meets, strangers)):
            found[path] = box
    return list(reversed(found.values()))


def _around(place: Place) -> Enclosure:
    x, y = place.width / 2, place.height / 2
    return Enclosure("", place.x - x, place.y - y, place.x + x, place.y + y)


def _within(inner: tuple[str, ...], outer: tuple[str, ...]) -> bool:
    return inner[: len(outer)] == outer
