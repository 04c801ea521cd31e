"""Programs up and down: plain nodes against Launchpad's local_mp, JAX nodes against spawning.

    python -m benchmarks.launch --only "16 "

Seconds are from launch() to the end of wait(), every node having answered in between; imports of
the launching process are not in it. Launchpad with 100 nodes is measured in the first repetition.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.board import Board, arguments
from benchmarks.common import HERE, PYTHONS, ROOT, Measure, installed, run_once

IDLE_SECONDS = 1.0


def up_and_down(count: int, name: str, measures: dict[str, Measure]) -> None:
    """One repetition of N plain nodes by one peer; `measures` by key of what the script prints."""
    script = "lpml_nodes.py" if name == "lpml" else "launchpad_nodes.py"
    peer = "lpml" if name == "lpml" else "courier"
    idle = IDLE_SECONDS if "pss_bytes" in measures else 0.0
    for key, value in (run_once(PYTHONS[peer], script, count, idle) or {}).items():
        if key in measures:
            measures[key].add(name, value)


def jax_nodes(count: int, name: str, measure: Measure) -> None:
    """One repetition of N nodes with a live JAX backend."""
    if name == "lpml":
        found = run_once(PYTHONS["lpml"], "lpml_nodes.py", count, 0, "jax")
    else:
        found = run_once(PYTHONS["lpml"], "spawned_nodes.py", count)
    if found:
        measure.add(name, found["up_seconds"])


def first_call(measure: Measure) -> None:
    """One repetition of the time from a command to the first answered call."""
    with tempfile.TemporaryDirectory() as folder:
        answered = Path(folder) / "answered"
        env = {**os.environ, "PYTHONPATH": str(ROOT), "LPML_BENCH_ANSWERED": str(answered)}
        start = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "lpml", "run", str(HERE / "peers" / "two_nodes.py")],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=60,
        )
        measure.add("lpml", float(answered.read_text()) - start)


def main() -> None:
    options = arguments(__doc__, repetitions=5).parse_args()
    launchpad = ["launchpad"] if installed(["courier"]) else []
    plain = {
        count: {
            "seconds": Measure(
                f"{count} plain node{'s' * (count > 1)} up and down",
                "s",
                target=0.25 if count == 16 else None,
                against="launchpad",
            )
        }
        for count in (1, 16, 100)
    }
    cpu = Measure("16 plain nodes, CPU time", "s", against="launchpad")
    memory = Measure("16 idle nodes, PSS", "B", target=1.0, against="launchpad")
    plain[16].update(cpu_seconds=cpu, pss_bytes=memory)
    jax = Measure("16 nodes with live JAX, up", "s", target=0.25, against="spawned")
    cold = Measure("command to first answered call (≤ 1 s)", "s")
    measures = [m for group in plain.values() for m in group.values()] + [jax, cold]
    with Board("launch", measures, options) as board:
        for repeat in board.repetitions():
            for count, group in plain.items():
                if not board.wants(*group.values()):
                    continue
                for name in ["lpml", *(launchpad if count < 100 or repeat == 0 else [])]:
                    up_and_down(count, name, group)
                board.tell(*group.values())
            if board.wants(jax):
                for name in ("lpml", "spawned"):
                    jax_nodes(16, name, jax)
                board.tell(jax)
            if board.wants(cold):
                first_call(cold)
                board.tell(cold)


if __name__ == "__main__":
    main()
