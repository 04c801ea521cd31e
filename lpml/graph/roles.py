"""How each role looks in a drawing: a shape and a colour, in every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

Shape = Literal["box", "double", "round", "pill", "cylinder", "hexagon", "trapezoid"]


@final
@dataclass(frozen=True)
class Look:
    """A shape with its colours, as `#rrggbb`."""

    shape: Shape
    fill: str
    line: str


PLAIN = Look("box", "#f1f3f5", "#868e96")

LOOKS = {
    "service": PLAIN,
    "parameter server": Look("cylinder", "#d9e8fb", "#2b6cb0"),
    "embedding server": Look("cylinder", "#d6f0f5", "#0b7285"),
    "replay": Look("cylinder", "#e9defa", "#6b46c1"),
    "data source": Look("cylinder", "#ece7df", "#8a6d3b"),
    "checkpointer": Look("cylinder", "#e6e9ed", "#495057"),
    "learner": Look("double", "#ffe3c7", "#c05621"),
    "worker": Look("round", "#ddf3dc", "#2f855a"),
    "actor": Look("round", "#ddf3dc", "#2f855a"),
    "simulator": Look("round", "#e0f2e9", "#0f766e"),
    "evaluator": Look("pill", "#fbdbe6", "#b83280"),
    "aggregator": Look("trapezoid", "#d3f1ec", "#0f766e"),
    "scheduler": Look("hexagon", "#fdf0c2", "#a67c00"),
    "inference server": Look("hexagon", "#d6f0f5", "#0b7285"),
    "counter": Look("pill", "#eceff3", "#495057"),
    "stopper": Look("pill", "#fde0de", "#c53030"),
}


def look_of(role: str) -> Look:
    """The look of a role; one that is not known looks like a plain service."""
    return LOOKS.get(role, PLAIN)
