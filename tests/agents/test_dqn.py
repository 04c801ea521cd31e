"""DQN: its update, how it explores, what it refuses, and that it learns."""

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
from lpml.agents.dqn import DQNBuilder, DQNConfig
from lpml.agents.dqn.builder import TABLE, exploration, explore
from lpml.agents.dqn.networks import make_network
from lpml.nodes.learning import Experience
from lpml.nodes.replay import Replay
from tests.agents.small_dqn import SMALL, A, make_experience, make_spec

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
