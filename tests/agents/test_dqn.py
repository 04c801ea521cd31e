"""DQN: its losses against float64 numpy, its update, how it explores, what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.agents import make_environment, train
from lpml.agents.dqn import DQNBuilder, DQNConfig, losses
from lpml.agents.dqn.builder import TABLE, exploration, explore
from lpml.agents.dqn.networks import combine, make_network
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Experience
from lpml.nodes.replay import Replay, Transition

B, A = 6, 3
SMALL = DQNConfig(hidden_sizes=(8,), batch_size=B)


def make_spec(observation: Any = None, num_actions: int | None = A) -> EnvironmentSpec:
    if observation is None:
        observation = jax.ShapeDtypeStruct((4,), jnp.float32)
    dtype = jnp.float32 if num_actions is None else jnp.int32
    return EnvironmentSpec(observation, jax.ShapeDtypeStruct((), dtype), num_actions, name="toy")


def make_experience(seed: int = 0, batch_size: int = B) -> Experience:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return rng.normal(size=(batch_size, *shape)).astype(np.float32)

    data = Transition(
        observation=normal(4),
        action=rng.integers(0, A, batch_size).astype(np.int32),
        reward=normal(),
        discount=rng.choice([0.0, 0.95], batch_size).astype(np.float32),
        next_observation=normal(4),
    )
    probability = rng.uniform(0.01, 0.1, batch_size).astype(np.float32)
    return Experience(data, jnp.asarray(probability), jnp.float32(50))


# losses


def test_the_double_error_takes_the_action_of_one_network_and_the_value_of_the_other() -> None:
    error = losses.td_error(
        q_tm1=jnp.array([1.0, 2.0, 3.0]),
        action_tm1=jnp.int32(1),
        reward_t=jnp.float32(0.5),
        discount_t=jnp.float32(0.9),
        target_q_t=jnp.array([10.0, 20.0, 30.0]),
        selector_q_t=jnp.array([0.0, 1.0, 0.5]),
    )
    assert error == pytest.approx(0.5 + 0.9 * 20 - 2)


def test_the_target_has_no_gradient() -> None:
    def square(q_tm1: jax.Array, target: jax.Array, selector: jax.Array) -> jax.Array:
        action, reward, discount = jnp.int32(0), jnp.float32(1), jnp.float32(0.9)
        return losses.td_error(q_tm1, action, reward, discount, target, selector) ** 2

    q = jnp.array([1.0, 2.0, 3.0])
    of_q, of_target, of_selector = jax.grad(square, argnums=(0, 1, 2))(q, q, q)
    assert of_q.tolist() == pytest.approx([-2 * (1 + 0.9 * 3 - 1), 0, 0])
    assert not of_target.any()
    assert not of_selector.any()


def test_errors_of_a_batch_equal_those_in_float64() -> None:
    rng = np.random.default_rng(0)
    q, target, selector = rng.normal(size=(3, 50, A)) * 10
    action, discount = rng.integers(0, A, 50), rng.choice([0.0, 0.951], 50)
    reward = rng.normal(size=50)
    rows = np.arange(50)
    expected = reward + discount * target[rows, selector.argmax(1)] - q[rows, action]
    given = [jnp.asarray(x, jnp.float32) for x in (q, reward, discount, target, selector)]
    q32, reward32, discount32, target32, selector32 = given
    error = jax.vmap(losses.td_error)(
        q32, jnp.asarray(action, jnp.int32), reward32, discount32, target32, selector32
    )
    np.testing.assert_allclose(error, expected, rtol=1e-5, atol=1e-5)


def test_values_of_a_whole_batch_are_refused() -> None:
    q, scalar = jnp.zeros((B, A)), jnp.float32(0)
    with pytest.raises(ValueError, match=r"\(6, 3\).*jax\.vmap"):
        losses.td_error(q, jnp.int32(0), scalar, scalar, q, q)


@pytest.mark.parametrize(
    ("error", "delta", "expected"),
    [(0.0, 1.0, 0.0), (0.5, 1.0, 0.125), (-1.0, 1.0, 0.5), (-3.0, 1.0, 2.5), (5.0, 2.0, 8.0)],
)
def test_huber_is_half_the_square_and_then_linear(
    error: float, delta: float, expected: float
) -> None:
    assert losses.huber(jnp.float32(error), delta) == pytest.approx(expected)
    slope = jax.grad(losses.huber)(jnp.float32(error), delta)
    assert slope == pytest.approx(np.clip(error, -delta, delta))


def test_importance_weights_make_up_for_how_often_an_item_is_drawn() -> None:
    probability = np.array([0.001, 0.01, 0.1, 0.5])
    weights = losses.importance_weights(
        jnp.asarray(probability, jnp.float32), jnp.float32(200), 0.4
    )
    expected = (200 * probability) ** -0.4
    np.testing.assert_allclose(weights, expected / expected.max(), rtol=1e-5)
    assert weights.tolist() == pytest.approx([1.0, 0.39810717, 0.15848932, 0.08325532])
    uniform = losses.importance_weights(jnp.full(4, 0.005, jnp.float32), jnp.float32(200), 1.0)
    assert uniform.tolist() == pytest.approx([1, 1, 1, 1])


def test_losses_equal_those_of_rlax() -> None:
    rlax = pytest.importorskip("rlax")
    rng = np.random.default_rng(1)
    q, target, selector = jnp.asarray(rng.normal(size=(3, 50, A)), jnp.float32)
    action = jnp.asarray(rng.integers(0, A, 50), jnp.int32)
    reward, discount = jnp.asarray(rng.normal(size=(2, 50)), jnp.float32)
    mine = jax.vmap(losses.td_error)(q, action, reward, discount, target, selector)
    theirs = jax.vmap(rlax.double_q_learning)(q, action, reward, discount, target, selector)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    mine = jax.vmap(losses.td_error)(q, action, reward, discount, target, target)
    theirs = jax.vmap(rlax.q_learning)(q, action, reward, discount, target)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(losses.huber(mine, 0.5), rlax.huber_loss(mine, 0.5), rtol=1e-5)


# networks


@pytest.mark.parametrize(
    "observation",
    [
        jax.ShapeDtypeStruct((4,), jnp.float32),
        jax.ShapeDtypeStruct((10, 5), jnp.float32),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((12, 12, 3), jnp.uint8),
        {"a": jax.ShapeDtypeStruct((2,), jnp.float32), "b": jax.ShapeDtypeStruct((), jnp.uint8)},
    ],
    ids=["vector", "board", "number", "image", "tree"],
)
def test_values_have_a_row_for_each_observation(observation: Any) -> None:
    network = make_network(make_spec(observation), SMALL)
    params = jax.eval_shape(network.init, jax.random.key(0))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((5, *x.shape), x.dtype), observation)
    values = jax.eval_shape(network.apply, params, batch)
    assert (values.shape, values.dtype) == ((5, A), jnp.float32)


def test_a_plain_head_has_no_value_stream() -> None:
    for dueling in (True, False):
        network = make_network(make_spec(), dataclasses.replace(SMALL, dueling=dueling))
        params = jax.eval_shape(network.init, jax.random.key(0))
        assert ("value" in params) == dueling


def test_the_mean_of_dueling_values_is_the_value_stream() -> None:
    value, advantage = jnp.array([[2.0], [5.0]]), jnp.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    values = combine(value, advantage)
    assert values.tolist() == [[0, 1, 5], [5, 5, 5]]


# updates


def reference_loss(apply: Any, config: DQNConfig, params: Any, target: Any, e: Experience) -> Any:
    """The loss and the errors, in float64 from the values of the network."""
    data, rows = e.data, np.arange(len(e.probability))
    q, q_t = (apply(params, x) for x in (data.observation, data.next_observation))
    q, q_t = np.asarray(q, np.float64), np.asarray(q_t, np.float64)
    target_q = np.asarray(apply(target, data.next_observation), np.float64)
    chosen = (q_t if config.double else target_q).argmax(1)
    error = data.reward + data.discount * target_q[rows, chosen] - q[rows, data.action]
    size = np.abs(error)
    huber = np.where(size <= 1, error**2 / 2, size - 0.5)
    weights = (float(e.size) * np.asarray(e.probability, np.float64)) ** -config.importance_exponent
    return (weights / weights.max() * huber).mean(), error


@pytest.mark.parametrize("double", [True, False])
def test_an_update_has_the_loss_and_the_priorities_of_its_errors(double: bool) -> None:
    config = dataclasses.replace(SMALL, double=double)
    algorithm = DQNBuilder(config).algorithm(make_spec())
    apply, update = jax.jit(make_network(make_spec(), config).apply), jax.jit(algorithm.update)
    state, other = (jax.jit(algorithm.init)(jax.random.key(seed)) for seed in (0, 1))
    state = state._replace(target_params=other.params)
    for seed in range(3):
        experience = make_experience(seed)
        value, error = reference_loss(apply, config, state.params, other.params, experience)
        state, outcome = update(state, experience)
        assert float(outcome.metrics["loss"]) == pytest.approx(value, rel=1e-5)
        expected = np.abs(error) + config.min_priority
        np.testing.assert_allclose(outcome.priorities, expected, rtol=1e-4)


def test_the_target_network_is_a_copy_of_some_updates_ago() -> None:
    algorithm = DQNBuilder(dataclasses.replace(SMALL, target_period=2)).algorithm(make_spec())
    update, states = jax.jit(algorithm.update), [algorithm.init(jax.random.key(0))]
    for seed in range(4):
        states.append(update(states[-1], make_experience(seed))[0])
    copied_from = [0, 0, 2, 2, 4]
    for state, source in zip(states, copied_from, strict=True):
        jax.tree.map(np.testing.assert_array_equal, state.target_params, states[source].params)
    assert [int(state.updates) for state in states] == [0, 1, 2, 3, 4]


def test_updates_on_one_batch_lower_its_errors() -> None:
    config = dataclasses.replace(SMALL, learning_rate=1e-2, target_period=1000)
    algorithm = DQNBuilder(config).algorithm(make_spec())
    update, state = jax.jit(algorithm.update), algorithm.init(jax.random.key(0))
    sizes = []
    for _ in range(200):
        state, outcome = update(state, make_experience())
        sizes.append(float(outcome.metrics["td_error"]))
    assert sizes[-1] < 0.2 * sizes[0]


def test_update_and_policy_are_traced_once() -> None:
    spec, builder = make_spec(), DQNBuilder(SMALL)
    algorithm, policy = builder.algorithm(spec), builder.policy(spec)
    traces = {"update": 0, "act": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            traces[name] += 1
            return function(*args)

        return jax.jit(call)

    update, act = counted("update", algorithm.update), counted("act", policy.act)
    state = algorithm.init(jax.random.key(0))
    for seed in range(3):
        state, _ = update(state, make_experience(seed))
        act(algorithm.variables(state), jax.random.key(seed), np.zeros((2, 4), np.float32), ())
    assert traces == {"update": 1, "act": 1}


# exploration


def epsilon(config: DQNConfig, updates: int, *where: int) -> list[float]:
    values: list[float] = exploration(config, jnp.int32(updates), *(where or (2,))).tolist()
    return values


def test_exploration_falls_with_the_steps_that_updates_stand_for() -> None:
    config = DQNConfig(
        batch_size=128, samples_per_insert=32, epsilon_steps=8000, epsilon_end=0.05
    )  # an update stands for 4 steps
    assert epsilon(config, 0) == pytest.approx([1, 1])
    assert epsilon(config, 1000) == pytest.approx([0.525, 0.525])
    assert epsilon(config, 2000) == pytest.approx([0.05, 0.05])
    assert epsilon(config, 10**6) == pytest.approx([0.05, 0.05])


def test_every_environment_of_every_actor_explores_differently() -> None:
    config = DQNConfig(epsilon_end=0.4, epsilon_spread=7.0)
    found = epsilon(config, 10**6, 2, 0, 2) + epsilon(config, 10**6, 2, 1, 2)
    assert found == pytest.approx([0.4 ** (1 + 7 * i / 3) for i in range(4)], rel=1e-4)


def test_a_share_of_the_actions_is_random() -> None:
    greedy = jnp.full(4000, 2, jnp.int32)
    shares = jnp.where(jnp.arange(4000) < 2000, jnp.float32(0), jnp.float32(0.6))
    actions = np.asarray(explore(jax.random.key(0), greedy, shares, A))
    assert (actions[:2000] == 2).all()
    counts = np.bincount(actions[2000:], minlength=A) / 2000
    np.testing.assert_allclose(counts, [0.2, 0.2, 0.6], atol=0.04)


def test_the_evaluation_policy_takes_the_best_action() -> None:
    spec, builder = make_spec(), DQNBuilder(SMALL)
    algorithm = builder.algorithm(spec)
    variables = algorithm.variables(algorithm.init(jax.random.key(0)))
    observation = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    greedy = builder.policy(spec, evaluation=True).act(
        variables, jax.random.key(0), observation, ()
    )
    assert (greedy.action == greedy.scores.argmax(axis=1)).all()
    exploring = builder.policy(spec).act(variables, jax.random.key(0), observation, ())
    assert (exploring.action != greedy.action).any()  # before the first update, all are random
    assert exploring.action.dtype == spec.action.dtype


# what is refused


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_step": 0},
        {"batch_size": 0},
        {"discount": 1.5},
        {"epsilon_end": -0.1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"priority_exponent": -1.0},
        {"samples_per_insert": 0.0},
        {"hidden_sizes": (64, 0)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_an_option_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(lpml.UsageError, match=f"DQNConfig: {name}=.*; give "):
        DQNConfig(**wrong)


def test_a_table_that_could_never_be_sampled_is_refused_when_it_is_declared() -> None:
    builder = DQNBuilder(DQNConfig(min_replay_size=2000, replay_size=1000))
    with pytest.raises(lpml.UsageError, match=r"could never be sampled.*2000.*at most 1000"):
        builder.tables(make_spec())


@pytest.mark.parametrize("batch_size", [1, 32, 5000])
@pytest.mark.parametrize("samples_per_insert", [0.5, 32.0, 4096.0])
def test_any_batch_can_be_sampled(batch_size: int, samples_per_insert: float) -> None:
    config = DQNConfig(
        batch_size=batch_size, samples_per_insert=samples_per_insert, min_replay_size=1
    )
    builder = DQNBuilder(config)
    replay = Replay(builder.tables(make_spec()))
    batches = builder.batches
    with pytest.raises(TimeoutError):  # it waits for items, and is not refused
        replay.sample(TABLE, batches.batch_size * batches.updates_per_step, 0.0)


def test_continuous_actions_are_refused() -> None:
    spec = make_spec(num_actions=None)
    for make in (DQNBuilder().tables, DQNBuilder().policy, DQNBuilder().algorithm):
        with pytest.raises(lpml.UsageError, match=r"toy.*continuous.*ppo"):
            make(spec)


# what it learns


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_refinements_together_solve_cartpole_where_plain_dqn_does_not() -> None:
    pytest.importorskip("gymnasium")
    plain = DQNConfig(
        double=False,
        dueling=False,
        n_step=1,
        priority_exponent=0.0,
        importance_exponent=0.0,
        target_period=200,
        replay_size=50_000,
    )

    def best(config: DQNConfig, num_steps: int) -> float:
        result = train(
            DQNBuilder(config),
            make_environment("CartPole-v1", 8, 0),
            num_steps=num_steps,
            eval_environment=make_environment("CartPole-v1", 20, 1),
            evaluate_every=2000,
            stop_return=475.0,
        )
        return max(value for _, value in result.curve)

    solved = best(DQNConfig(), 60_000)
    assert solved >= 475
    assert solved > best(plain, 30_000) + 100
