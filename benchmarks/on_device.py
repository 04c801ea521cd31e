"""Simulators on the device: steps a second, beside the loop that one would write by hand.

    python -m benchmarks.on_device [--repeats 5] [--only anakin] [--env CartPole-v1]
    python -m benchmarks.on_device --scaling --repeats 1     # 64 to 65 536 environments

"By hand" is the bare `lax.scan` over the same environment, policy and update, in the manner of
PureJaxRL: an environment that ends begins again in the same step, so every tick is a step, and
where time cut an episode off the rest counts as nothing. lpml keeps the last observation as a row
of its own; only ticks that are steps are counted. Each repetition measures both in turn, for a
second each; compilation is not in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import Measure, arguments, report
from lpml.agents.fused import Fused
from lpml.agents.impala import ImpalaConfig
from lpml.agents.jax_environments import simulation_named
from lpml.agents.ppo import PPOConfig
from lpml.nodes import VectorSimulator, simulation
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.learning import Experience
from lpml.nodes.replay import Sequence, Step
from lpml.nodes.simulation import AbstractSimulation, Simulated, rollout
from lpml.programs.on_device import make_builder

SECONDS = 1.0
SIZES = (64, 256, 1024, 4096, 16384, 65536)  # of `--scaling`
MOST_ON_CPU = 4096  # environments of an agent there: one call of more takes minutes
ITERATIONS = 8
Call = Callable[[Any], tuple[Any, Any]]  # state -> (state, steps)


def rate(call: Call, state: Any) -> tuple[Any, float]:
    """Steps a second of repeated calls, and the last state."""
    state, steps = call(state)
    jax.block_until_ready(steps)
    began, total = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        state, steps = call(state)
        total += int(steps)
    return state, total / (time.perf_counter() - began)


def by_hand(
    environment: AbstractSimulation, policy: Policy, algorithm: Any, num_envs: int, length: int
) -> tuple[Call, Any]:
    """The loop without lpml around it, and its first state; `algorithm` `None` = acts only."""
    reset, step = jax.vmap(environment.reset), jax.vmap(environment.step)

    def tick(carry: Any, _: None) -> Any:
        params, state, observation, key = carry
        key, act_key, step_key, reset_key = jax.random.split(key, 4)
        output = policy.act(params, act_key, observation, ())
        keys = jax.random.split(step_key, num_envs)
        new, seen, reward, terminated, truncated = step(state, output.action, keys)
        fresh, first = reset(jax.random.split(reset_key, num_envs))
        last = terminated | truncated

        def choose(a: Any, b: Any) -> Any:
            return jnp.where(last.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        new = jax.tree.map(choose, fresh, new)
        discount = 1.0 - last.astype(jnp.float32)
        row = Step(observation, output.action, reward, discount, output.extras)
        return (params, new, choose(first, seen), key), row

    def iteration(carry: Any, _: None) -> Any:
        learner, state, observation, key = carry
        params: Any = () if algorithm is None else algorithm.variables(learner)
        begin: Any = (params, state, observation, key)
        (_, state, observation, key), rows = jax.lax.scan(tick, begin, None, length)
        end = jax.tree.map(lambda x: jnp.zeros_like(x[0]), rows)._replace(observation=observation)
        steps = jax.tree.map(
            lambda x, y: jnp.swapaxes(jnp.concatenate([x, y[None]]), 0, 1), rows, end
        )
        found: Any = jnp.sum(steps.reward)
        if algorithm is not None:
            mask: Any = jnp.ones((num_envs, length + 1), bool)
            data = Sequence(steps, mask)
            ones = jnp.ones((num_envs,), jnp.float32)
            experience = Experience(data, ones, jnp.float32(num_envs))
            learner, update = algorithm.update(learner, experience)
            found = update.metrics["loss"]
        return (learner, state, observation, key), found

    @jax.jit
    def call(carry: Any) -> Any:
        carry, found = jax.lax.scan(iteration, carry, None, ITERATIONS)
        return carry, jnp.int32(num_envs * length * ITERATIONS) + 0 * found[-1].astype(jnp.int32)

    key = jax.random.key(0)
    learner = () if algorithm is None else algorithm.init(key)
    state, observation = jax.jit(reset)(jax.random.split(key, num_envs))
    return call, (learner, state, observation, key)


def fused(environment: AbstractSimulation, agent: str, env: str, num_envs: int) -> Any:
    """lpml's loop, its first state, and what it is made of."""
    builder = make_builder(agent, env, num_envs, PPOConfig(), ImpalaConfig(lstm=0))
    made = Fused(builder, environment, num_envs=num_envs, iterations=ITERATIONS)

    def call(state: Any) -> Any:
        state, found = made.call(state)
        return state, found.sums.steps

    return call, made.init(0), builder, made


