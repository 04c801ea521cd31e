"""IMPALA: V-trace and the losses against slow references, the network, the algorithm."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.agents.environments import make_environment
from lpml.agents.impala import ImpalaBuilder, ImpalaConfig
from lpml.agents.impala.learner import Extras, batch_loss, make_optimizer
from lpml.agents.impala.losses import (
    baseline_loss,
    entropy_loss,
    log_probability,
    policy_gradient_loss,
    vtrace,
)
from lpml.agents.impala.networks import Networks, make_networks
from lpml.agents.loop import train
from lpml.nodes.acting import Policy
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Algorithm, Experience
from lpml.nodes.replay import Adder, Replay, Sequence, Step

ACTIONS = 3
FLOAT, INT = np.dtype(np.float32), np.dtype(np.int32)
SPEC = EnvironmentSpec(
    observation=jax.ShapeDtypeStruct((4,), FLOAT),
    action=jax.ShapeDtypeStruct((), INT),
    num_actions=ACTIONS,
    name="a small one",
)
SMALL = ImpalaConfig(hidden=(8,), lstm=5, sequence_length=6, batch_size=3, reward_scale=0.1)


@functools.cache
def networks_of(hidden: int, lstm: int) -> Networks:
    """The network for `SPEC`, compiled."""
    networks = make_networks(SPEC, (hidden,), lstm)
    return dataclasses.replace(
        networks,
        init=jax.jit(networks.init),
        step=jax.jit(networks.step),
        unroll=jax.jit(networks.unroll),
    )


TRACES: Counter[ImpalaConfig] = Counter()
"""How often `update` of the agents of `parts_of` was traced."""


@functools.cache
def parts_of(config: ImpalaConfig) -> tuple[Policy, Algorithm]:
    """Of the agent for `SPEC`, compiled."""
    builder = ImpalaBuilder(config)
    policy, algorithm = builder.policy(SPEC), builder.algorithm(SPEC)

    def update(state: Any, batch: Experience) -> Any:
        TRACES[config] += 1
        return algorithm.update(state, batch)

    return (
        dataclasses.replace(policy, act=jax.jit(policy.act)),
        dataclasses.replace(algorithm, init=jax.jit(algorithm.init), update=jax.jit(update)),
    )


class Case(NamedTuple):
    """One rollout, in float64."""

    values: Any
    rewards: Any
    discounts: Any
    ratios: Any


def case(seed: int, length: int, *, valid: Any = None) -> Case:
    rng = np.random.default_rng(seed)
    ratios = np.exp(rng.normal(size=length))
    discounts = 0.9 * (rng.random(length) > 0.2)
    return Case(
        values=rng.normal(size=length + 1),
        rewards=rng.normal(size=length),
        discounts=discounts if valid is None else np.where(valid, discounts, 0),
        ratios=ratios if valid is None else np.where(valid, ratios, 0),
    )


def single(case: Case) -> Case:
    return Case(*map(single_array, case))


def single_array(values: Any) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


def equation_1(
    case: Case, *, lambda_: float = 1.0, clip_rho: float = 1.0, clip_c: float = 1.0
) -> tuple[Any, Any]:
    """V-trace as equation (1) writes it: a double sum of products, in float64."""
    values, rewards, discounts, ratios = case
    length = len(rewards)
    rho, c = np.minimum(ratios, clip_rho), lambda_ * np.minimum(ratios, clip_c)
    targets = values.copy()
    for s in range(length):
        for t in range(s, length):
            before = np.prod([discounts[i] * c[i] for i in range(s, t)])
            delta = rho[t] * (rewards[t] + discounts[t] * values[t + 1] - values[t])
            targets[s] += before * delta
    following = lambda_ * targets[1:] + (1 - lambda_) * values[1:]
    return targets[:-1], rho * (rewards + discounts * following - values[:-1])


# V-trace and the losses


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lambda_": 0.7},
        {"lambda_": 0.0},
        {"clip_rho": 2.0, "clip_c": 0.5},
        {"clip_rho": np.inf, "clip_c": np.inf},
    ],
    ids=str,
)
def test_v_trace_is_equation_1_of_the_paper(options: dict[str, Any]) -> None:
    given = case(3, 17)
    targets, advantages = equation_1(given, **options)
    found = jax.jit(lambda c: vtrace(*c, **options))(single(given))
    np.testing.assert_allclose(found.targets, targets, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.advantages, advantages, rtol=1e-5, atol=1e-5)


def test_on_policy_the_targets_are_the_discounted_rewards_and_the_last_value() -> None:
    given = case(4, 8)._replace(ratios=np.ones(8))
    returns, following = np.zeros(8), given.values[-1]
    for t in reversed(range(8)):
        returns[t] = following = given.rewards[t] + given.discounts[t] * following
    found = vtrace(*single(given))
    np.testing.assert_allclose(found.targets, returns, rtol=1e-5, atol=1e-5)


def test_v_trace_is_that_of_rlax() -> None:
    rlax = pytest.importorskip("rlax")
    given = single(case(5, 20))
    for lambda_ in (1.0, 0.8):
        with jax.numpy_dtype_promotion("standard"):
            theirs = rlax.vtrace_td_error_and_advantage(
                given.values[:-1], given.values[1:], *given[1:], lambda_
            )
        ours = vtrace(*given, lambda_=lambda_)
        np.testing.assert_allclose(ours.advantages, theirs.pg_advantage, rtol=1e-5, atol=1e-5)
        errors = ours.targets - given.values[:-1]
        np.testing.assert_allclose(errors, theirs.errors, rtol=1e-5, atol=1e-5)


def test_the_losses_are_their_formulas_in_float64() -> None:
    rng = np.random.default_rng(6)
    logits, actions = rng.normal(size=(9, ACTIONS)), rng.integers(ACTIONS, size=9)
    advantages, values, targets = rng.normal(size=(3, 9))
    valid = np.asarray(rng.random(9) > 0.3, np.float64)
    log_pi = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    chosen = log_pi[np.arange(9), actions]
    np.testing.assert_allclose(
        log_probability(single_array(logits), jnp.asarray(actions)), chosen, rtol=1e-5
    )
    np.testing.assert_allclose(
        policy_gradient_loss(
            single_array(logits),
            jnp.asarray(actions),
            single_array(advantages),
            single_array(valid),
        ),
        -(valid * advantages * chosen).sum(),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        baseline_loss(single_array(values), single_array(targets), single_array(valid)),
        (valid * (targets - values) ** 2).sum() / 2,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        entropy_loss(single_array(logits), single_array(valid)),
        (valid * (np.exp(log_pi) * log_pi).sum(axis=-1)).sum(),
        rtol=1e-5,
    )


def test_no_gradient_flows_through_targets_and_advantages() -> None:
    given = single(case(7, 5))

    def total(values: Any, ratios: Any) -> jax.Array:
        found = vtrace(values, given.rewards, given.discounts, ratios)
        return jnp.sum(found.targets) + jnp.sum(found.advantages)

    for gradient in jax.grad(total, argnums=(0, 1))(given.values, given.ratios):
        assert not gradient.any()


# Rollouts that run on over the ends of episodes


def rollout(networks: Any, params: Any, seed: int, lengths: list[int], *, first: int = 0) -> Step:
    """Rows of episodes one after another, each with its last observation; `[N, ...]`.

    The behaviour policy is another one than the target's; the states are those of acting with
    `params`. Odd episodes are cut off by time.

    Args:
      first: rows of the first episode that are left out: the rollout begins in its midst.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        state = networks.initial(1)
        for t in range(length + 1):
            observation = rng.normal(size=(1, 4)).astype(np.float32)
            valid, last = t < length, t == length - 1
            discount = 0.0 if (last and number % 2 == 0) or not valid else 1.0
            extras = Extras(
                valid=np.bool_(valid),
                logits=rng.normal(size=ACTIONS).astype(np.float32) * valid,
                state=jax.tree.map(
                    lambda leaf, v=valid: np.asarray(leaf[0]) * np.float32(v), state
                ),
                updates=np.int32(7 * valid),
            )
            action = np.int32(rng.integers(ACTIONS) * valid)
            reward = np.float32(rng.normal() * valid)
            rows.append(Step(observation[0], action, reward, np.float32(discount), extras))
            _, state = networks.step(params, observation, state)
    stacked: Step = jax.tree.map(lambda *leaves: np.stack(leaves), *rows[first:])
    return stacked


