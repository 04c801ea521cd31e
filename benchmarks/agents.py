"""Agents: steps a second of actors and learners, start, stop and memory, side by side with Acme.

    python -m benchmarks.agents [--repeats 3] [--only dqn] [--seconds 10] [--json]

Both run the same agent with the same options, two actors, on processes of this machine: DQN on
CartPole (MLP of 2 x 64, 8 samples per insert, batches of 32), IMPALA on Catch (MLP of 64 and LSTM
of 64, sequences of 20, batches of 32) and PPO on CartPole (MLP of 2 x 64, batches of 32 x 32
steps). Each of lpml's actors steps several environments together, as it does by default.
"""

from __future__ import annotations

import time

from benchmarks.common import PYTHONS, Measure, arguments, installed, report, row, run_once

ACTORS = 2
WARM = 10.0  # seconds between the first step and the measurement
SCRIPTS = {"lpml": "lpml_agents.py", "acme": "acme_peer.py"}
TARGETS = {"dqn": 10.0, "impala": 5.0, "ppo": 5.0}
NAMES = {"dqn": "DQN on CartPole", "impala": "IMPALA on Catch", "ppo": "PPO on CartPole"}


def rate(name: str, target: float | None = None, against: str = "acme") -> Measure:
    return Measure(name, "/s", lower_is_better=False, target=target, against=against)


def measures(agent: str) -> dict[str, Measure]:
    """{key of the answer: measure}"""
    name = NAMES[agent]
    return {
        "actor_steps": rate(f"{name}: actor steps", TARGETS[agent]),
        "learner_steps": rate(f"{name}: learner steps"),
        "first_step_seconds": Measure(f"{name}: command to first actor step", "s", against="acme"),
        "memory": Measure(f"{name}: memory of an actor", "B", against="acme"),
        "stop_seconds": Measure(f"{name}: stop", "s", against="acme"),
    }


def ask(peer: str, agent: str, seconds: float) -> dict[str, float]:
    began = time.time()
    words = (agent, ACTORS, WARM, seconds)
    found = run_once(PYTHONS[peer], SCRIPTS[peer], *words, timeout=300.0) or {}
    if "first_step_at" in found:
        found["first_step_seconds"] = found["first_step_at"] - began
    return found


def show(measure: Measure) -> None:
    """A line as soon as there is something to say."""
    peers = ["lpml", *(peer for peer in measure.values if peer != "lpml")]
    print(" | ".join(row(measure, peers)), flush=True)


def side_by_side(agent: str, peers: list[str], repeats: int, seconds: float) -> list[Measure]:
    found = measures(agent)
    for _ in range(repeats):
        for peer in peers:
            for key, value in ask(peer, agent, seconds).items():
                if key in found:
                    found[key].add(peer, value)
    kept = [measure for measure in found.values() if measure.values]
    for measure in kept:
        show(measure)
    return kept


def against_a_loop(repeats: int, seconds: float) -> list[Measure]:
    """The learner of the distributed agent, and the same updates in a jitted loop.

    Where cores are few, actors, replay and evaluator take theirs from the learner, and the loop
    has them all. So there are two programs: all at work, and the actors at rest.
    """
    found = {
        "dqn": rate("DQN: learner steps, all at work, and a loop alone", 0.8, "loop"),
        "learner": rate("DQN: learner steps, actors at rest, and a loop alone", 0.8, "loop"),
    }
    for _ in range(repeats):
        for agent, measure in found.items():
            alone = run_once(PYTHONS["lpml"], SCRIPTS["lpml"], "loop")
            together = ask("lpml", agent, seconds)
            if alone and together:
                measure.add("lpml", together["learner_steps"])
                measure.add("loop", alone["learner_steps"])
    for measure in found.values():
        show(measure)
    return list(found.values())


def stops(count: int) -> Measure:
    """Runs that are started and stopped again."""
    measure = Measure(f"DQN: the longest of {count} stops", "s", against="")
    found = run_once(PYTHONS["lpml"], SCRIPTS["lpml"], "stops", count, timeout=900.0)
    if found:
        measure.add("lpml", found["longest"])
        print(f"{found['clean']:.0f} of {count} stops were clean; median {found['median']:.2f} s")
    show(measure)
    return measure


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--stops", type=int, default=20, help="how many runs are stopped")
    options = parser.parse_args()
    peers = ["lpml", *installed(["acme"])]
    lines: list[Measure] = []
    for agent in NAMES:
        if options.only in agent:
            lines += side_by_side(agent, peers, options.repeats, options.seconds)
    if options.only in "loop":
        lines += against_a_loop(options.repeats, options.seconds)
    if options.only in "stops":
        lines.append(stops(options.stops))
    report("agents", lines, options.json)


if __name__ == "__main__":
    main()
