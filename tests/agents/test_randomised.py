"""Domain randomisation: drawn in each episode, the same from the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.agents.jax_environments import CartPole, Pendulum, Randomised
from lpml.nodes import replay_keys
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.simulation import AbstractSimulation, begin, begin_episodes

RANGES = (("half_length", 0.3, 0.9), ("limit", 20, 22))


def test_every_environment_and_every_episode_draws_its_own() -> None:
    environment = Randomised(CartPole(), RANGES)
    lanes = begin(environment, 64, 1)
    other = begin_episodes(environment, lanes.root, lanes.episode + 1)
    lengths, limits = lanes.state.drawn
    assert len(np.unique(lengths)) == 64
    assert 0.3 <= lengths.min() < 0.4 < 0.8 < lengths.max() <= 0.9
    assert set(np.asarray(limits).tolist()) == {20, 21, 22}
    assert not np.isin(other.state.drawn[0], lengths).any()
    np.testing.assert_array_equal(lengths[:8], begin(environment, 8, 1).state.drawn[0])


def test_an_episode_is_that_of_the_environment_with_the_numbers_that_were_drawn() -> None:
    environment = Randomised(CartPole(), RANGES)
    state, first = environment.reset(replay_keys(5, 0))
    again, _ = environment.reset(replay_keys(5, 0))
    assert [float(x) for x in state.drawn] == [float(x) for x in again.drawn]
    length, limit = float(state.drawn[0]), int(state.drawn[1])
    plain = CartPole(half_length=length, limit=limit)
    inner, same = plain.reset(replay_keys(5, 0))
    np.testing.assert_array_equal(first, same)
    moves = jax.jit(environment.step), jax.jit(plain.step)
    for number in range(limit):
        action, key = jnp.int32(number % 2), replay_keys(5, number + 1)
        state, seen, *_, cut_off = moves[0](state, action, key)
        inner, wanted, *_ = moves[1](inner, action, key)
        np.testing.assert_allclose(seen, wanted, rtol=1e-5, atol=1e-6)
        assert bool(cut_off) == (number + 1 == limit)


def test_it_is_drawn_with_the_numbers_of_the_episode() -> None:
    environment = Randomised(CartPole(), RANGES)
    state, _ = environment.reset(replay_keys(5, 0))
    plain = CartPole(half_length=float(state.drawn[0]))
    picture = environment.render(state)
    np.testing.assert_array_equal(picture, plain.render(state.inner))
    assert (picture != CartPole().render(state.inner)).any()


@dataclass(frozen=True)
class Undrawn(AbstractSimulation):
    """A pendulum that nobody can look at."""

    mass: float = 1.0

    @property
    def spec(self) -> EnvironmentSpec:
        return Pendulum().spec

    def reset(self, key: jax.Array) -> Any:
        return Pendulum(mass=self.mass).reset(key)

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> Any:
        return Pendulum(mass=self.mass).step(state, action, key)


def test_what_does_not_draw_itself_says_so() -> None:
    environment = Randomised(Undrawn(), (("mass", 0.5, 2.0),))
    state, _ = environment.reset(replay_keys(5, 0))
    with pytest.raises(lpml.UsageError, match="Undrawn has no way to draw it"):
        environment.render(state)


def test_fields_and_bounds_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(lpml.UsageError, match="no field 'masss'; did you mean 'mass'"):
        Randomised(Pendulum(), (("masss", 0.5, 2.0),))
    with pytest.raises(lpml.UsageError, match="mass between 2"):
        Randomised(Pendulum(), (("mass", 2.0, 0.5),))
