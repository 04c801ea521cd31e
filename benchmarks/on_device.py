"""Simulators on the device: steps a second, beside the loop that one would write by hand.

    python -m benchmarks.on_device [--repeats 5] [--only anakin] [--env CartPole-v1]
    python -m benchmarks.on_device --scaling --repeats 1     # 64 to 65 536 environments

"By hand" is the bare `lax.scan` over the same functions of environment, policy and update: an
environment that ends begins again in the same step, so every tick is a step, and where time cut an
episode off the rest counts as nothing. "PureJaxRL" is a PPO in that style, which shares no code and
has the same numbers: see `on_device_ppo`. lpml keeps the last observation as a row of its own; only
ticks that are steps are counted. Peers take turns, a second each; compilation is not in it. A line
"by CPU time" has the same turns in steps a second of work: it says who computes more, and other
programs disturb it less, but not who leaves cores idle. What gymnax and brax do without lpml is in
`on_device_bare`, the service in `on_device_service`.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.common import Measure, arguments, report
from benchmarks.on_device_ppo import check, purejax_ppo
from benchmarks.rates import Call, Steps, compared, looped
from lpml.agents.fused import Fused
from lpml.agents.impala import ImpalaConfig
from lpml.agents.jax_environments import simulation_named
from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.nodes import simulation
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.learning import Experience
from lpml.nodes.replay import Sequence, Step
from lpml.nodes.simulation import AbstractSimulation, Simulated, rollout
from lpml.programs.on_device import make_builder

SIZES = (64, 256, 1024, 4096, 16384, 65536)  # of `--scaling`
MOST_ON_CPU = 4096  # environments of an agent there: one call of more takes minutes
ITERATIONS = 8  # rollouts of one call
LENGTH = 32  # ticks of a rollout that nobody learns from


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
        found: Any = total(steps)
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
        return carry, num_envs * length * ITERATIONS + unseen(found)

    key = jax.random.key(0)
    learner = () if algorithm is None else algorithm.init(key)
    state, observation = jax.jit(reset)(jax.random.split(key, num_envs))
    return call, (learner, state, observation, key)


def random_policy(environment: AbstractSimulation) -> Policy:
    """Draws actions, within their bounds, for the speed of the simulation alone."""
    count = environment.spec.num_actions

    def act(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
        del params
        size = jax.tree.leaves(observation)[0].shape[:1]
        if count is not None:
            action = jax.random.randint(key, size, 0, count)
        else:
            spec = environment.spec
            action = jax.random.uniform(key, (*size, *spec.action.shape))
            if spec.low is not None and spec.high is not None:
                low, high = jnp.asarray(spec.low), jnp.asarray(spec.high)
                action = low + (high - low) * action
        return PolicyOutput(action, state, (), action)

    return Policy(lambda num_envs: (), act)


def simulated(
    environment: AbstractSimulation, policy: Policy, num_envs: int, params: Any = ()
) -> tuple[Call, Any]:
    """Rollouts of lpml in one jitted loop, in which nobody learns."""

    @jax.jit
    def call(state: Simulated) -> Any:
        def one(state: Simulated, _: None) -> Any:
            state, data, sums = rollout(environment, policy, params, state, LENGTH)
            return state, (sums.steps, total(data.steps))

        state, (steps, found) = jax.lax.scan(one, state, None, ITERATIONS)
        return state, jnp.sum(steps) + unseen(found)

    lanes = simulation.begin(environment, num_envs, 0)
    return call, Simulated(lanes, policy.init(num_envs), jax.random.key(0))


def total(rows: Any) -> jax.Array:
    """Of all numbers in rows: none of them may be left out by the compiler."""
    return sum((jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(rows)), jnp.zeros(()))


def unseen(found: jax.Array) -> jax.Array:
    """0, for which `found` has to be computed."""
    return 0 * jnp.isnan(found[-1]).astype(jnp.int32)


def main() -> None:
    parser = arguments(__doc__, 5)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--scaling", action="store_true", help="more environments, fewer lines")
    options = parser.parse_args()
    environment = simulation_named(options.env)
    measures: list[Measure] = []
    on_cpu = jax.default_backend() == "cpu"
    agents: list[tuple[str, int]] = [("ppo", 32), ("ppo", 256), ("impala", 32)]
    if options.scaling:
        agents = [("ppo", size) for size in SIZES if size <= MOST_ON_CPU or not on_cpu]
    for agent, num_envs in agents:
        name = f"anakin {agent}, {num_envs} environments"
        if options.only in name:
            peers = trainers(environment, agent, options.env, num_envs)
            measures += compared(name, peers, options.repeats, against="by hand", target=0.95)
    policy = random_policy(environment)
    for num_envs in SIZES if options.scaling else (64, 1024, 16384):
        name = f"simulation, {num_envs} environments"
        if options.only in name:
            peers = {
                "lpml": looped(*simulated(environment, policy, num_envs)),
                "by hand": looped(*by_hand(environment, policy, None, num_envs, LENGTH)),
            }
            measures += compared(name, peers, options.repeats, against="by hand")
    report(f"simulators on the device, {options.env}", measures, options.json)


def trainers(
    environment: AbstractSimulation, agent: str, env: str, num_envs: int
) -> dict[str, Steps]:
    """Who learns, each in its own loop."""
    builder = make_builder(agent, env, num_envs, PPOConfig(), ImpalaConfig(lstm=0))
    made = Fused(builder, environment, num_envs=num_envs, iterations=ITERATIONS)

    def call(state: Any) -> Any:
        state, found = made.call(state)
        return state, found.sums.steps

    policy = builder.policy(environment.spec)
    peers = {
        "lpml": looped(call, made.init(0)),
        "by hand": looped(*by_hand(environment, policy, made.algorithm, num_envs, made.length)),
    }
    if isinstance(builder, PPOBuilder):
        if environment.spec.num_actions is None:
            print(f"{env}: the PPO in PureJaxRL's style has numbered actions only", file=sys.stderr)
        else:
            if num_envs <= 256:  # it is the same code for more, which take minutes
                check(env, num_envs)
            own = purejax_ppo(environment, builder.config, num_envs, ITERATIONS)
            peers["PureJaxRL"] = looped(*own)
    return peers


if __name__ == "__main__":
    main()
