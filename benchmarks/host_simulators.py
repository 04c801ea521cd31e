"""CartPole by whoever steps it: environments alone, and what Sebulba learns from them.

    python -m benchmarks.host_simulators [--repeats 3] [--only training]

Environments are stepped with actions that are there already, through lpml's interface; "bare" is
gymnasium's own vector environment, without lpml around it; "lpml" is the simulator on the device,
"numpy" `lpml/CartPole-v1`. Peers take turns, a second each. Training is PPO with one actor thread,
after all is compiled; frames are steps of the environments that were learned from. EnvPool's are
measured where it is installed.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import lpml
from benchmarks.common import Measure, arguments, report
from benchmarks.on_device import random_policy, served
from lpml.agents import make_environment
from lpml.agents.impala import ImpalaConfig
from lpml.agents.jax_environments import simulation_named
from lpml.agents.ppo import PPOConfig
from lpml.agents.sebulba import Sebulba
from lpml.nodes import VectorSimulator
from lpml.programs.on_device import make_builder

SECONDS = 1.0
SOURCES = {
    "lpml": "jax/CartPole-v1",
    "numpy": "lpml/CartPole-v1",
    "gymnasium": "CartPole-v1",
    **({"envpool": "envpool/CartPole-v1"} if importlib.util.find_spec("envpool") else {}),
}
Steps = Callable[[], int]  # makes some steps; how many


def stepping(name: str, num_envs: int) -> Steps:
    """Steps of the environments through lpml's interface."""
    environment = make_environment(name, num_envs)
    environment.reset()
    actions = np.random.default_rng(0).integers(0, 2, (64, num_envs), np.int32)

    def steps() -> int:
        return sum(int(np.count_nonzero(environment.step(action).valid)) for action in actions)

    return steps


def bare_gymnasium(num_envs: int) -> Steps:
    """Those of gymnasium alone."""
    import gymnasium

    vector = gymnasium.make_vec("CartPole-v1", num_envs)
    vector.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 2, (64, num_envs))

    def steps() -> int:
        for action in actions:
            vector.step(action)
        return num_envs * len(actions)

    return steps


def rate(steps: Steps) -> float:
    """Steps a second."""
    steps()
    began, total = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        total += steps()
    return total / (time.perf_counter() - began)


def training(name: str, num_envs: int, updates: int) -> float:
    """Frames a second that Sebulba learns from, with everything compiled."""
    builder = make_builder("ppo", name, num_envs, PPOConfig(), ImpalaConfig())
    one = jax.local_devices()[:1]
    node = Sebulba(
        builder,
        functools.partial(make_environment, name),
        num_envs=num_envs,
        acting=one,
        learning=one,
        max_updates=updates,
    )
    node.run()
    statistics = node.statistics()
    return statistics.steps / statistics.learner.seconds


def remote(num_envs: int, run: lpml.Run) -> Steps:
    """Rollouts of a simulator in another process."""
    simulator: Any = run.client("simulator/0")

    def steps() -> int:
        data = simulator.rollout(())
        return int(num_envs * (data.mask.shape[1] - 1))  # ticks; about 1 in 23 begins an episode

    return steps


def make_simulator(num_envs: int) -> VectorSimulator:
    """With a policy that draws actions."""
    environment = simulation_named("jax/CartPole-v1")
    return VectorSimulator(environment, num_envs, policy=random_policy(environment), length=32)


def main() -> None:
    options = arguments(__doc__, 3).parse_args()
    measures = []
    for num_envs in (64, 1024):
        name = f"environments, {num_envs}"
        if options.only in name:
            line = Measure(name, "steps/s", lower_is_better=False, target=None, against="bare")
            peers = {peer: stepping(source, num_envs) for peer, source in SOURCES.items()}
            peers["bare"] = bare_gymnasium(num_envs)
            for _ in range(options.repeats):
                for peer, steps in peers.items():
                    line.add(peer, rate(steps))
            measures.append(line)
        name = f"training, {num_envs}"
        if options.only in name:
            line = Measure(name, "frames/s", lower_is_better=False, target=None, against="numpy")
            for _ in range(options.repeats):
                for peer, source in SOURCES.items():
                    line.add(peer, training(source, num_envs, 4096 // num_envs + 4))
            measures.append(line)
    name = "service in another process, 1024"
    if options.only in name:
        line = Measure(name, "ticks/s", lower_is_better=False, target=0.5, against="in process")
        p = lpml.Program("service")
        with p.group("simulator"):
            p.add_node(lpml.Node(make_simulator, 1024))
        with lpml.launch(p, "local_mp") as run:
            call, _ = served(simulation_named("jax/CartPole-v1"), 1024)
            there = remote(1024, run)

            def here() -> int:
                call(())
                return 1024 * 32

            for _ in range(options.repeats):
                line.add("lpml", rate(there))
                line.add("in process", rate(here))
        measures.append(line)
    report("CartPole of several makers", measures, options.json)


if __name__ == "__main__":
    main()
