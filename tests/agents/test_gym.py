"""Environments of gymnasium: when episodes begin, and what becomes of their spaces."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from lpml.agents.gym import GymSingle, GymVector
from lpml.agents.serial import SerialEnvironment
from lpml.errors import UsageError
from lpml.nodes.environment import AbstractEnvironment
from lpml.nodes.replay import Adder, CutTransitions, Fifo, Replay, Step, TableConfig, Transitions
from tests.agents.stepping import F32, act, column


class Clock(gymnasium.Env[Any, Any]):
    """Observes the time; ends for good after `ends` steps, or is cut off after `cut` of them."""

    def __init__(self, ends: int = 9, cut: int = 9, observation: spaces.Space[Any] | None = None):
        self.observation_space = observation or spaces.Box(0, 99, (1,), np.float64)
        self.action_space = spaces.Discrete(3, start=5)
        self.ends, self.cut = ends, cut
        self.taken: list[int] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert isinstance(action, int | np.integer)
        self.taken.append(int(action))
        self.time += 1
        return self.observe(), 10.0 + self.time, self.time == self.ends, self.time == self.cut, {}

    def observe(self) -> Any:
        return np.array([self.time], np.float64)


def clocks() -> list[Clock]:
    """The first is cut off after 2 steps, the second ends for good after 3."""
    return [Clock(cut=2), Clock(ends=3)]


def vector(mode: AutoresetMode, envs: list[Clock], **options: Any) -> GymVector:
    makers = [functools.partial(_same, env) for env in envs]
    return GymVector(SyncVectorEnv(makers, autoreset_mode=mode, **options))


def _same(env: Clock) -> Clock:
    return env


MAKERS: dict[str, Callable[[], AbstractEnvironment]] = {
    "single": lambda: SerialEnvironment([GymSingle(env) for env in clocks()]),
    "same step": lambda: vector(AutoresetMode.SAME_STEP, clocks()),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_an_episode_that_begins_in_the_step_that_ended_one_keeps_both_observations(
    kind: str,
) -> None:
    environment = MAKERS[kind]()
    first = environment.reset(0)
    assert (first.dtype, first.tolist()) == (F32, [[0], [0]])
    steps = act(environment, 4)
    assert column(steps, "arrival", 0) == [1, 2, 1, 2]
    assert column(steps, "observation", 0) == [1, 0, 1, 0]
    assert column(steps, "last", 0) == column(steps, "begins", 0) == [0, 1, 0, 1]
    assert column(steps, "discount", 0) == [1, 1, 1, 1]  # time cut it off: go on from the arrival
    assert column(steps, "reward", 0) == [11, 12, 11, 12]
    assert column(steps, "arrival", 1) == [1, 2, 3, 1]
    assert column(steps, "observation", 1) == [1, 2, 0, 1]
    assert column(steps, "discount", 1) == [1, 1, 0, 1]  # it ended for good
    assert all(step.valid.all() for step in steps)


def test_an_episode_that_begins_in_a_step_of_its_own_ignores_the_action_there() -> None:
    environment = vector(AutoresetMode.NEXT_STEP, clocks())
    environment.reset(0)
    steps = act(environment, 5)
    assert column(steps, "observation", 0) == column(steps, "arrival", 0) == [1, 2, 0, 1, 2]
    assert column(steps, "last", 0) == [0, 1, 0, 0, 1]
    assert column(steps, "begins", 0) == [0, 0, 1, 0, 0]
    assert column(steps, "valid", 0) == [1, 1, 0, 1, 1]
    assert column(steps, "discount", 0) == [1, 1, 1, 1, 1]
    assert column(steps, "observation", 1) == [1, 2, 3, 0, 1]
    assert column(steps, "discount", 1) == [1, 1, 0, 1, 1]
    assert column(steps, "valid", 1) == [1, 1, 1, 0, 1]
    environment.reset()
    assert act(environment, 1)[0].valid.all()  # nothing of the episodes before is left


@pytest.mark.parametrize("mode", AutoresetMode.__members__.values())
def test_a_learner_sees_the_same_transitions_in_either_mode(mode: AutoresetMode) -> None:
    if mode == AutoresetMode.DISABLED:
        with pytest.raises(UsageError, match=r"DISABLED.*NEXT_STEP or"):
            vector(mode, clocks())
        return
    environment = vector(mode, clocks())
    assert transitions(environment) == {
        (0.0, 11.0, 1.0, 1.0),
        (1.0, 12.0, 1.0, 2.0),  # observation, reward, discount, next observation
        (2.0, 13.0, 0.0, 3.0),
    }


def transitions(environment: AbstractEnvironment) -> set[tuple[float, ...]]:
    """All different ones of twelve steps, as a replay gives them."""
    spec, zero = environment.spec, np.float32(0)
    signature = Step(spec.observation, spec.action, zero, zero)
    table = TableConfig(
        "t", signature, 99, view=Transitions(1, 1.0), sampler=Fifo(), max_times_sampled=1
    )
    replay = Replay([table])
    adder = Adder(replay, {"t": CutTransitions(1)}, num_envs=environment.num_envs)
    observation, begins = environment.reset(0), np.ones(environment.num_envs, bool)
    action = np.zeros(environment.num_envs, np.int32)
    for _ in range(12):
        if begins.any():
            adder.first(observation, begins)
        step = environment.step(action)
        adder.add(action, step.reward, step.discount, step.arrival, last=step.last, envs=step.valid)
        observation, begins = step.observation, step.begins
    adder.close()
    data = replay.sample("t", replay.statistics().tables["t"].size).data
    columns = [data.observation[:, 0], data.reward, data.discount, data.next_observation[:, 0]]
    return set(zip(*[one.tolist() for one in columns], strict=True))


def test_actions_are_counted_from_where_the_space_begins() -> None:
    env = Clock()
    for environment in (
        SerialEnvironment([GymSingle(env)]),
        vector(AutoresetMode.SAME_STEP, [env]),
    ):
        environment.reset(0)
        environment.step(np.array([2], np.int32))
    assert env.taken == [7, 7]
    assert environment.spec.num_actions == 3


def test_arrays_that_were_returned_are_not_written_again() -> None:
    for copy in (True, False):
        environment = vector(AutoresetMode.SAME_STEP, clocks(), copy=copy)
        environment.reset(0)
        first, _ = act(environment, 2)
        assert first.observation.tolist() == [[1], [1]]


class Nested(Clock):
    def __init__(self) -> None:
        space = spaces.Dict(
            where=spaces.Tuple([spaces.Discrete(3, start=-1), spaces.MultiBinary(2)]),
            image=spaces.Box(0, 255, (2, 2, 1), np.uint8),
        )
        super().__init__(cut=2, observation=space)

    def observe(self) -> Any:
        bits = np.array([self.time, 0], np.int8)
        image = np.full((2, 2, 1), self.time, np.uint8)
        return {"where": (np.int64(self.time - 1), bits), "image": image}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, None])
def test_nested_observations_become_trees_and_numbers_become_one_hot(
    mode: AutoresetMode | None,
) -> None:
    if mode is None:
        environment: AbstractEnvironment = SerialEnvironment(
            [GymSingle(Nested()) for _ in range(2)]
        )
    else:
        environment = GymVector(SyncVectorEnv([Nested] * 2, autoreset_mode=mode))
    spec = environment.spec.observation
    assert str(jax.tree.structure(spec)) == "PyTreeDef({'image': *, 'where': (*, *)})"
    environment.reset(0)
    arrival = act(environment, 2)[1].arrival
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape[1:], array.dtype), arrival)
    assert shapes == spec
    assert arrival["where"][0].tolist() == [[0, 0, 1]] * 2
    assert arrival["image"][0].ravel().tolist() == [2] * 4


class Push(gymnasium.Env[Any, Any]):
    """Observes what it was pushed with."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.Box(np.array([-1, -2.0]), np.array([1, 2.0]), dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return action.astype(np.float32), 0.0, False, False, {}


