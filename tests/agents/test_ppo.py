"""PPO: what its policy records, what an update learns from, and that it learns."""

from __future__ import annotations

import dataclasses
import functools
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.agents import normalisation
from lpml.agents.ppo import PPOBuilder, PPOConfig, recommended
from lpml.agents.ppo.learner import loss, make_rows, observe
from lpml.agents.ppo.networks import Network, make_network
from lpml.errors import UsageError
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Experience
from lpml.nodes.replay import Adder, Replay, Sequence, Step

LIMIT = np.array([2.0], np.float32)
VECTOR = jax.ShapeDtypeStruct((3,), jnp.float32)
DISCRETE = EnvironmentSpec(VECTOR, jax.ShapeDtypeStruct((), jnp.int32), num_actions=3)
BOUNDED = EnvironmentSpec(
    VECTOR, jax.ShapeDtypeStruct((1,), jnp.float32), low=-LIMIT, high=LIMIT, name="bounded"
)
FREE = EnvironmentSpec(VECTOR, jax.ShapeDtypeStruct((1,), jnp.float32))
SPECS = {"discrete": DISCRETE, "bounded": BOUNDED, "free": FREE}
SMALL = PPOConfig(
    unroll_length=11, batch_size=4, epochs=1, minibatches=1, hidden=(8,), normalise_returns=True
)

Reward = Callable[[jax.Array, jax.Array], jax.Array]


def matched(observation: jax.Array, action: jax.Array) -> jax.Array:
    """1 for the action that the observation names."""
    return (jnp.argmax(observation, -1) == action).astype(jnp.float32)


def near(observation: jax.Array, action: jax.Array) -> jax.Array:
    """Best at 1 or at -1, as the observation says."""
    return -((action[..., 0] - jnp.sign(observation[..., 0])) ** 2)


def rollouts(
    builder: PPOBuilder, spec: EnvironmentSpec, reward: Reward, variables: Any, key: jax.Array
) -> Experience:
    """Windows with an episode of four steps in every five rows; half of them are cut off."""
    config = builder.config
    shape = (config.batch_size, config.unroll_length + 1)
    observation_key, action_key = jax.random.split(key)
    observation = jax.random.normal(observation_key, (*shape, 3))
    flat = observation.reshape(-1, 3)
    out = builder.policy(spec).act(variables, action_key, flat, ())
    action = out.action.reshape(*shape, *spec.action.shape)
    extras = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), out.extras)
    place = jnp.broadcast_to(jnp.arange(shape[1]), shape)
    acted, ends = place % 5 != 4, place % 10 == 3
    discount = (acted & ~ends).astype(jnp.float32)
    rewards = jnp.where(acted, reward(observation, action), 0.0)
    steps = Step(observation, action, rewards, discount, {**extras, "valid": acted})
    ones = jnp.ones(shape[0])
    mask: Any = jnp.ones(shape, bool)
    return Experience(Sequence(steps, mask), ones, jnp.float32(shape[0]))


class Made(NamedTuple):
    """The jitted parts of an agent."""

    init: Any
    update: Any
    variables: Any
    act: Any
    evaluate: Any
    rollouts: Any
    network: Network


def quick_jit(function: Any) -> Any:
    """Compiled sooner, for what runs a few times."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": "0"})


@functools.cache
def made(kind: str) -> Made:
    """Of the small agent; compiled once for all tests."""
    spec, builder = SPECS[kind], PPOBuilder(SMALL)
    algorithm = builder.algorithm(spec)
    reward = matched if spec.num_actions else near
    network = make_network(SMALL, spec)
    return Made(
        init=quick_jit(algorithm.init),
        update=quick_jit(algorithm.update),
        variables=algorithm.variables,
        act=quick_jit(builder.policy(spec).act),
        evaluate=quick_jit(builder.policy(spec, evaluation=True).act),
        rollouts=quick_jit(functools.partial(rollouts, builder, spec, reward)),
        network=dataclasses.replace(network, apply=quick_jit(network.apply)),
    )


@functools.cache
def started(kind: str) -> tuple[Any, Experience]:
    """A learner's state after one update, and rollouts of its policy."""
    agent = made(kind)
    state = agent.init(jax.random.key(0))
    state, _ = agent.update(state, agent.rollouts(agent.variables(state), jax.random.key(1)))
    return state, agent.rollouts(agent.variables(state), jax.random.key(2))


