"""A simulator as a service: a node that asks another for rollouts, beside acting in one loop.

    python -m benchmarks.on_device_service [--repeats 5] [--num-envs 1024]

Rollouts of CartPole, 32 ticks in each of E environments, in which nobody learns. "lpml" is two
nodes, each a process of its own (`local_mp`): one holds a `VectorSimulator`, the other asks it for
one rollout after another, sends the parameters each time and gets all rows as arrays of the host.
"In process" is the same method, called in the node that holds the simulator. "Fused" is a node with
the same rollout in one jitted loop, whose rows never leave the device: Anakin that acts and does
nothing else. All nodes have the same resources, so each has one thread of its own. Each is asked
for 8 rollouts at a time; steps are those that the simulator counted. Actions are drawn at random,
where moving the rows weighs most, or are those of PPO's network, with what PPO records beside them.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import lpml
from benchmarks.common import Measure, arguments, report
from benchmarks.on_device import ITERATIONS, LENGTH, random_policy, simulated
from benchmarks.rates import compared, looped
from lpml.agents.jax_environments import simulation_named
from lpml.agents.ppo import PPOConfig
from lpml.nodes import VectorSimulator
from lpml.nodes.acting import Policy
from lpml.nodes.roles import Params
from lpml.programs.on_device import make_builder

ENVIRONMENT = "jax/CartPole-v1"
POLICIES = ("random", "ppo")


def acting(policy: str, num_envs: int) -> tuple[Policy, Params]:
    """How actions are chosen, and the parameters for it, of the host."""
    environment = simulation_named(ENVIRONMENT)
    if policy == "random":
        return random_policy(environment), ()
    builder = make_builder("ppo", ENVIRONMENT, num_envs, PPOConfig())
    algorithm = builder.algorithm(environment.spec)
    variables = algorithm.variables(algorithm.init(jax.random.key(0)))
    return builder.policy(environment.spec), jax.tree.map(np.asarray, variables)


def make_simulator(policy: str, num_envs: int) -> VectorSimulator:
    """The node that is asked."""
    chosen, _ = acting(policy, num_envs)
    return VectorSimulator(simulation_named(ENVIRONMENT), num_envs, policy=chosen, length=LENGTH)


class Asker:
    """The node that asks."""

    def __init__(self, simulator: VectorSimulator, policy: str, num_envs: int) -> None:
        self._simulator = simulator
        self._params = acting(policy, num_envs)[1]

    def steps(self) -> int:
        """Asks for as many rollouts as a call of the fused loop makes; how many steps they had."""
        before = self._simulator.statistics().steps
        for _ in range(ITERATIONS):
            self._simulator.rollout(self._params)
        return self._simulator.statistics().steps - before


def make_in_process(policy: str, num_envs: int) -> Asker:
    """The node that asks a simulator of its own."""
    return Asker(make_simulator(policy, num_envs), policy, num_envs)


class Fused:
    """The node that has it all in one loop."""

    def __init__(self, policy: str, num_envs: int) -> None:
        chosen, params = acting(policy, num_envs)
        environment = simulation_named(ENVIRONMENT)
        self._steps = looped(*simulated(environment, chosen, num_envs, params))

    def steps(self) -> int:
        """Of one call of the device."""
        return self._steps()


def measured(name: str, policy: str, num_envs: int, repeats: int) -> list[Measure]:
    """All three in turn; nodes that are not asked wait."""
    p = lpml.Program("service")
    with p.group("simulator"):
        simulator = p.add_node(lpml.Node(make_simulator, policy, num_envs))
    with p.group("asker"):
        p.add_node(lpml.Node(Asker, simulator, policy, num_envs))
    with p.group("in_process"):
        p.add_node(lpml.Node(make_in_process, policy, num_envs))
    with p.group("fused"):
        p.add_node(lpml.Node(Fused, policy, num_envs))
    with lpml.launch(p, "local_mp") as run:
        clients: dict[str, Any] = {
            "lpml": run.client("asker/0"),
            "in process": run.client("in_process/0"),
            "fused": run.client("fused/0"),
        }
        peers = {peer: client.steps for peer, client in clients.items()}
        return compared(name, peers, repeats, against="fused", target=0.5, by_work=False)


def main() -> None:
    parser = arguments(__doc__, 5)
    parser.add_argument("--num-envs", type=int, default=1024)
    options = parser.parse_args()
    measures: list[Measure] = []
    for policy in POLICIES:
        name = f"service, {options.num_envs} environments, {policy}"
        if options.only in name:
            measures += measured(name, policy, options.num_envs, options.repeats)
    report("simulator as a service", measures, options.json)


if __name__ == "__main__":
    main()
