"""A distributed agent on lpml's processes, or the update of one alone; as acme_peer.py.

lpml_agents.py dqn|impala|ppo ACTORS WARM SECONDS    prints one JSON object
lpml_agents.py learner ACTORS WARM SECONDS           DQN whose actors rest once 1100 steps are made
lpml_agents.py loop                                  updates of DQN on ready data, alone
lpml_agents.py stops COUNT                           starts a run and stops it, COUNT times
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from lpml.cli.hints import hints
from lpml.launchers.server_process import warm

if __name__ == "__main__" and sys.argv[1] != "loop":
    warm(hints("dqn"))  # before what takes long to import, as the command line does

import lpml
from lpml.agents.dqn import DQNBuilder, DQNConfig
from lpml.agents.impala import ImpalaBuilder, ImpalaConfig
from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.programs.actor_learner import actor_learner

DQN = DQNConfig(
    n_step=1,
    dueling=False,
    samples_per_insert=8.0,
    batch_size=32,
    updates_per_step=16,
    min_replay_size=1000,
    replay_size=1_000_000,
    epsilon_begin=0.05,
)


def program(agent: str, actors: int) -> lpml.Program:
    """The agents with the options that the figures are stated for."""
    if agent == "dqn":
        return actor_learner(DQNBuilder(DQN), "CartPole-v1", num_actors=actors)
    if agent == "learner":  # the limiter asks for so many samples that nothing more is let in
        resting = dataclasses.replace(DQN, samples_per_insert=1e6)
        return actor_learner(
            DQNBuilder(resting), "CartPole-v1", num_actors=actors, evaluation_episodes=0
        )
    if agent == "impala":
        impala = ImpalaConfig(hidden=(64,), lstm=64, sequence_length=20, batch_size=32)
        return actor_learner(ImpalaBuilder(impala), "Catch", num_actors=actors)
    ppo = PPOConfig(unroll_length=32, batch_size=32, epochs=2, minibatches=8)
    return actor_learner(PPOBuilder(ppo), "CartPole-v1", num_actors=actors, envs_per_actor=16)


def resident(pid: int) -> float:
    """Memory of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024.0
    return 0.0


def first_step(counter: Any) -> float:
    """Waits until an actor's steps were counted; when that was."""
    while not counter.get().get("actor_steps", 0):
        time.sleep(0.01)
    return time.time()


def measure(agent: str, actors: int, warm: float, seconds: float) -> dict[str, float]:
    with lpml.launch(program(agent, actors), "local_mp", terminal=False) as run:
        counter = run.client("counter/0")
        first = first_step(counter)
        time.sleep(warm)
        before, began = counter.get(), time.time()
        time.sleep(seconds)
        after, span = counter.get(), time.time() - began
        nodes = [node for node in run.status().nodes if node.group == "actor"]
        memory = statistics.median(resident(node.pid) for node in nodes)
        asked = time.time()
        run.stop("measured")
        stopped = time.time() - asked
    rates = {
        name: (after.get(name, 0) - before.get(name, 0)) / span
        for name in ("actor_steps", "learner_steps")
    }
    return {**rates, "first_step_at": first, "memory": memory, "stop_seconds": stopped}


def loop() -> dict[str, float]:
    """The same updates as the learner's, as many in a call, on one batch that is ready."""
    import jax
    import numpy as np

    from lpml.agents.environments import make_environment
    from lpml.nodes.experience import example_batch
    from lpml.nodes.learning import Experience

    spec = make_environment("CartPole-v1").spec
    builder = DQNBuilder(DQN)
    algorithm, count = builder.algorithm(spec), DQN.updates_per_step
    table = builder.tables(spec)[0]
    sample = example_batch(table, builder.cuts(spec)[table.name], DQN.batch_size)
    one = Experience(sample.data, np.full(DQN.batch_size, 1e-4, np.float32), np.float32(10_000))
    many = jax.device_put(jax.tree.map(lambda x: np.stack([x] * count), one))

    def step(state: Any, batches: Any) -> Any:
        return jax.lax.scan(algorithm.update, state, batches)[0]

    jitted = jax.jit(step, donate_argnums=0)
    state = algorithm.init(jax.random.key(0))
    for _ in range(3):
        state = jitted(state, many)
    jax.block_until_ready(state)
    began, calls = time.perf_counter(), 400
    for _ in range(calls):
        state = jitted(state, many)
    jax.block_until_ready(state)
    return {"learner_steps": calls * count / (time.perf_counter() - began)}


def stops(count: int) -> dict[str, float]:
    """Seconds from the request to stop until nothing is left."""
    spans, clean = [], 0
    for _ in range(count):
        run = lpml.launch(program("dqn", 2), "local_mp", terminal=False)
        first_step(run.client("counter/0"))
        time.sleep(0.5)
        began = time.perf_counter()
        outcome = run.stop("measured")
        spans.append(time.perf_counter() - began)
        clean += outcome.state == "stopped" and "killed" not in outcome.reason
    return {"clean": clean, "median": statistics.median(spans), "longest": max(spans)}


def main(what: str, *words: str) -> None:
    if what == "loop":
        found = loop()
    elif what == "stops":
        found = stops(int(words[0]))
    else:
        found = measure(what, int(words[0]), float(words[1]), float(words[2]))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