def valid_of(experience: Experience) -> jax.Array:
    valid: jax.Array = experience.data.mask & experience.data.steps.extras["valid"]
    return valid


def same(one: Any, other: Any) -> bool:
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    return np.array_equal(one, other)


@pytest.mark.parametrize("kind", SPECS)
def test_the_policy_records_what_the_tables_hold(kind: str) -> None:
    spec, builder, agent = SPECS[kind], PPOBuilder(SMALL), made(kind)
    policy, variables = builder.policy(spec), agent.variables(agent.init(jax.random.key(0)))
    observation = np.ones((5, 3), np.float32)
    out = agent.act(variables, jax.random.key(1), observation, policy.init(5))
    kept = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), out.extras)
    assert kept == policy.extras
    assert (out.action.shape, out.action.dtype) == ((5, *spec.action.shape), spec.action.dtype)
    assert np.isfinite(out.scores).all()
    (table,) = builder.tables(spec)
    one = Step(observation, out.action, np.float32(0), np.float32(0), out.extras)
    table.signature.flatten(one, "test")


@pytest.mark.parametrize("kind", SPECS)
def test_an_evaluation_does_not_explore(kind: str) -> None:
    agent = made(kind)
    variables = agent.variables(agent.init(jax.random.key(0)))
    observation = jax.random.normal(jax.random.key(1), (5, 3))

    def actions(act: Any, seed: int) -> list[Any]:
        chosen = act(variables, jax.random.key(seed), observation, ()).action
        return [np.asarray(chosen).tolist()]

    assert actions(agent.evaluate, 0) == actions(agent.evaluate, 1)
    assert len({str(actions(agent.act, seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize("kind", SPECS)
def test_the_first_gradient_is_taken_at_the_policy_that_acted(kind: str) -> None:
    _, update = made(kind).update(*started(kind))
    assert float(update.metrics["lag_kl"]) == pytest.approx(0, abs=1e-6)
    assert float(update.metrics["kl"]) == pytest.approx(0, abs=1e-6)
    assert float(update.metrics["clip_fraction"]) == 0
    assert float(update.metrics["valid"]) == pytest.approx(9 / 11)


def test_a_batch_of_another_policy_shows_as_lag() -> None:
    state, experience = started("discrete")
    key = jax.random.key(3)
    other = jax.tree.map(lambda x: x + jax.random.normal(key, x.shape), state.params)
    _, update = made("discrete").update(state._replace(params=other), experience)
    assert float(update.metrics["lag_kl"]) > 0.01


@pytest.mark.parametrize("kind", ["discrete", "free"])
def test_the_loss_is_that_of_the_paper_over_the_rows_with_an_action(kind: str) -> None:
    state, experience = started(kind)
    other = jax.tree.map(lambda x: 1.1 * x + 0.05, state.params)  # so that ratios are not 1
    network = made(kind).network
    rows, _, _ = make_rows(SMALL, network, state, experience.data.steps, valid_of(experience))
    outputs, value = network.apply(other, rows.observation)
    log_prob = network.head.log_prob(outputs, rows.raw)
    given = [
        np.asarray(x, np.float64)[np.asarray(rows.valid)] for x in (*rows[2:6], log_prob, value)
    ]
    old_log_prob, advantage, target, _, new_log_prob, new_value = given
    advantage = (advantage - advantage.mean()) / advantage.std()
    ratio = np.exp(new_log_prob - old_log_prob)
    surrogate = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage).mean()
    entropy = network.head.entropy(outputs, jax.random.key(0))[rows.valid].mean()
    expected = -surrogate + 0.25 * ((new_value - target) ** 2).mean() - 0.01 * float(entropy)

    total, parts = loss(other, SMALL, network, rows, jax.random.key(0))
    assert float(total) == pytest.approx(expected, rel=1e-4)
    assert float(parts["clip_fraction"]) == pytest.approx((np.abs(ratio - 1) > 0.2).mean())


@pytest.mark.parametrize("kind", SPECS)
def test_nothing_is_learned_from_rows_without_an_action(kind: str) -> None:
    state, experience = started(kind)
    update = made(kind).update
    steps, valid = experience.data.steps, valid_of(experience)

    def spoil(x: jax.Array) -> jax.Array:
        wrong = jnp.full_like(x, 2 if jnp.issubdtype(x.dtype, jnp.integer) else 1e5)
        return jnp.where(valid.reshape(*valid.shape, *[1] * (x.ndim - 2)), x, wrong)

    extras = {name: spoil(x) if name != "valid" else x for name, x in steps.extras.items()}
    spoilt = steps._replace(
        reward=spoil(steps.reward),
        discount=spoil(steps.discount),
        action=spoil(steps.action),
        extras=extras,
    )
    data = Sequence(spoilt, experience.data.mask)
    before, after = update(state, experience), update(state, experience._replace(data=data))
    assert jax.tree.all(jax.tree.map(same, before, after))


def test_advantages_of_windows_from_the_replay_are_those_of_the_episodes() -> None:
    config = PPOConfig(
        unroll_length=4, batch_size=4, hidden=(8,), minibatches=1, normalise_returns=False
    )
    builder = PPOBuilder(config)
    state = quick_jit(builder.algorithm(DISCRETE).init)(jax.random.key(0))
    network = make_network(config, DISCRETE)
    replay = Replay(builder.tables(DISCRETE))
    adder = Adder(replay, builder.cuts(DISCRETE))
    rng = np.random.default_rng(0)
    lengths, cut_off = [3, 1, 6, 4], [True, False, False, True]
    stream: list[tuple[Any, float, bool]] = []  # observation, reward, whether there is an action
    ends: list[tuple[int, int, bool]] = []  # of episodes: first row, last row, whether cut off
    for length, cut in zip(lengths, cut_off, strict=True):
        observations = rng.normal(size=(length + 1, 3)).astype(np.float32)
        rewards = rng.normal(size=length).astype(np.float32)
        ends.append((len(stream), len(stream) + length, cut))
        adder.first(observations[0])
        for t in range(length):
            last = t == length - 1
            extras = {"log_prob": np.float32(-1), "valid": np.bool_(True)}
            discount = 0.0 if last and not cut else 1.0
            adder.add(np.int32(1), rewards[t], discount, observations[t + 1], extras, last=last)
        stream += [(o, r, True) for o, r in zip(observations, rewards, strict=False)]
        stream.append((observations[-1], 0.0, False))
    adder.flush()
    sample = replay.sample("rollouts", 4, timeout=1.0)
    data = jax.tree.map(jnp.asarray, sample.data)
    valid = data.mask & data.steps.extras["valid"]
    rows, _, _ = make_rows(config, network, state, data.steps, valid)

    values = np.asarray(network.apply(state.params, np.stack([row[0] for row in stream]))[1])
    expected = np.zeros(16)
    for first, final, was_cut in ends:
        for t in range(first, min(final, 16)):  # rows of the four windows
            end = min(final, 4 * (t // 4) + 4)  # of the episode, or of the window
            for s in reversed(range(t, end)):
                following = values[s + 1] if s + 1 < final or was_cut else 0.0
                delta = stream[s][1] + 0.99 * following - values[s]
                expected[t] += (0.99 * 0.95) ** (s - t) * delta
    np.testing.assert_array_equal(rows.valid, [row[2] for row in stream[:16]])
    np.testing.assert_allclose(rows.advantage, expected, atol=1e-5)
    np.testing.assert_allclose((rows.target - rows.old_value), expected, atol=1e-5)


def test_statistics_of_observations_are_of_what_was_seen_and_reach_the_policy() -> None:
    agent = made("discrete")
    state = agent.init(jax.random.key(0))
    experience = agent.rollouts(agent.variables(state), jax.random.key(1))
    shifted = experience.data.steps._replace(observation=5 + experience.data.steps.observation)
    data = Sequence(shifted, experience.data.mask)
    state, _ = agent.update(state, experience._replace(data=data))
    seen = np.asarray(shifted.observation[:, :-1])[np.asarray(valid_of(experience)[:, :-1])]
    variables = agent.variables(state)
    assert variables.observations is not None
    np.testing.assert_allclose(variables.observations.mean, seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variables.observations.variance, seen.var(0), rtol=1e-4)
    np.testing.assert_allclose(
        observe(variables.observations, jnp.asarray(seen)),
        (seen - seen.mean(0)) / seen.std(0),
        atol=1e-3,
    )


def test_values_are_predicted_in_deviations_of_the_returns() -> None:
    state, experience = started("free")
    steps = experience.data.steps
    steps = steps._replace(reward=1000 + 50 * steps.reward)
    network = made("free").network
    rows, returns, _ = make_rows(SMALL, network, state, steps, valid_of(experience))
    assert returns is not None
    assert float(jnp.abs(rows.target).max()) < 10
    exact = normalisation.denormalise(returns, rows.target)
    assert float(exact[rows.valid].mean()) > 900


def test_the_learning_rate_falls_to_its_last() -> None:
    per_update = SMALL.steps_per_update
    config = PPOConfig(
        unroll_length=11,
        batch_size=4,
        epochs=2,
        minibatches=2,
        hidden=(8,),
        anneal_steps=2 * per_update,
        anneal_to=0.0,
    )
    algorithm = PPOBuilder(config).algorithm(DISCRETE)
    update = quick_jit(algorithm.update)
    state = quick_jit(algorithm.init)(jax.random.key(0))
    _, experience = started("discrete")
    changed = []
    for _ in range(3):
        before = state.params
        state, _ = update(state, experience)
        changed.append(not jax.tree.all(jax.tree.map(jnp.array_equal, before, state.params)))
    assert changed == [True, True, False]


@pytest.mark.parametrize(
    ("spec", "config", "reward", "best"),
    [
        (DISCRETE, {"shared_torso": True}, matched, 0.9),
        (BOUNDED, {"normalise_returns": True}, near, -0.2),
        (FREE, {"value_clip": 0.2, "squash": False}, near, -0.2),
    ],
)
def test_it_learns_in_one_jitted_loop_with_the_policy(
    spec: EnvironmentSpec, config: dict[str, Any], reward: Reward, best: float
) -> None:
    config = {"entropy_cost": 0.0, "learning_rate": 3e-3, "discount": 0.5, **config}
    builder = PPOBuilder(PPOConfig(unroll_length=32, batch_size=8, hidden=(16,), **config))
    algorithm = builder.algorithm(spec)

    def one(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        experience = rollouts(builder, spec, reward, algorithm.variables(state), key)
        state, _ = algorithm.update(state, experience)
        steps = experience.data.steps
        return state, jnp.sum(steps.reward) / jnp.sum(steps.extras["valid"], dtype=jnp.float32)

    @jax.jit
    def learn(seed: jax.Array) -> jax.Array:
        state = algorithm.init(seed)
        return jax.lax.scan(one, state, jax.random.split(seed, 60))[1]

    rewards = learn(jax.random.key(0))
    assert float(rewards[0]) < best - 0.3
    assert float(rewards[-5:].mean()) > best


def test_a_builder_is_a_value() -> None:
    builder = PPOBuilder(recommended("CartPole-v1"))
    assert pickle.loads(pickle.dumps(builder)) == builder
    assert builder != PPOBuilder(PPOConfig(clip_ratio=0.3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"minibatches": 7}, "do not divide into minibatches=7"),
        ({"epochs": 0}, "epochs=0"),
        ({"discount": 1.5}, "discount=1.5"),
        ({"clip_ratio": 0.0}, "clip_ratio=0.0"),
        ({"entropy_cost": -1.0}, "entropy_cost=-1.0"),
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PPOConfig(**wrong)


def test_actions_that_have_no_head_are_refused() -> None:
    pair = jax.ShapeDtypeStruct((2,), jnp.int32)
    with pytest.raises(UsageError, match="one discrete action or with an array of floats"):
        PPOBuilder(SMALL).tables(EnvironmentSpec(VECTOR, pair, num_actions=4, name="pairs"))