def test_continuous_actions_are_clipped_to_their_bounds() -> None:
    several = SyncVectorEnv([Push], autoreset_mode=AutoresetMode.SAME_STEP)
    for environment in (SerialEnvironment([GymSingle(Push())]), GymVector(several)):
        environment.reset(0)
        step = environment.step(np.array([[3, -1.5]], np.float32))
        assert step.observation.tolist() == [[1, -1.5]]
        assert environment.spec.num_actions is None
        assert environment.spec.high is not None
        assert environment.spec.high.tolist() == [1, 2]


def test_spaces_that_cannot_be_learned_from_are_refused() -> None:
    text = Clock(observation=spaces.Text(5))
    with pytest.raises(UsageError, match=r"observations Text.*no fixed shape"):
        GymSingle(text)
    many = Clock()
    many.action_space = spaces.MultiDiscrete([2, 2])
    with pytest.raises(UsageError, match=r"actions MultiDiscrete.*wrap"):
        GymSingle(many)


def test_environments_of_different_kinds_do_not_go_together() -> None:
    with pytest.raises(UsageError, match=r"environment 1 has float32\[2\], float32\[2\], env"):
        SerialEnvironment([GymSingle(Clock()), GymSingle(Push())])
    with pytest.raises(UsageError, match="at least one"):
        SerialEnvironment([])