def slow_losses(config: ImpalaConfig, networks: Any, params: Any, rows: Step) -> dict[str, float]:
    """Sums over the steps of a rollout, computed episode by episode, step by step, in float64."""
    extras: Extras = rows.extras
    ends = [*np.flatnonzero(~extras.valid[:-1]).tolist(), len(rows.reward) - 1]
    names = ("policy", "baseline", "entropy", "steps")
    sums: dict[str, float] = dict.fromkeys(names, 0.0)
    begin = 0
    for end in ends:  # the row that is looked at for its value only
        state = jax.tree.map(lambda leaf, b=begin: leaf[b : b + 1], extras.state)
        logits, values = [], []
        for row in range(begin, end + 1):
            heads, state = networks.step(params, rows.observation[row : row + 1], state)
            logits.append(np.asarray(heads.logits[0], np.float64))
            values.append(float(heads.value[0]))
        part = slice(begin, end)
        log_pi = np.array([x - np.log(np.exp(x).sum()) for x in logits[:-1]]).reshape(-1, ACTIONS)
        mu = np.asarray(extras.logits[part], np.float64)
        log_mu = mu - np.log(np.exp(mu).sum(axis=-1, keepdims=True))
        places = np.arange(end - begin), rows.action[part]
        ratios = np.exp(log_pi[places] - log_mu[places])
        reward = 0.1 * np.asarray(rows.reward[part], np.float64)
        discount = config.discount * np.asarray(rows.discount[part], np.float64)
        targets, advantages = equation_1(Case(np.array(values), reward, discount, ratios))
        sums["policy"] -= float((advantages * log_pi[places]).sum())
        sums["baseline"] += float(((targets - values[:-1]) ** 2).sum() / 2)
        sums["entropy"] -= float((np.exp(log_pi) * log_pi).sum())
        sums["steps"] += end - begin
        begin = end + 1
    return sums


