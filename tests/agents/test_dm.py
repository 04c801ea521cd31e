"""Environments of dm_env: how their episodes end."""

from __future__ import annotations

from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from lpml.agents.dm import DmSingle, make_dm
from lpml.agents.gym import make_gym
from lpml.agents.serial import SerialEnvironment
from tests.agents.stepping import F32, act, column


class Old(dm_env.Environment):  # type: ignore[misc]  # it has no types
    """Counts; its episodes end after 3 steps, for good where the seed is even."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.time = 3

    def reset(self) -> dm_env.TimeStep:
        self.time = 0
        return dm_env.restart(self.observe())

    def step(self, action: Any) -> dm_env.TimeStep:
        if self.time == 3:
            return self.reset()
        assert action in (4, 5)
        self.time += 1
        if self.time < 3:
            return dm_env.transition(float(self.time), self.observe())
        if self.seed % 2:
            return dm_env.truncation(3.0, self.observe())
        return dm_env.termination(3.0, self.observe())

    def observe(self) -> Any:
        return {"seed": self.seed, "time": [np.array([self.time], np.int64)]}

    def observation_spec(self) -> Any:
        return {"seed": specs.Array((), np.float64), "time": [specs.Array((1,), np.int64)]}

    def action_spec(self) -> Any:
        return specs.BoundedArray((), np.int32, 4, 5)


def test_environments_of_dm_env_end_for_good_or_by_time() -> None:
    environment = SerialEnvironment([DmSingle(Old(0)), DmSingle(Old(1))])
    observation = environment.reset(5)
    assert observation["seed"].tolist() == [0, 1]
    assert environment.spec.num_actions == 2
    assert environment.spec.observation == {
        "seed": jax.ShapeDtypeStruct((), F32),
        "time": (jax.ShapeDtypeStruct((1,), np.dtype(np.int32)),),
    }
    steps = act(environment, 4)
    assert [step.arrival["time"][0].ravel().tolist() for step in steps] == [
        [1, 1], [2, 2], [3, 3], [1, 1],
    ]  # fmt: skip
    assert steps[2].observation["time"][0].tolist() == [[0], [0]]
    assert [step.discount.tolist() for step in steps] == [[1, 1], [1, 1], [0, 1], [1, 1]]
    assert [step.last.tolist() for step in steps] == [[0, 0], [0, 0], [1, 1], [0, 0]]
    assert column(steps, "reward", 0) == [1, 2, 3, 1]


def test_environments_of_dm_env_are_made_with_seeds_of_their_own() -> None:
    seeds = [make_dm(Old, 3, seed).reset()["seed"].tolist() for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1]
    assert len({*seeds[0], *seeds[2]}) == 6


def test_time_cuts_episodes_off_and_the_discount_stays() -> None:
    olds = make_dm(Old, 2, max_episode_steps=2)
    olds.reset()
    steps = act(olds, 4)
    assert column(steps, "last", 0) == [0, 1, 0, 1]
    assert column(steps, "discount", 0) == [1, 1, 1, 1]
    poles = make_gym("CartPole-v1", 1, max_episode_steps=3)
    poles.reset()
    assert column(act(poles, 4), "last", 0) == [0, 0, 1, 0]
