"""The digits network, trained through a parameter server or in one loop.

    digits_training.py single UPDATES             one jitted call per update, no lpml
    digits_training.py MODE UPDATES WORKERS       nodes on processes

Prints one JSON object: the seconds of the updates, compilation excluded.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import lpml
from lpml.programs.supervised import parameter_server, single_loop


def single(updates: int) -> float:
    return single_loop.train(updates)[1]


def served(updates: int, mode: Any, workers: int) -> float:
    program = parameter_server.program(workers, mode, updates)
    with lpml.launch(program, "local_mp", terminal=False) as run:
        run.wait(300)
        lines = (run.folder.path / "metrics" / "evaluator-0.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    return float(last["step"] / last["updates_per_second"])


if __name__ == "__main__":
    count = int(sys.argv[2])
    if sys.argv[1] == "single":
        seconds = single(count)
    else:
        seconds = served(count, sys.argv[1], int(sys.argv[3]))
    print(json.dumps({"seconds": seconds}))
