"""Random deaths: SIGKILL and SIGSTOP of any node but the launcher, and what becomes of the run.

    python -m benchmarks.kills [--only digits] [--kills 200] [--stops 5] [--seed 0] [--json]

Each run has restart policies for all its nodes and takes checkpoints. The server of the digits
keeps a journal, unless `--no-journal` says that all nodes are set back when it dies. A node is
killed when all nodes serve, after a random pause. Afterwards the run goes on to the end that a
fault-free run has, and its result is shown beside those of `--fault-free` such runs.

What is counted:

- survived: kills after which every node served again within `--patience` seconds.
- noticed: from the kill until a caller with a call under way had `NodeUnavailable` (digits), and
  until the launcher knew.
- answered: from the kill until the next life of the node answered a call.
- undone: updates that a worker was told of and that the next life of the server did not have. With
  a journal none may be. Without one the whole run is set back with the server, so no node remembers
  them; the file in which the workers of this benchmark write what they were told is not part of
  the run, and does.
- lost: updates that a worker was told of since the last set back, and that the last checkpoint
  of the run does not have; and of any update told of while no server died. None may be.
- hung: a node that is stopped (SIGSTOP): whether its caller's deadline ends the call, whether the
  others go on, and whether it serves again after SIGCONT.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lpml
from benchmarks.mortal import digits_program, dqn_program
from lpml.launchers import NodeStatus, Run
from lpml.programs.supervised.single_loop import accuracy
from lpml.record.checkpoints import latest_of

LOOK = 0.002  # seconds between two looks at the launcher


@dataclasses.dataclass
class Found:
    """What came of one run with deaths."""

    kills: int = 0
    survived: int = 0
    noticed: list[float] = dataclasses.field(default_factory=list)
    known: list[float] = dataclasses.field(default_factory=list)
    answered: dict[str, list[float]] = dataclasses.field(default_factory=dict)  # {group: seconds}
    told: int = 0
    undone: int = 0
    lost: int = 0
    stops: int = 0
    timed_out: int = 0
    resumed: int = 0
    result: float = float("nan")
    seconds: float = 0.0
    victims: dict[str, int] = dataclasses.field(default_factory=dict)


def nodes_of(run: Run) -> dict[str, NodeStatus]:
    """Every node as the launcher knows it, without asking the node."""
    return {node.name: node for node in run._describe({}).nodes}


def over(run: Run) -> bool:
    return run._watch.ended.is_set() or run._state() != "running"


def until(run: Run, predicate: Callable[[], bool], seconds: float) -> bool:
    """Whether it comes true in time, and before the run is over."""
    end = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > end or over(run):
            return False
        time.sleep(LOOK)
    return True


def all_run(run: Run) -> bool:
    return all(node.state in ("running", "finished") for node in nodes_of(run).values())


def kill_one(run: Run, victim: NodeStatus, found: Found, patience: float) -> bool:
    """Kills a node and measures how it is made good; whether it was."""
    client = run.client(victim.name)
    waits = hasattr(client, "block")
    pending = lpml.future(client.block) if waits else None
    time.sleep(0.01)  # the call is under way
    began = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)
    if pending is not None:
        try:
            error = pending.exception(patience)
        except TimeoutError:
            return False
        if isinstance(error, lpml.NodeUnavailable):
            found.noticed.append(time.monotonic() - began)
    changed = until(run, lambda: _is_known(run, victim), patience)
    found.known.append(time.monotonic() - began)
    if not changed:
        return False
    replaced = functools.partial(_is_replaced, run, victim)
    if waits:
        try:
            with lpml.deadline(patience):
                while client.pid() == victim.pid:
                    time.sleep(LOOK)
        except lpml.Error as error:
            print(f"{victim.name}: {error}", file=sys.stderr)
            return False
    elif not until(run, replaced, patience):
        return False
    found.answered.setdefault(victim.group, []).append(time.monotonic() - began)
    return until(run, lambda: all_run(run), patience)


def _is_known(run: Run, victim: NodeStatus) -> bool:
    now = nodes_of(run)[victim.name]
    return now.state != "running" or now.restarts > victim.restarts


def _is_replaced(run: Run, victim: NodeStatus) -> bool:
    now = nodes_of(run)[victim.name]
    return now.restarts > victim.restarts and now.state in ("running", "finished")


def stop_one(run: Run, victim: NodeStatus, found: Found, patience: float) -> None:
    """Stops a node for a second: its callers have their deadlines, and it goes on afterwards."""
    client = run.client(victim.name)
    os.kill(victim.pid, signal.SIGSTOP)
    time.sleep(0.05)
    found.stops += 1
    try:
        if hasattr(client, "pid"):
            try:
                with lpml.deadline(0.5):
                    client.pid()
            except lpml.CallTimeout:
                found.timed_out += 1
        time.sleep(0.5)
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    if hasattr(client, "pid"):
        with lpml.deadline(patience):
            found.resumed += client.pid() == victim.pid
    until(run, lambda: all_run(run), patience)


def with_deaths(program: lpml.Program, options: Any, runs: str) -> tuple[Found, Run]:
    """Kills while it runs, then lets it come to its end."""
    found, dice = Found(), random.Random(options.seed)
    began = time.monotonic()
    run = lpml.launch(
        program,
        "local_mp",
        directory=runs,
        terminal=False,
        checkpoint_every=options.checkpoint_every,
        stop_timeout=20.0,
    )
    with run:
        stops = set(dice.sample(range(options.kills), min(options.stops, options.kills)))
        until(run, lambda: run._supervisor.has_cut, options.patience)
        for number in range(options.kills):
            if not until(run, lambda: all_run(run), options.patience):
                break
            time.sleep(dice.uniform(0.0, 1.0))
            alive = [
                node
                for node in nodes_of(run).values()
                if node.state == "running" and options.victim in node.group
            ]
            if over(run) or not alive:
                break
            victim = dice.choice(alive)
            assert victim.pid > 0, "0 would be all of us"
            if number in stops:
                stop_one(run, victim, found, options.patience)
                continue
            found.kills += 1
            found.victims[victim.group] = found.victims.get(victim.group, 0) + 1
            if kill_one(run, victim, found, options.patience):
                found.survived += 1
            elif over(run):
                break
        run.wait(options.patience * 5)
    found.seconds = time.monotonic() - began
    return found, run


def account(path: Path, saved: int, found: Found) -> None:
    """What workers were told, against what the server had: see the head of this file."""
    told = []
    for line in path.read_text().splitlines():
        when, number, _ = line.split(" ", 2)
        told.append((float(when), int(number)))
    told.sort()
    found.told = len(told)
    # Asynchronous: every exchange makes one version, so a version told is an update that is there.
    # Where the server goes back, the next version told is one that some worker was told before.
    seen: set[int] = set()
    for _, version in told:
        if version in seen:  # it went back to below it
            gone = {v for v in seen if v >= version}
            found.undone += len(gone)
            seen -= gone
        seen.add(version)
    found.lost = sum(version > saved for version in seen)


def digits_run(options: Any, runs: str, *, deaths: bool) -> Found:
    pause = 2 * options.kills * options.pace / options.updates if deaths else 0.0
    path = Path(runs, f"told-{time.monotonic_ns()}")
    path.touch()
    changed = options if deaths else argparse_like(options, kills=0, stops=0)
    program = digits_program(str(path), options.updates, pause, options.journal)
    found, run = with_deaths(program, changed, runs)
    state = latest_of(run.folder).load("server/0")
    account(path, int(state["version"]), found)
    found.result = accuracy(state["params"])
    return found


def dqn_run(options: Any, runs: str, *, deaths: bool) -> Found:
    changed = options if deaths else argparse_like(options, kills=0, stops=0)
    found, run = with_deaths(dqn_program(options.steps), changed, runs)
    rows = run.folder.metrics_file("evaluator/0").read_text().splitlines()
    returns = [json.loads(row)["evaluator_return"] for row in rows if "evaluator_return" in row]
    found.result = statistics.mean(returns[-3:]) if returns else float("nan")
    return found


def argparse_like(options: Any, **changes: Any) -> Any:
    """The options with some changed."""
    return argparse.Namespace(**{**vars(options), **changes})


def summary(name: str, found: Found, free: list[Found]) -> dict[str, Any]:
    answered = {group: spread(values) for group, values in sorted(found.answered.items())}
    return {
        "run": name,
        "survived": f"{found.survived} of {found.kills}",
        "victims": found.victims,
        "noticed by a caller, s": spread(found.noticed),
        "known to the launcher, s": spread(found.known),
        "answered again, s": answered,
        "updates told": found.told,
        "of these undone": found.undone,
        "of these lost": found.lost,
        "stopped nodes": f"{found.stops}: {found.timed_out} calls ended by their deadline, "
        f"{found.resumed} served again",
        "result": found.result,
        "results without faults": [one.result for one in free],
        "lost without faults": [one.lost for one in free],
        "seconds": round(found.seconds, 1),
        "seconds without faults": [round(one.seconds, 1) for one in free],
    }


def spread(values: list[float]) -> str:
    if not values:
        return ""
    ordered = sorted(values)
    late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return (
        f"median {statistics.median(ordered):.3f}, 95 % {late:.3f}, most {ordered[-1]:.3f}"
        f" ({len(ordered)})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="digits or dqn")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--victim", default="", help="only nodes of this group, such as server")
    parser.add_argument("--stops", type=int, default=10, help="of the kills that are stops instead")
    parser.add_argument("--fault-free", type=int, default=3, help="runs without faults")
    parser.add_argument("--updates", type=int, default=2000, help="of the digits")
    parser.add_argument("--steps", type=int, default=200_000, help="of DQN's actors")
    parser.add_argument("--pace", type=float, default=2.0, help="seconds of training for each kill")
    parser.add_argument("--checkpoint-every", type=float, default=1.0)
    parser.add_argument("--journal", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--patience", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for name, one in (("digits", digits_run), ("dqn", dqn_run)):
        if options.only in name:
            with tempfile.TemporaryDirectory() as runs:
                free = [one(options, runs, deaths=False) for _ in range(options.fault_free)]
                found = one(options, runs, deaths=True)
                shown = summary(name, found, free)
            if options.json:
                print(json.dumps(shown), flush=True)
            else:
                for key, value in shown.items():
                    print(f"{key:32} {value}", flush=True)


if __name__ == "__main__":
    main()
