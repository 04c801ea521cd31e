"""First episodes of a learner are cut off at steps of their own, so that phases differ."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.agents.fused import Fused
from lpml.agents.jax_environments import CartPole, Catch, Pendulum, simulation_named
from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.nodes.simulation import begin, staggered, tick

LIMIT = 8


def test_first_episodes_end_anywhere_up_to_the_limit_and_later_ones_at_it() -> None:
    environment = Pendulum(limit=LIMIT)
    lanes = staggered(environment, begin(environment, 256, 0))
    action = jnp.zeros((256, 1))
    step = jax.jit(lambda lanes: tick(environment, lanes, action))
    lengths: list[list[int]] = [[] for _ in range(256)]
    for _ in range(4 * LIMIT):
        lanes, outcome = step(lanes)
        last, steps = np.asarray(outcome.last), np.asarray(lanes.steps)
        assert np.all(np.asarray(outcome.discount)[last] == 1.0), "time cut it off"
        for lane in np.flatnonzero(last):
            lengths[lane].append(int(steps[lane]))
    counts = np.bincount([first for first, *_ in lengths], minlength=LIMIT + 1)
    assert counts[0] == 0
    assert counts[1:].min() >= 16, "half of what each of 8 would have"
    assert {length for _, *later in lengths for length in later} == {LIMIT}


def test_environments_without_a_known_limit_begin_as_they_are() -> None:
    lanes = begin(Catch(), 4, 0)
    assert staggered(Catch(), lanes) is lanes


@pytest.mark.parametrize("name", ["jax/CartPole-v1", "jax/GridWorld", "jax/Pendulum-v1"])
def test_ours_say_their_limit(name: str) -> None:
    environment = simulation_named(name)
    assert environment.spec.max_steps == environment.limit  # type: ignore[attr-defined]


def test_the_loop_of_a_learner_begins_so() -> None:
    builder = PPOBuilder(PPOConfig(hidden=(4,), minibatches=1))
    fused = Fused(builder, CartPole(), num_envs=8, devices=jax.devices()[:1])
    limits = np.asarray(fused.init(0).simulated.lanes.limit)
    assert len(set(limits.tolist())) > 4
    assert limits.min() >= 1
    assert limits.max() <= 500
