"""PPO as one writes it alone, in the style of PureJaxRL: a peer of Anakin's that shares no code.

    python -m benchmarks.on_device_ppo        # does it learn? returns as it goes on

Of lpml it takes an environment's functions, and numbers out of a `PPOConfig`. As in PureJaxRL an
episode that time cut off ends like any other, and neither observations nor returns are normalised.

Reference: Lu et al., "Discovered Policy Optimisation" (2022), whose code is PureJaxRL.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.rates import Call
from lpml.agents.jax_environments import simulation_named
from lpml.agents.ppo import PPOConfig
from lpml.nodes.simulation import AbstractSimulation
from lpml.programs.ppo import adapted


class Rows(NamedTuple):
    """`[T, E, ...]`."""

    observation: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    done: Any


class State(NamedTuple):
    """All that the loop changes."""

    params: Any
    optimizer: Any
    environment: Any
    observation: Any
    key: Any
    total: Any  # [E]: rewards of the episode so far
    returned: Any  # [E]: of the last one that ended


def purejax_ppo(
    environment: AbstractSimulation,
    config: PPOConfig,
    num_envs: int,
    iterations: int,
    seed: int = 0,
) -> tuple[Call, State]:
    """So many rollouts and updates in one jitted call, `state -> (state, steps)`; a first state."""
    reset, step = jax.vmap(environment.reset), jax.vmap(environment.step)
    size, updates = num_envs * config.unroll_length, config.epochs * config.minibatches
    rate: Any = config.learning_rate
    if config.anneal_steps:
        steps = config.anneal_steps // size * updates
        rate = optax.linear_schedule(rate, rate * config.anneal_to, steps)
    clip = optax.clip_by_global_norm(config.max_grad_norm)
    optimizer = optax.chain(clip, optax.adam(rate, eps=config.adam_epsilon))

    def tick(state: State, _: None) -> tuple[State, Rows]:
        key, act_key, step_key, reset_key = jax.random.split(state.key, 4)
        logits, value = network(state.params, state.observation)
        action = jax.random.categorical(act_key, logits)
        new, seen, reward, terminated, truncated = step(
            state.environment, action, jax.random.split(step_key, num_envs)
        )
        done = terminated | truncated
        fresh = reset(jax.random.split(reset_key, num_envs))
        new, seen = jax.tree.map(
            lambda a, b: jnp.where(done.reshape(-1, *[1] * (a.ndim - 1)), a, b), fresh, (new, seen)
        )
        total = state.total + reward
        returned = jnp.where(done, total, state.returned)
        row = Rows(
            state.observation, action, log_prob_of(logits, action), value, reward, done * 1.0
        )
        total = jnp.where(done, 0.0, total)
        return State(state.params, state.optimizer, new, seen, key, total, returned), row

    def advantages(rows: Rows, last_value: Any) -> Any:
        def backward(carry: Any, row: Rows) -> Any:
            advantage, next_value = carry
            goes_on = config.discount * (1.0 - row.done)
            delta = row.reward + goes_on * next_value - row.value
            advantage = delta + goes_on * config.gae_lambda * advantage
            return (advantage, row.value), advantage

        start = jnp.zeros_like(last_value), last_value
        return jax.lax.scan(backward, start, rows, reverse=True, unroll=16)[1]

    def loss(params: Any, rows: Rows, advantage: Any, target: Any) -> Any:
        logits, value = network(params, rows.observation)
        near = rows.value + jnp.clip(value - rows.value, -config.clip_ratio, config.clip_ratio)
        value_loss = 0.5 * jnp.maximum((value - target) ** 2, (near - target) ** 2).mean()
        ratio = jnp.exp(log_prob_of(logits, rows.action) - rows.log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = jnp.clip(ratio, 1.0 - config.clip_ratio, 1.0 + config.clip_ratio)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
        logs = jax.nn.log_softmax(logits)
        entropy = -jnp.sum(jnp.exp(logs) * logs, -1).mean()
        return policy_loss + config.value_cost * value_loss - config.entropy_cost * entropy

    def minibatch(carry: Any, batch: Any) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, *batch)
        changes, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, changes), state), value

    def iteration(state: State, _: None) -> tuple[State, Any]:
        state, rows = jax.lax.scan(tick, state, None, config.unroll_length)
        advantage = advantages(rows, network(state.params, state.observation)[1])
        batch = rows, advantage, advantage + rows.value
        flat = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), batch)

        def epoch(carry: Any, key: Any) -> Any:
            order = jax.random.permutation(key, size)
            parts = jax.tree.map(
                lambda x: x[order].reshape(config.minibatches, -1, *x.shape[1:]), flat
            )
            return jax.lax.scan(minibatch, carry, parts)

        key, epoch_key = jax.random.split(state.key)
        keys = jax.random.split(epoch_key, config.epochs)
        (params, optimized), values = jax.lax.scan(epoch, (state.params, state.optimizer), keys)
        return state._replace(params=params, optimizer=optimized, key=key), values.mean()

    def call(state: State) -> Any:
        state, losses = jax.lax.scan(iteration, state, None, iterations)
        return state, size * iterations + 0 * losses[-1].astype(jnp.int32)

    key, init_key, reset_key = jax.random.split(jax.random.key(seed), 3)
    params = weights(init_key, environment, config.hidden)
    begun, seen = jax.jit(reset)(jax.random.split(reset_key, num_envs))
    zeros = jnp.zeros(num_envs), jnp.zeros(num_envs)
    return jax.jit(call, donate_argnums=0), State(
        params, optimizer.init(params), begun, seen, key, *zeros
    )


def weights(key: Any, environment: AbstractSimulation, hidden: tuple[int, ...]) -> Any:
    """Orthogonal layers of two networks: of actions, and of values."""
    inputs, outputs = environment.spec.observation.size, environment.spec.num_actions
    assert outputs is not None, "only for actions that are numbered"

    def layers(key: Any, last: int, gain: float) -> list[Any]:
        sizes = [inputs, *hidden, last]
        gains = [2**0.5] * len(hidden) + [gain]
        return [
            (jax.nn.initializers.orthogonal(gain)(key, (a, b)), jnp.zeros(b))
            for key, a, b, gain in zip(
                jax.random.split(key, len(gains)), sizes, sizes[1:], gains, strict=False
            )
        ]

    actor, critic = jax.random.split(key)
    return layers(actor, outputs, 0.01), layers(critic, 1, 1.0)


def network(params: Any, observation: Any) -> tuple[Any, Any]:
    """Logits `[N, A]` and values `[N]`."""
    flat = observation.reshape(observation.shape[0], -1)

    def through(layers: Any) -> Any:
        x = flat
        for weight, bias in layers[:-1]:
            x = jnp.tanh(x @ weight + bias)
        return x @ layers[-1][0] + layers[-1][1]

    return through(params[0]), through(params[1])[:, 0]


def log_prob_of(logits: Any, action: Any) -> Any:
    """`[N]`."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], 1)[:, 0]


def returns(env: str, num_envs: int, steps: int, seed: int = 0) -> list[float]:
    """Mean returns of the last episodes, ten times on the way to so many steps."""
    config = adapted(PPOConfig(minibatches=8), env, num_envs)
    call, state = purejax_ppo(simulation_named(env), config, num_envs, 4, seed)
    made, found = 0, list[float]()
    while made < steps:
        state, more = call(state)
        made += int(more)
        if made * 10 >= steps * (len(found) + 1):
            found.append(float(state.returned.mean()))
    return found


def check(env: str, num_envs: int = 32, steps: int = 300_000, seed: int = 0) -> None:
    """Says how it learns, and ends the program if it does not: then it is no peer."""
    found = returns(env, num_envs, steps, seed)
    shown = ", ".join(f"{value:.3g}" for value in found)
    print(
        f"PPO by itself, seed {seed}, returns in {steps} steps of {env}: {shown}", file=sys.stderr
    )
    if not sum(found[-3:]) / 3 > found[0]:
        sys.exit(f"{env}: the PPO that lpml is compared with does not learn")


if __name__ == "__main__":
    for seed in range(3):
        check("CartPole-v1", seed=seed)
