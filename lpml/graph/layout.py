"""Places boxes in layers from left to right, so that arrows are short and seldom cross.

Sugiyama's method: arrows that close a cycle are turned round; each box gets a layer by the longest
path to it; arrows are broken into pieces that cross one layer each, and one of the pieces carries
the label as if it were a box; layers are sorted by the median of the neighbours; last, boxes are
moved towards their neighbours as far as those beside them allow. Pure: sizes in, places out.

K. Sugiyama, S. Tagawa, M. Toda: Methods for visual understanding of hierarchical system
structures, 1981. E. Gansner et al.: A technique for drawing directed graphs, 1993.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from lpml.graph.layering import layers_of_boxes, without_cycles

NODE_GAP = 26.0
PIECE_GAP = 12.0
LAYER_GAP = 34.0
_SWEEPS = 16
_PATIENCE = 8000  # a large graph gets fewer sweeps


@final
@dataclass(frozen=True)
class Place:
    """The middle of a box or of a label, and its size."""

    x: float
    y: float
    width: float
    height: float


@final
@dataclass(frozen=True)
class Route:
    """The points that an arrow passes, from its source to its target, and where its label is."""

    points: tuple[tuple[float, float], ...]
    label: Place


@final
@dataclass(frozen=True)
class Layout:
    """Where everything is; the drawing begins at (0, 0)."""

    boxes: Mapping[str, Place]
    routes: Sequence[Route | None]
    """One for each arrow given; `None` for an arrow from a box to itself."""
    width: float
    height: float


@dataclass(eq=False)
class _Item:
    """A box, or a piece of an arrow."""

    layer: int
    width: float
    height: float
    is_box: bool
    before: list[_Item] = field(default_factory=list)  # neighbours in the layer to the left
    after: list[_Item] = field(default_factory=list)
    order: int = 0
    x: float = 0.0
    y: float = 0.0


def lay_out(
    sizes: Mapping[str, tuple[float, float]],
    arrows: Sequence[tuple[str, str]],
    labels: Sequence[tuple[float, float]],
) -> Layout:
    """Places boxes and routes arrows.

    Args:
      sizes: `{box: (width, height)}`.
      arrows: pairs of boxes.
      labels: the size of each arrow's label.
    """
    forward = without_cycles(list(sizes), arrows)
    layers_of = layers_of_boxes(list(sizes), [pair for pair in forward if pair is not None])
    boxes = {key: _Item(2 * layers_of[key], *sizes[key], is_box=True) for key in sizes}
    chains = [
        None if pair is None else _chain(boxes[pair[0]], boxes[pair[1]], label)
        for pair, label in zip(forward, labels, strict=True)
    ]
    items = list(boxes.values()) + [one for chain in chains if chain for one in chain[1:-1]]
    layers = _sorted_layers(items)
    _place_vertically(layers)
    width = _place_horizontally(layers)
    top = min((one.y - one.height / 2 for one in items), default=0.0)
    for one in items:
        one.y -= top
    height = max((one.y + one.height / 2 for one in items), default=0.0)
    ports = _ports(chains)
    routes = [
        None if chain is None or pair is None else _route(chain, ports, turned=pair != arrow)
        for chain, pair, arrow in zip(chains, forward, arrows, strict=True)
    ]
    places = {key: Place(one.x, one.y, one.width, one.height) for key, one in boxes.items()}
    return Layout(places, routes, width, height)


# --- pieces of arrows ---------------------------------------------------------------------------


def _chain(source: _Item, target: _Item, label: tuple[float, float]) -> list[_Item]:
    middle = (source.layer + target.layer) // 2
    middle += 1 - middle % 2  # labels stand between layers of boxes
    chain = [source]
    for layer in range(source.layer + 1, target.layer):
        size = label if layer == middle else (0.0, 4.0)
        chain.append(_Item(layer, *size, is_box=False))
    chain.append(target)
    for left, right in itertools.pairwise(chain):
        left.after.append(right)
        right.before.append(left)
    return chain


# --- order in layers -----------------------------------------------------------------------------


def _sorted_layers(items: list[_Item]) -> list[list[_Item]]:
    layers: list[list[_Item]] = [[] for _ in range(max((i.layer for i in items), default=-1) + 1)]
    for item in _along_arrows(items):
        item.order = len(layers[item.layer])
        layers[item.layer].append(item)
    best, fewest = [list(layer) for layer in layers], _crossings(layers)
    for sweep in range(max(2, min(_SWEEPS, _PATIENCE // max(1, len(items))))):
        if not fewest:
            break
        downwards = sweep % 2 == 0
        for layer in layers if downwards else reversed(layers):
            layer.sort(key=lambda item: _median(item, item.before if downwards else item.after))
            _number(layer)
        _exchange_neighbours(layers)
        count = _crossings(layers)
        if count < fewest:
            best, fewest = [list(layer) for layer in layers], count
    for layer in best:
        _number(layer)
    return best


def _along_arrows(items: list[_Item]) -> list[_Item]:
    """Items in the order of a walk along the arrows, which keeps what is connected together."""
    found: dict[_Item, None] = {}
    for start in sorted(items, key=lambda item: item.layer):
        stack = [start]
        while stack:
            item = stack.pop()
            if item not in found:
                found[item] = None
                stack += reversed(item.after)
    return list(found)


def _number(layer: list[_Item]) -> None:
    for order, item in enumerate(layer):
        item.order = order


def _median(item: _Item, neighbours: list[_Item]) -> float:
    orders = sorted(one.order for one in neighbours)
    if not orders:
        return float(item.order)
    half = len(orders) // 2
    return float(orders[half]) if len(orders) % 2 else (orders[half - 1] + orders[half]) / 2


def _crossings(layers: list[list[_Item]]) -> int:
    total = 0
    for layer in layers:
        ends: list[int] = []
        for item in layer:
            for order in sorted(one.order for one in item.after):
                total += len(ends) - bisect.bisect_right(ends, order)
            for one in item.after:
                bisect.insort(ends, one.order)
    return total


def _exchange_neighbours(layers: list[list[_Item]]) -> None:
    for layer in layers:
        for index in range(len(layer) - 1):
            upper, lower = layer[index], layer[index + 1]
            if _pair_crossings(lower, upper) < _pair_crossings(upper, lower):
                layer[index], layer[index + 1] = lower, upper
                upper.order, lower.order = lower.order, upper.order


def _pair_crossings(upper: _Item, lower: _Item) -> int:
    sides = ((upper.before, lower.before), (upper.after, lower.after))
    return sum(a.order > b.order for high, low in sides for a in high for b in low)


# --- coordinates ---------------------------------------------------------------------------------


def _place_vertically(layers: list[list[_Item]]) -> None:
    for layer in layers:
        y = 0.0
        for item in layer:
            item.y = y + item.height / 2
            y += item.height + NODE_GAP
        for item in layer:
            item.y -= y / 2
    for sweep in range(2 * _SWEEPS):
        to_right = sweep % 2 == 0
        for layer in layers if to_right else reversed(layers):
            wished = []
            for item in layer:
                near = item.before if to_right else item.after
                if sweep >= _SWEEPS or not near:  # in the end, both sides count
                    near = item.before + item.after
                ys = [one.y for one in near]
                wished.append(sum(ys) / len(ys) if ys else item.y)
            _settle(layer, wished)


def _settle(layer: list[_Item], wished: list[float]) -> None:
    """The places nearest to those wished (least squares) that keep order and distance."""
    blocks: list[tuple[float, float, int]] = []  # (sum of offsets wished, weight, items)
    offsets = [0.0]
    for upper, lower in itertools.pairwise(layer):
        gap = NODE_GAP if upper.is_box or lower.is_box else PIECE_GAP
        offsets.append(offsets[-1] + (upper.height + lower.height) / 2 + gap)
    for item, wish, offset in zip(layer, wished, offsets, strict=True):
        weight = 1.0 if item.is_box else 2.0  # straight arrows matter more than centred boxes
        blocks.append(((wish - offset) * weight, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            last, previous = blocks.pop(), blocks.pop()
            blocks.append((previous[0] + last[0], previous[1] + last[1], previous[2] + last[2]))
    index = 0
    for total, weight, count in blocks:
        for item in layer[index : index + count]:
            item.y = total / weight + offsets[index]
            index += 1


def _place_horizontally(layers: list[list[_Item]]) -> float:
    x = 0.0
    for layer in layers:
        width = max((item.width for item in layer), default=0.0)
        for item in layer:
            item.x = x + width / 2
        x += width + LAYER_GAP
    return max(0.0, x - LAYER_GAP)


_Ports = dict[tuple[int, int], float]  # {(id of box, id of the piece beside it): y}


def _ports(chains: Sequence[list[_Item] | None]) -> _Ports:
    """Where on the side of a box each arrow ends: spread out, in the order of the pieces."""
    sides: dict[tuple[int, bool], tuple[_Item, list[_Item]]] = {}
    for chain in chains:
        if chain:
            sides.setdefault((id(chain[0]), True), (chain[0], []))[1].append(chain[1])
            sides.setdefault((id(chain[-1]), False), (chain[-1], []))[1].append(chain[-2])
    ports: _Ports = {}
    for box, pieces in sides.values():
        pieces.sort(key=lambda piece: piece.order)
        step = min(16.0, box.height * 0.6 / max(1, len(pieces) - 1))
        for index, piece in enumerate(pieces):
            ports[id(box), id(piece)] = box.y + (index - (len(pieces) - 1) / 2) * step
    return ports


def _route(chain: list[_Item], ports: _Ports, turned: bool) -> Route:
    first, last = chain[0], chain[-1]
    points = [(first.x + first.width / 2, ports[id(first), id(chain[1])])]
    for piece in chain[1:-1]:
        points.append((piece.x - piece.width / 2, piece.y))
        if piece.width:
            points.append((piece.x + piece.width / 2, piece.y))
    points.append((last.x - last.width / 2, ports[id(last), id(chain[-2])]))
    carrier = max(chain[1:-1], key=lambda piece: piece.width)
    label = Place(carrier.x, carrier.y, carrier.width, carrier.height)
    return Route(tuple(reversed(points) if turned else points), label)
