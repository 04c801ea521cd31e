"""How tests read what nodes logged."""

from __future__ import annotations

import json

import lpml


def logged(run: lpml.Run, node: str) -> list[dict[str, float]]:
    """The metrics of a node, in order."""
    lines = run.folder.metrics_file(node).read_text().splitlines()
    return [json.loads(line) for line in lines]