def random_policy(environment: AbstractSimulation) -> Policy:
    """Draws actions, for the speed of the simulation alone."""
    count = environment.spec.num_actions

    def act(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
        del params
        size = jax.tree.leaves(observation)[0].shape[:1]
        if count is not None:
            action = jax.random.randint(key, size, 0, count)
        else:
            action = jax.random.uniform(key, (*size, *environment.spec.action.shape))
        return PolicyOutput(action, state, (), action)

    return Policy(lambda num_envs: (), act)


def simulated(environment: AbstractSimulation, num_envs: int, length: int = 32) -> tuple[Call, Any]:
    """Rollouts of lpml under random actions."""
    policy = random_policy(environment)

    @jax.jit
    def call(state: Simulated) -> Any:
        def one(state: Simulated, _: None) -> Any:
            state, data, sums = rollout(environment, policy, (), state, length)
            return state, (sums.steps, jnp.sum(data.steps.reward))

        state, (steps, _) = jax.lax.scan(one, state, None, ITERATIONS)
        return state, jnp.sum(steps)

    return call, Simulated(simulation.begin(environment, num_envs, 0), (), jax.random.key(0))


def served(environment: AbstractSimulation, num_envs: int, length: int = 32) -> tuple[Call, Any]:
    """Rollouts by the method of the service, as arrays of the host."""
    simulator = VectorSimulator(
        environment, num_envs, policy=random_policy(environment), length=length
    )

    def call(state: Any) -> Any:
        before = simulator.statistics().steps
        simulator.rollout(())
        return state, np.int64(simulator.statistics().steps - before)

    return call, ()


def main() -> None:
    parser = arguments(__doc__, 5)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--scaling", action="store_true", help="more environments, fewer lines")
    options = parser.parse_args()
    environment = simulation_named(options.env)
    measures = []

    def measure(name: str, target: float | None, peers: dict[str, tuple[Call, Any]]) -> None:
        if options.only not in name:
            return
        line = Measure(name, "steps/s", lower_is_better=False, target=target, against="by hand")
        for _ in range(options.repeats):
            for peer, (call, state) in peers.items():
                state, value = rate(call, state)
                peers[peer] = call, state
                line.add(peer, value)
        measures.append(line)

    on_cpu = jax.default_backend() == "cpu"
    agents: list[tuple[str, int]] = [("ppo", 32), ("ppo", 256), ("impala", 32)]
    if options.scaling:
        agents = [("ppo", size) for size in SIZES if size <= MOST_ON_CPU or not on_cpu]
    for agent, num_envs in agents:
        name = f"anakin {agent}, {num_envs} environments"
        if options.only in name:
            call, state, builder, made = fused(environment, agent, options.env, num_envs)
            hand = by_hand(
                environment, builder.policy(environment.spec), made.algorithm, num_envs, made.length
            )
            measure(name, 0.95, {"lpml": (call, state), "by hand": hand})
    policy = random_policy(environment)
    for num_envs in SIZES if options.scaling else (64, 1024, 16384):
        name = f"simulation, {num_envs} environments"
        if options.only in name:
            hand = by_hand(environment, policy, None, num_envs, 32)
            measure(name, None, {"lpml": simulated(environment, num_envs), "by hand": hand})
    name = "service beside fused, 1024 environments"
    if options.only in name and not options.scaling:
        peers = {"lpml": served(environment, 1024), "fused": simulated(environment, 1024)}
        measure(name, 0.5, peers)
    report(f"simulators on the device, {options.env}", measures, options.json)


if __name__ == "__main__":
    main()
