"""CartPole by whoever steps it: environments alone, and what Sebulba learns from them.

    python -m benchmarks.host_simulators [--repeats 3] [--only training]

Environments are stepped with actions that are there already: "lpml" through its interface, "bare"
by the loop over the package's own vector environment. A step that only begins an episode does not
count. Lines "by CPU time" have steps a second of work, of all threads. Training is PPO with one
actor thread, after all is compiled; there "lpml" is the simulator on the device, "numpy"
`lpml/CartPole-v1`, and frames are steps of the environments that were learned from. EnvPool's are
measured where it is installed, and named where not.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.common import Measure, arguments, report
from benchmarks.rates import Steps, compared
from lpml.agents import make_environment
from lpml.agents.impala import ImpalaConfig
from lpml.agents.ppo import PPOConfig
from lpml.agents.sebulba import Sebulba
from lpml.programs.on_device import make_builder

SOURCES = {
    "lpml": "jax/CartPole-v1",
    "numpy": "lpml/CartPole-v1",
    "gymnasium": "CartPole-v1",
    "envpool": "envpool/CartPole-v1",
}
ROWS = 64  # actions that are ready, which are taken again and again


def stepping(name: str, num_envs: int) -> Steps:
    """Steps of the environments through lpml's interface."""
    environment = make_environment(name, num_envs)
    environment.reset()
    actions = np.random.default_rng(0).integers(0, 2, (ROWS, num_envs), np.int32)

    def steps() -> int:
        return sum(int(np.count_nonzero(environment.step(action).valid)) for action in actions)

    return steps


def bare_gymnasium(num_envs: int) -> Any:
    """Its own vector environment."""
    import gymnasium

    return gymnasium.make_vec("CartPole-v1", num_envs)


def bare_envpool(num_envs: int) -> Any:
    """Its own pool, with as many threads as it takes by itself."""
    import envpool  # type: ignore[import-not-found,import-untyped,unused-ignore]

    return envpool.make("CartPole-v1", env_type="gymnasium", num_envs=num_envs, seed=0)


def bare(vector: Any, num_envs: int) -> Steps:
    """Steps of a vector environment that takes a step of its own to begin an episode."""
    vector.reset()
    actions = np.random.default_rng(0).integers(0, 2, (ROWS, num_envs))
    actions = actions.astype(vector.action_space.dtype)

    def steps() -> int:
        ended = 0
        for action in actions:
            _, _, terminated, truncated, _ = vector.step(action)
            ended += int(np.count_nonzero(terminated | truncated))
        return actions.size - ended

    return steps


BARE: dict[str, Callable[[int], Any]] = {"gymnasium": bare_gymnasium, "envpool": bare_envpool}


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


def main() -> None:
    options = arguments(__doc__, 3).parse_args()
    sources = dict(SOURCES)
    if importlib.util.find_spec("envpool") is None:
        print("not measured: envpool; pip install 'lpml[envpool]'", file=sys.stderr)
        del sources["envpool"]
    measures: list[Measure] = []
    for num_envs in (64, 1024):
        for source, env in sources.items():
            name = f"{env}, {num_envs} environments"
            if options.only in name:
                peers = {"lpml": stepping(env, num_envs)}
                if source in BARE:
                    peers["bare"] = bare(BARE[source](num_envs), num_envs)
                measures += compared(name, peers, options.repeats, against="bare")
        name = f"training, {num_envs}"
        if options.only in name:
            line = Measure(name, "frames/s", lower_is_better=False, target=None, against="numpy")
            for _ in range(options.repeats):
                for source, env in sources.items():
                    line.add(source, training(env, num_envs, 4096 // num_envs + 4))
            measures.append(line)
    report("CartPole of several makers", measures, options.json)


if __name__ == "__main__":
    main()