@pytest.mark.parametrize("lstm", [0, 5])
def test_the_loss_over_ends_of_episodes_is_that_of_each_episode(lstm: int) -> None:
    networks = networks_of(8, lstm)
    params = networks.init(jax.random.key(1))
    # The third rollout ends with the last observation of an episode, the fourth begins with one.
    shapes = [([12], 0), ([3, 1, 20], 2), ([2, 2, 4], 0), ([5, 3, 6], 5)]
    rollouts = [
        jax.tree.map(lambda leaf: leaf[:11], rollout(networks, params, seed, lengths, first=first))
        for seed, (lengths, first) in enumerate(shapes)
    ]
    assert not rollouts[2].extras.valid[-1]
    assert not rollouts[3].extras.valid[0]
    slow = [slow_losses(SMALL, networks, params, rows) for rows in rollouts]
    total = {name: sum(sums[name] for sums in slow) for name in slow[0]}
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *rollouts)
    data = Sequence(batch, np.ones((4, 11), np.bool_))
    _, metrics = jax.jit(lambda p, d: batch_loss(SMALL, networks, p, d))(params, data)
    steps = total["steps"]
    assert steps == batch.extras.valid[:, :-1].sum()
    found = [metrics[name] for name in ("policy_loss", "baseline_loss", "entropy")]
    expected = [total[name] / steps for name in ("policy", "baseline", "entropy")]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    weighted = expected[0] + SMALL.baseline_cost * expected[1] - SMALL.entropy_cost * expected[2]
    np.testing.assert_allclose(metrics["loss"], weighted, rtol=2e-5, atol=2e-5)


def test_rows_beyond_the_end_of_a_short_rollout_do_not_count() -> None:
    networks = networks_of(8, 5)
    params = networks.init(jax.random.key(1))
    rows = rollout(networks, params, 1, [4])  # five rows
    padded = jax.tree.map(lambda leaf: np.concatenate([leaf, np.zeros_like(leaf[:3])]), rows)
    # What is beyond the end is said by the mask; what stands there is no matter.
    padded.extras.valid[:] = True
    padded.extras.valid[4] = False

    @jax.jit
    def loss(rows: Step, mask: Any) -> jax.Array:
        data = Sequence(jax.tree.map(lambda leaf: leaf[None], rows), mask[None])
        return batch_loss(SMALL, networks, params, data)[0]

    whole = loss(rows, np.ones(5, np.bool_))
    cut = loss(padded, np.arange(8) < 5)
    np.testing.assert_allclose(whole, cut, rtol=1e-6)


