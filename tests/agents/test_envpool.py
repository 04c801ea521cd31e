"""EnvPool's environments: episodes begin in a step of their own, and time cuts them off."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from lpml.agents import make_environment
from lpml.agents.sebulba import Sebulba
from lpml.errors import UsageError
from tests.agents.stepping import balance
from tests.agents.tiny_windows import WindowBuilder

pytest.importorskip("envpool", reason="needs envpool: pip install 'lpml[envpool]'")


def test_a_fallen_pole_ends_for_good_and_begins_in_a_step_of_its_own() -> None:
    environment = make_environment("envpool/CartPole-v1", 3, 1)
    observation = environment.reset()
    assert observation.shape == (3, 4)
    length = np.zeros(3)
    ends = 0
    for _ in range(60):
        kept = observation.copy()
        step = environment.step(np.ones(3, np.int32))
        assert (observation == kept).all()  # what was returned is not written again
        assert (step.valid == ~step.begins).all()
        length += step.valid
        assert (step.reward == step.valid).all()
        assert not step.discount[step.last].any()
        assert (length[step.last] >= 8).all()
        assert (np.abs(step.arrival[step.last][:, 2]) > 0.2).all()
        assert (np.abs(step.observation[step.begins]) < 0.05).all()
        length[step.last] = 0
        ends += int(step.last.sum())
        observation = step.observation
    assert ends >= 12
    environment.close()


def test_time_cuts_an_episode_off_and_the_discount_stays() -> None:
    environment = make_environment("envpool/CartPole-v1", 2, 5)
    observation = environment.reset()
    step = environment.step(balance(observation))
    for _ in range(498):
        step = environment.step(balance(step.observation))
    assert not step.last.any()
    step = environment.step(balance(step.observation))
    assert step.last.all()
    assert step.discount.all()
    after = environment.step(balance(step.observation))
    assert after.begins.all()
    assert not after.valid.any()
    assert not after.reward.any()
    environment.close()


def test_a_seed_gives_the_same_episodes_again() -> None:
    environment = make_environment("envpool/CartPole-v1", 2, 3)
    first = environment.reset()
    other = make_environment("envpool/CartPole-v1", 2, 4)
    assert not (other.reset() == first).any()
    assert (other.reset(3) == first).all()
    assert not (other.reset() == first).any()  # goes on with other episodes
    assert len({row.tobytes() for row in first}) == 2


def test_frames_of_atari_have_their_channels_last() -> None:
    environment = make_environment("envpool/Pong-v5", 2, 0)
    assert environment.spec.observation == jax.ShapeDtypeStruct((84, 84, 4), np.dtype(np.uint8))
    frames = environment.reset()
    assert frames.shape == (2, 84, 84, 4)
    step = environment.step(np.zeros(2, np.int32))
    assert (step.observation[..., :3] == frames[..., 1:]).all()  # the newest frame is the last
    environment.close()


def test_continuous_actions_have_bounds() -> None:
    spec = make_environment("envpool/Pendulum-v1", 1, 0).spec
    assert spec.num_actions is None
    assert spec.low is not None
    assert spec.low.tolist() == [-2]


def test_a_task_that_envpool_does_not_know_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"CartPol-v1.*did you mean 'CartPole-v1'"):
        make_environment("envpool/CartPol-v1")


def test_sebulba_learns_from_it() -> None:
    one = jax.local_devices()[:1]
    make = functools.partial(make_environment, "envpool/Catch-v0")
    node = Sebulba(WindowBuilder(), make, max_updates=4, acting=one, learning=one)
    node.run()
    statistics = node.statistics()
    assert statistics.learner.updates == 4
    assert statistics.steps == 4 * 4 * 8 - statistics.episodes
