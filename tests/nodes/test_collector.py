"""Rollouts of the host: the same rows as those of the device, however episodes begin."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest

from lpml.errors import NotFinite
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.collector import Collector
from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep
from lpml.nodes.finite import check_observation

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)


class Clocks(AbstractEnvironment):
    """Observes 10 * episode + time. Lane i is cut off after i + 2 steps, lane 0 ends for good.

    Args:
      own_step: an episode begins in a step of its own, not in the one that ended the last.
    """

    def __init__(self, num_envs: int, own_step: bool) -> None:
        self.limits = np.arange(num_envs) + 2
        self.own_step = own_step
        self.closed = False
        self.ended = np.zeros(num_envs, np.bool_)
        self.time = np.zeros(num_envs, np.int64)
        self.episode = np.zeros(num_envs, np.int64)

    @property
    def spec(self) -> EnvironmentSpec:
        action = jax.ShapeDtypeStruct((), I32)
        return EnvironmentSpec(jax.ShapeDtypeStruct((1,), F32), action, num_actions=9)

    @property
    def num_envs(self) -> int:
        return len(self.limits)

    def observe(self) -> npt.NDArray[np.float32]:
        seen: npt.NDArray[np.float32] = (10 * self.episode + self.time).astype(np.float32)[:, None]
        return seen

    def reset(self, seed: int | None = None) -> Any:
        return self.observe()

    def step(self, action: npt.NDArray[Any]) -> Timestep:
        assert (action == self.observe()[:, 0] % 9).all()
        rests = self.ended.copy()
        self.time += ~rests
        self.begin(rests)
        last = (self.time == self.limits) & ~rests
        reward = np.where(rests, 0, self.time).astype(np.float32)
        discount = np.where(last & (self.limits == 2), 0, 1).astype(np.float32)
        arrival = self.observe()
        begins = rests
        if self.own_step:
            self.ended = last
        else:
            self.begin(last)
            begins = last
        return Timestep(self.observe(), reward, discount, last, arrival, begins, ~rests)

    def begin(self, lanes: npt.NDArray[np.bool_]) -> None:
        self.time[lanes] = 0
        self.episode[lanes] += 1

    def close(self) -> None:
        self.closed = True


def act(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
    """The observation as the action; counts the steps of the episode in its state."""
    del key
    action = (observation[:, 0] % 9).astype(jnp.int32)
    extras = {"valid": jnp.ones(action.shape, bool), "count": state}
    return PolicyOutput(action, state + 1, extras, observation * params)


POLICY = Policy(
    lambda num_envs: jnp.zeros((num_envs,), jnp.int32),
    act,
    {"valid": jax.ShapeDtypeStruct((), np.dtype(np.bool_)), "count": jax.ShapeDtypeStruct((), I32)},
)
ONE = np.float32(1)


def rows(collector: Collector, rollouts: int, lane: int) -> list[tuple[float, ...]]:
    """The rows of a lane over several rollouts: observation, action, reward, discount, valid."""
    made: list[tuple[float, ...]] = []
    for _ in range(rollouts):
        data, _ = collector.roll(ONE)
        steps: Any = jax.tree.map(np.asarray, data.steps)
        kept = int(data.mask[lane].sum()) - 1  # the last row comes again
        columns = (
            steps.observation[lane, :, 0],
            steps.action[lane],
            steps.reward[lane],
            steps.discount[lane],
            steps.extras["valid"][lane],
        )
        made += [tuple(float(column[t]) for column in columns) for t in range(kept)]
    return made


@pytest.mark.parametrize("own_step", [True, False])
def test_rows_are_the_same_however_an_episode_begins(own_step: bool) -> None:
    environment = Clocks(3, own_step)
    collector = Collector(environment, POLICY, 6)
    made = rows(collector, 4, lane=1)
    assert made[:9] == [
        (0, 0, 1, 1, 1),
        (1, 1, 2, 1, 1),
        (2, 2, 3, 1, 1),
        (3, 0, 0, 0, 0),  # the last observation of an episode that time cut off
        (10, 1, 1, 1, 1),
        (11, 2, 2, 1, 1),
        (12, 3, 3, 1, 1),
        (13, 0, 0, 0, 0),
        (20, 2, 1, 1, 1),
    ]
    collector.close()
    assert environment.closed


def test_an_episode_that_ends_for_good_has_a_discount_of_0() -> None:
    made = rows(Collector(Clocks(3, True), POLICY, 6), 1, lane=0)
    assert made[:3] == [(0, 0, 1, 1, 1), (1, 1, 2, 0, 1), (2, 0, 0, 0, 0)]


def test_windows_of_environments_that_begin_at_once_are_padded_to_one_length() -> None:
    collector = Collector(Clocks(3, False), POLICY, 6)
    data, sums = collector.roll(ONE)
    assert data.mask.sum(axis=1).tolist() == [7, 6, 6]  # two ends in four steps, and one
    assert not np.asarray(data.steps.extras["valid"])[~np.asarray(data.mask)].any()
    assert (int(sums.steps), int(sums.episodes)) == (12, 4)
    assert data.steps.observation[:, :, 0].tolist() == [
        [0, 1, 2, 10, 11, 12, 20],
        [0, 1, 2, 3, 10, 11, 0],
        [0, 1, 2, 3, 4, 10, 0],
    ]


def test_windows_of_environments_with_a_step_of_their_own_are_full_and_overlap() -> None:
    collector = Collector(Clocks(3, True), POLICY, 5)
    first, sums = collector.roll(ONE)
    second, _ = collector.roll(ONE)
    assert first.mask.all()
    assert first.steps.observation.shape == (3, 6, 1)
    assert (first.steps.observation[:, -1] == second.steps.observation[:, 0]).all()
    assert (int(sums.steps), int(sums.episodes), float(sums.returns)) == (12, 4, 3 + 3 + 6 + 10)
    assert float(sums.lengths) == 2 + 2 + 3 + 4


@pytest.mark.parametrize("own_step", [True, False])
def test_the_state_of_the_policy_begins_anew_with_an_episode(own_step: bool) -> None:
    data, _ = Collector(Clocks(2, own_step), POLICY, 6).roll(ONE)
    steps: Any = data.steps
    valid, count = np.asarray(steps.extras["valid"]), np.asarray(steps.extras["count"])
    times = np.asarray(steps.observation)[:, :, 0] % 10
    assert (count[:, :-1][valid[:, :-1]] == times[:, :-1][valid[:, :-1]]).all()


def test_scores_that_are_not_finite_are_found() -> None:
    with pytest.raises(NotFinite, match="at its step 1 in environments"):
        Collector(Clocks(2, True), POLICY, 4).roll(np.float32(np.nan))


class Broken(AbstractEnvironment):
    """Gives NaN at its third step, in lane 1, in read-only arrays.

    Args:
      where: the field of the step that has it.
      as_tree: observations are trees.
    """

    def __init__(self, where: str, as_tree: bool = False) -> None:
        self._inside = Clocks(3, True)
        self._where = where
        self._as_tree = as_tree
        self._steps = 0

    @property
    def spec(self) -> EnvironmentSpec:
        spec = self._inside.spec
        observation = {"seen": spec.observation} if self._as_tree else spec.observation
        return EnvironmentSpec(observation, spec.action, spec.num_actions, name="Broken-v0")

    @property
    def num_envs(self) -> int:
        return 3

    def reset(self, seed: int | None = None) -> Any:
        return self._tree(self._inside.reset(seed))

    def step(self, action: npt.NDArray[Any]) -> Timestep:
        step = self._inside.step(action)
        self._steps += 1
        if self._steps == 3:
            broken = np.array(getattr(step, self._where))
            broken[1] = np.nan
            broken.flags.writeable = False
            step = step._replace(**{self._where: broken})
        seen = self._tree(step.observation)
        return step._replace(observation=seen, arrival=self._tree(step.arrival))

    def _tree(self, leaf: Any) -> Any:
        return {"seen": leaf} if self._as_tree else leaf


BROKEN = {"reward": "a reward", "observation": "an observation", "arrival": "an observation"}


@pytest.mark.parametrize("where", BROKEN)
@pytest.mark.parametrize("as_tree", [False, True])
def test_an_environment_that_gives_no_finite_number_is_named(where: str, as_tree: bool) -> None:
    def act_on(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
        return act(params, key, observation["seen"] if as_tree else observation, state)

    policy = Policy(POLICY.init, act_on, POLICY.extras)
    collector = Collector(Broken(where, as_tree), policy, 6, seed=5)
    fault = rf"Broken-v0 gave {BROKEN[where]} .* \(nan\) at step 3 .*\[1\] of 3, .* seed 5"
    with pytest.raises(NotFinite, match=fault):
        collector.roll(ONE)


def test_a_reward_that_nobody_learns_from_may_be_anything() -> None:
    environment = Clocks(3, True)
    collector = Collector(environment, POLICY, 4)
    take = environment.step

    def step(action: npt.NDArray[Any]) -> Timestep:
        made = take(action)
        return made._replace(reward=np.where(made.valid, made.reward, np.nan))

    environment.step = step  # type: ignore[method-assign]
    data, _ = collector.roll(ONE)
    assert np.isfinite(np.asarray(data.steps.reward)).all()


@pytest.mark.parametrize("number", [3e38, -3e38])
def test_large_numbers_are_finite(number: float) -> None:
    environment = Clocks(3, True)
    seen = np.full((3, 1), number, np.float32)
    check_observation(environment, seen, 1, 0)
    seen[2] = np.inf
    with pytest.raises(NotFinite, match=r"Clocks gave an observation .*\(inf\).*\[2\] of 3"):
        check_observation(environment, seen, 1, 0)