def test_the_unrolled_network_does_what_acting_step_by_step_does() -> None:
    policy, algorithm = parts_of(SMALL)
    networks = networks_of(8, 5)
    variables = algorithm.variables(algorithm.init(jax.random.key(2)))
    observation = np.random.default_rng(0).normal(size=(10, 2, 4)).astype(np.float32)
    begins = np.zeros((10, 2), np.bool_)
    begins[0] = begins[4, 0] = begins[7, 1] = True
    state, outputs = policy.init(2), []
    for t in range(10):
        state = jax.tree.map(lambda old, t=t: np.where(begins[t][:, None], 0, old), state)
        outputs.append(policy.act(variables, jax.random.key(t), observation[t], state))
        state = outputs[-1].state
    for env in range(2):
        for start in (0, 4):
            first = jax.tree.map(lambda leaf, e=env: leaf[e], outputs[start].extras.state)
            unroll = networks.unroll
            heads = unroll(
                variables.params, observation[start:, env], jnp.asarray(begins[start:, env]), first
            )
            acted = np.stack([out.extras.logits[env] for out in outputs[start:]])
            np.testing.assert_allclose(heads.logits, acted, rtol=1e-5, atol=1e-6)


# The algorithm and the policy


def experience(networks: Any, params: Any, config: ImpalaConfig) -> Experience:
    rows = [
        rollout(networks, params, seed, [4, 9], first=seed % 3) for seed in range(config.batch_size)
    ]
    length = config.sequence_length + 1
    cut = [jax.tree.map(lambda leaf: leaf[:length], one) for one in rows]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *cut)
    ones = jnp.ones(config.batch_size, jnp.float32)
    mask = np.ones((config.batch_size, length), np.bool_)
    return Experience(Sequence(batch, mask), ones, jnp.float32(1))


def test_an_update_compiles_once_and_reports_finite_scalars() -> None:
    _, algorithm = parts_of(SMALL)
    state = algorithm.init(jax.random.key(0))
    networks = networks_of(8, 5)
    batch = experience(networks, state.params, SMALL)
    before = TRACES[SMALL]
    state, outcome = algorithm.update(state, batch)
    for _ in range(2):
        state, outcome = algorithm.update(state, batch)
    assert (before, TRACES[SMALL]) in ((0, 1), (1, 1))
    assert int(state.updates) == int(algorithm.variables(state).updates) == 3
    assert "loss" in outcome.metrics
    for name, value in outcome.metrics.items():
        assert value.shape == (), name
        assert value.dtype == np.float32, name
        assert np.isfinite(value), name
    assert outcome.priorities is None


def test_the_lag_is_that_of_the_steps_between_their_policy_and_the_update() -> None:
    _, algorithm = parts_of(SMALL)
    networks = networks_of(8, 5)
    state = algorithm.init(jax.random.key(0))
    batch = experience(networks, state.params, SMALL)
    updates = batch.data.steps.extras.updates  # 7 in every step
    updates[0][updates[0] == 7] = 3
    _, outcome = algorithm.update(state._replace(updates=jnp.int32(9)), batch)
    steps = batch.data.steps.extras.valid[:, :-1]
    lag = np.where(np.arange(3)[:, None] == 0, 6, 2)
    assert outcome.metrics["max_policy_lag"] == 6
    np.testing.assert_allclose(outcome.metrics["policy_lag"], lag.repeat(6, 1)[steps].mean())


def test_the_learning_rate_falls_to_zero_in_a_line() -> None:
    optimizer = make_optimizer(dataclasses.replace(SMALL, decay_updates=4, rms_decay=0.0))
    params = jnp.zeros((1,))
    state, sizes = optimizer.init(params), []
    for _ in range(6):
        change, state = optimizer.update(jnp.full((1,), 0.5), state, params)
        sizes.append(-np.asarray(change).item() / SMALL.learning_rate)
    np.testing.assert_allclose(sizes, [1, 0.75, 0.5, 0.25, 0, 0], rtol=1e-3)


def test_learning_repeats_itself_for_a_key() -> None:
    _, algorithm = parts_of(SMALL)
    networks = networks_of(8, 5)
    batch = experience(networks, algorithm.init(jax.random.key(0)).params, SMALL)
    first, second, other = (
        algorithm.update(algorithm.init(jax.random.key(seed)), batch)[0].params
        for seed in (0, 0, 1)
    )
    same = jax.tree.map(np.array_equal, first, second)
    assert all(jax.tree.leaves(same))
    assert not np.array_equal(first["torso/~/linear_0"]["w"], other["torso/~/linear_0"]["w"])


