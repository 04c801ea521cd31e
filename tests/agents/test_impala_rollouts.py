"""IMPALA's rollouts that run on over the ends of episodes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.agents.impala import ImpalaConfig
from lpml.agents.impala.learner import Extras, batch_loss
from lpml.nodes.replay import Sequence, Step
from tests.agents.small_impala import (
    ACTIONS,
    SMALL,
    Case,
    equation_1,
    networks_of,
    parts_of,
    rollout,
)


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
