"""Training on the digits through a parameter server, against the same updates in one jitted loop.

    python -m benchmarks.ps --only "asynchronous, 1" --updates 1500

Seconds are those of the updates alone: no start of processes, no compilation. Evaluations of the
test set, every 50 updates in a node of its own, are part of the served programs only.
"""

from __future__ import annotations

from benchmarks.board import Board, arguments
from benchmarks.common import PYTHONS, Measure, run_once

TARGETS = {("asynchronous", 1): 1.3}


def main() -> None:
    parser = arguments(__doc__, repetitions=5)
    parser.add_argument("--updates", type=int, default=1500, help="of the parameters, in each run")
    options = parser.parse_args()
    measures = {}  # {(mode, workers): measure}
    for mode in ("asynchronous", "synchronous", "bounded-staleness"):
        for workers in (1, 2, 4):
            name = f"{options.updates} updates, {mode}, {workers} worker{'s' * (workers > 1)}"
            target = TARGETS.get((mode, workers))
            measures[mode, workers] = Measure(name, "s", target=target, against="loop")
    with Board("ps", list(measures.values()), options) as board:
        for _ in board.repetitions():
            for (mode, workers), measure in measures.items():
                if board.wants(measure):
                    train(measure, "loop", "single", options.updates)
                    train(measure, "lpml", mode, options.updates, workers)
                    board.tell(measure)


def train(measure: Measure, name: str, *words: object) -> None:
    """One training in a process of its own."""
    found = run_once(PYTHONS["lpml"], "digits_training.py", *words)
    if found:
        measure.add(name, found["seconds"])


if __name__ == "__main__":
    main()