def test_the_evaluation_takes_the_most_probable_action_and_the_actor_draws() -> None:
    acting, algorithm = parts_of(SMALL)
    variables = algorithm.variables(algorithm.init(jax.random.key(0)))
    observation = np.repeat(np.ones((1, 4), np.float32), 64, axis=0)
    greedy = ImpalaBuilder(SMALL).policy(SPEC, evaluation=True)
    act = jax.jit(greedy.act)
    best = act(variables, jax.random.key(1), observation, greedy.init(64))
    drawn = acting.act(variables, jax.random.key(1), observation, acting.init(64))
    assert (best.action == np.argmax(best.scores, axis=-1)).all()
    assert set(np.unique(drawn.action)) == set(range(ACTIONS))
    assert drawn.action.dtype == SPEC.action.dtype
    for leaf, one in zip(
        jax.tree.leaves(drawn.extras), jax.tree.leaves(acting.extras), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == ((64, *one.shape), one.dtype)


def test_steps_go_through_the_replay_in_rollouts_that_run_on() -> None:
    builder = ImpalaBuilder(SMALL)
    replay = Replay(builder.tables(SPEC))
    adder = Adder(replay, builder.cuts(SPEC), num_envs=2)
    policy, algorithm = parts_of(SMALL)
    state = algorithm.init(jax.random.key(0))
    memory, begins = policy.init(2), np.ones(2, np.bool_)
    observation = np.ones((2, 4), np.float32)
    for t in range(13):
        if begins.any():
            adder.first(observation, begins)
            memory = jax.tree.map(lambda old, b=begins: np.where(b[:, None], 0, old), memory)
        out = policy.act(algorithm.variables(state), jax.random.key(t), observation, memory)
        memory, begins = out.state, np.array([t == 4, t == 8])
        extras = jax.tree.map(np.asarray, out.extras)
        adder.add(
            np.asarray(out.action), np.ones(2), 1.0 - begins, observation, extras, last=begins
        )
    adder.flush()
    sample = replay.sample("rollouts", 3, 0.0)
    data = sample.data
    assert data.mask.all()
    assert data.steps.reward.shape == (3, 7)
    # One environment's rows: five steps, the last observation, and so on.
    assert data.steps.extras.valid[0].tolist() == [True] * 5 + [False, True]
    assert not data.steps.extras.state.hidden[0, 6].any()
    info = sample.info
    drawn = Experience(data, single_array(info.probabilities), single_array(info.size))
    _, outcome = algorithm.update(state, drawn)
    np.testing.assert_allclose(outcome.metrics["importance_ratio"], 1.0, rtol=1e-5)
    adder.close()


def test_without_a_recurrent_core_there_is_no_state() -> None:
    builder = ImpalaBuilder(ImpalaConfig(hidden=(8, 8), lstm=0))
    policy = builder.policy(SPEC)
    assert policy.init(3) == ()
    assert policy.extras.state == ()


def test_a_tree_of_observations_is_joined() -> None:
    byte = jax.ShapeDtypeStruct((2, 3), np.dtype(np.uint8))
    spec = EnvironmentSpec({"a": byte, "b": jax.ShapeDtypeStruct((), FLOAT)}, SPEC.action, ACTIONS)
    networks = make_networks(spec, (8,), 0)
    params = jax.eval_shape(networks.init, jax.random.key(0))
    assert params["torso/~/linear_0"]["w"].shape == (7, 8)


def test_continuous_actions_are_refused() -> None:
    spec = EnvironmentSpec(SPEC.observation, jax.ShapeDtypeStruct((2,), FLOAT), name="Pendulum-v1")
    with pytest.raises(lpml.UsageError, match=r"Pendulum-v1 are continuous .* take ppo"):
        ImpalaBuilder().policy(spec)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"queue_batches": 0}, {"lstm": -1}, {"hidden": (64, 0)}, {"discount": 2.0}],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(lpml.UsageError, match=next(iter(options))):
        ImpalaConfig(**options)


# Learning


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config", "enough", "steps"),
    [
        ("Catch", ImpalaConfig(), 0.95, 300_000),
        ("CartPole-v1", ImpalaConfig(reward_scale=0.1), 475.0, 400_000),
    ],
)
def test_it_solves(name: str, config: ImpalaConfig, enough: float, steps: int) -> None:
    result = train(
        ImpalaBuilder(config),
        make_environment(name, 16),
        num_steps=steps,
        eval_environment=make_environment(name, 20, seed=1),
        evaluate_every=10_000,
        episodes=40,
        stop_return=enough,
    )
    assert result.final_return >= enough
