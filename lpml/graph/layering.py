"""Gives each box of a drawing a layer, so that arrows lead from lower layers to higher ones."""

from __future__ import annotations

from collections.abc import Sequence


def without_cycles(
    boxes: list[str], arrows: Sequence[tuple[str, str]]
) -> list[tuple[str, str] | None]:
    """The arrows, turned round where they close a cycle; `None` for a loop."""
    after: dict[str, list[str]] = {box: [] for box in boxes}
    held = dict.fromkeys(boxes, 0)
    for source, target in arrows:
        if source != target:
            after[source].append(target)
            held[target] += 1
    finished: dict[str, bool] = {}  # {box: False while on the path}
    closing: set[tuple[str, str]] = set()
    for start in sorted(boxes, key=lambda box: (held[box] > 0, held[box] - len(after[box]))):
        stack = [] if start in finished else [(start, iter(after[start]))]
        if stack:
            finished[start] = False
        while stack:
            box, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                finished[box] = True
                stack.pop()
            elif following not in finished:
                finished[following] = False
                stack.append((following, iter(after[following])))
            elif not finished[following]:
                closing.add((box, following))
    turned = [(b, a) if (a, b) in closing else (a, b) for a, b in arrows]
    return [None if a == b else (a, b) for a, b in turned]


def layers_of_boxes(boxes: list[str], arrows: list[tuple[str, str]]) -> dict[str, int]:
    """`{box: layer}`: one more than the highest layer that points at it; no cycles in `arrows`."""
    before: dict[str, list[str]] = {box: [] for box in boxes}
    after: dict[str, list[str]] = {box: [] for box in boxes}
    for source, target in arrows:
        before[target].append(source)
        after[source].append(target)
    waiting = {box: len(before[box]) for box in boxes}
    ready = [box for box in boxes if not waiting[box]]
    layer = dict.fromkeys(boxes, 0)
    order = []
    while ready:
        box = ready.pop(0)
        order.append(box)
        for target in after[box]:
            layer[target] = max(layer[target], layer[box] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    for box in reversed(order):  # what nobody points at stands close to what it points at
        if after[box] and len(before[box]) < len(after[box]):
            layer[box] = max(layer[box], min(layer[target] for target in after[box]) - 1)
    return layer
