"""Environments of gymnax and brax: lpml's rollouts beside what these packages do by themselves.

    python -m benchmarks.on_device_bare [--repeats 5] [--only gymnax] [--num-envs 64 1024]

"Bare" has nothing of lpml: `gymnax.make(NAME)`'s own `step`, vectorised, and brax's own training
wrapper, both in a `lax.scan` of 32 steps with actions drawn at random. They begin an episode in the
step that ended one; gymnax draws a new one each time, brax goes back to the first state that an
environment ever had. lpml draws a new one, keeps the last observation, sums the returns and looks
for numbers that are not finite; only its ticks that are steps are counted. All rows of all rollouts
are computed and written on both sides. A package that is not installed is left out, and named.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import jax

from benchmarks.common import Measure, arguments, report
from benchmarks.on_device import ITERATIONS, LENGTH, random_policy, simulated, total, unseen
from benchmarks.rates import Call, compared, looped
from lpml.agents.jax_environments import simulation_named
from lpml.nodes.updates import strong

ENVIRONMENTS = (
    "gymnax/CartPole-v1",
    "gymnax/Breakout-MinAtar",
    "brax/inverted_pendulum",
    "brax/ant:spring",
)
MOST_ON_CPU = {"brax": 64}  # environments there: one call of more takes a minute


def bare_gymnax(name: str, num_envs: int) -> tuple[Call, Any]:
    """Its own step, which begins an episode where one ended; and a first state."""
    import gymnax  # type: ignore[import-not-found,import-untyped,unused-ignore]

    environment, params = gymnax.make(name)
    reset = jax.vmap(environment.reset, in_axes=(0, None))
    step = jax.vmap(environment.step, in_axes=(0, 0, 0, None))
    draw = jax.vmap(environment.action_space(params).sample)

    def tick(carry: Any, _: None) -> Any:
        state, observation, key = carry
        key, act_key, step_key = jax.random.split(key, 3)
        action = draw(jax.random.split(act_key, num_envs))
        new, state, reward, terminated, truncated, _ = step(
            jax.random.split(step_key, num_envs), state, action, params
        )
        return (state, new, key), (observation, action, reward, terminated, truncated)

    key = jax.random.key(0)
    observation, state = jax.jit(reset)(jax.random.split(key, num_envs), params)
    return scanned(tick, num_envs), (state, observation, key)


def bare_brax(name: str, num_envs: int) -> tuple[Call, Any]:
    """The environment in the wrapper that brax trains with; and a first state."""
    from brax import envs  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from brax.envs.wrappers import training  # type: ignore[import-not-found,unused-ignore]

    own, _, backend = name.partition(":")
    environment = envs.get_environment(own, **({"backend": backend} if backend else {}))
    wrapped = training.wrap(environment, episode_length=1000)

    def tick(carry: Any, _: None) -> Any:
        state, key = carry
        key, act_key = jax.random.split(key)
        action = jax.random.uniform(
            act_key, (num_envs, environment.action_size), minval=-1.0, maxval=1.0
        )
        new = wrapped.step(state, action)
        row = state.obs, action, new.reward, new.done, new.info["truncation"]
        return (new, key), row

    key = jax.random.PRNGKey(0)
    state = strong(jax.jit(wrapped.reset)(jax.random.split(key, num_envs)))  # compiled only once
    return scanned(tick, num_envs), (state, key)


def scanned(tick: Any, num_envs: int) -> Call:
    """So many rollouts of so many ticks in one jitted call."""

    @jax.jit
    def call(carry: Any) -> Any:
        def one(carry: Any, _: None) -> Any:
            carry, rows = jax.lax.scan(tick, carry, None, LENGTH)
            return carry, total(rows)

        carry, found = jax.lax.scan(one, carry, None, ITERATIONS)
        return carry, num_envs * LENGTH * ITERATIONS + unseen(found)

    return call


BARE = {"gymnax": bare_gymnax, "brax": bare_brax}


def main() -> None:
    parser = arguments(__doc__, 5)
    parser.add_argument("--num-envs", type=int, nargs="+", default=[64, 1024])
    options = parser.parse_args()
    measures: list[Measure] = []
    on_cpu = jax.default_backend() == "cpu"
    for missing in (package for package in BARE if importlib.util.find_spec(package) is None):
        print(f"not measured: {missing}; pip install 'lpml[{missing}]'", file=sys.stderr)
    for env in ENVIRONMENTS:
        package, _, own = env.partition("/")
        for num_envs in options.num_envs:
            name = f"{env}, {num_envs} environments"
            most = MOST_ON_CPU.get(package, num_envs) if on_cpu else num_envs
            if options.only not in name or num_envs > most:
                continue
            if importlib.util.find_spec(package) is not None:
                environment = simulation_named(env)
                peers = {
                    "lpml": looped(*simulated(environment, random_policy(environment), num_envs)),
                    "bare": looped(*BARE[package](own, num_envs)),
                }
                measures += compared(name, peers, options.repeats, against="bare")
    report("simulators of other packages", measures, options.json)


if __name__ == "__main__":
    main()
