"""Environments: a known trajectory, whoever made the environment and however it resets."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import dm_env
import gymnasium
import jax
import numpy as np
import pytest
from dm_env import specs
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from lpml.agents.cartpole import CartPole
from lpml.agents.catch import Catch
from lpml.agents.dm import DmSingle, make_dm
from lpml.agents.environments import make_environment
from lpml.agents.gym import GymSingle, GymVector, make_gym
from lpml.agents.serial import SerialEnvironment
from lpml.errors import UsageError
from lpml.nodes.environment import AbstractEnvironment, Timestep
from lpml.nodes.replay import Adder, CutTransitions, Fifo, Replay, Step, TableConfig, Transitions

F32 = np.dtype(np.float32)


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


def act(environment: AbstractEnvironment, number: int) -> list[Timestep]:
    action = np.zeros(environment.num_envs, np.int32)
    return [environment.step(action) for _ in range(number)]


def column(steps: list[Timestep], name: str, lane: int) -> list[float]:
    return [float(np.asarray(getattr(step, name))[lane].reshape(())) for step in steps]


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


@pytest.mark.parametrize("num_envs", [1, 8])  # one after the other; by the environment's own form
@pytest.mark.parametrize("name", ["CartPole-v1", "lpml/CartPole-v1", "Catch"])
def test_seeds_repeat_and_every_environment_has_its_own(name: str, num_envs: int) -> None:
    def roll(seed: int) -> np.ndarray[Any, Any]:
        environment = make_environment(name, num_envs, seed)
        rng = np.random.default_rng(0)
        first = environment.reset()
        rows = [first] + [
            environment.step(rng.integers(0, 2, num_envs).astype(np.int32)).observation
            for _ in range(40)
        ]
        environment.close()
        return np.stack(rows)

    one = roll(3)
    assert (roll(3) == one).all()
    assert not (roll(4) == one).all()
    lanes = {one[:, lane].tobytes() for lane in range(num_envs)}
    assert len(lanes) == num_envs


def balance(observation: Any) -> Any:
    """Holds the pole for 500 steps from almost everywhere."""
    return (observation @ np.array([0.05, 0.2, 1, 0.5], np.float32) > 0).astype(np.int32)


@pytest.mark.parametrize("wise", [False, True])
def test_cart_pole_is_that_of_gymnasium(wise: bool) -> None:
    ours = CartPole(1)
    theirs = make_gym("CartPole-v1", 1, vectorisation="native")
    observation = ours.reset(7)
    assert (observation == gymnasium.make_vec("CartPole-v1", 1).reset(seed=7)[0]).all()
    native = gymnasium.make_vec("CartPole-v1", 1)
    assert native.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    native.reset(seed=7)
    rng, lengths, length = np.random.default_rng(1), [], 0
    for _ in range(1100):
        action = balance(observation) if wise else rng.integers(0, 2, 1)
        step = ours.step(action)
        seen, reward, terminated, truncated, _ = native.step(action)
        assert (step.arrival == seen).all()
        assert (step.reward, step.discount) == (reward, 1 - terminated)
        assert step.last == (terminated | truncated)
        length += 1
        if step.last:
            lengths.append(length)
            length = 0
            seen = native.step(action)[0]
        assert (step.observation == seen).all()
        observation = step.observation
    assert theirs.spec.observation == ours.spec.observation
    assert lengths[:2] == [500, 500] if wise else max(lengths) < 100


def test_several_cart_poles_move_as_those_of_gymnasium() -> None:
    ours, native = CartPole(16), gymnasium.make_vec("CartPole-v1", 16)
    assert (ours.reset(3) == native.reset(seed=3)[0]).all()
    rng = np.random.default_rng(1)
    for _ in range(100):
        action = rng.integers(0, 2, 16)
        step, (seen, _, terminated, _, _) = ours.step(action), native.step(action)
        assert (step.arrival == seen).all()
        assert (step.last == terminated).all()
        if step.last.any():
            return
    pytest.fail("no pole fell")


def test_catch_rewards_who_follows_the_ball() -> None:
    environment = Catch(7, seed=1)
    observation = environment.reset()
    assert observation.shape == (7, 10, 5)
    returns, lengths = [], []
    total, length = np.zeros(7), 0
    for _ in range(36):
        ball, paddle = observation[:, :9].sum(1).argmax(1), observation[:, 9].argmax(1)
        step = environment.step(np.sign(ball - paddle) + 1)
        total += step.reward
        length += 1
        observation = step.observation
        if step.last.any():
            assert step.last.all()
            assert not step.discount.any()
            returns += total.tolist()
            lengths.append(length)
            total[:], length = 0, 0
    assert returns == [1.0] * 28
    assert lengths == [9] * 4


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


def test_environments_of_different_kinds_do_not_go_together() -> None:
    with pytest.raises(UsageError, match=r"environment 1 has float32\[2\], float32\[2\], env"):
        SerialEnvironment([GymSingle(Clock()), GymSingle(Push())])
    with pytest.raises(UsageError, match="at least one"):
        SerialEnvironment([])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPole-v7", "version|CartPole-v1"),
        ("CartPol-v1", "did you mean 'CartPole-v1'"),
        ("catch", "did you mean 'Catch'"),
        ("ALE/Pong-v5", "ALE"),
        ("no_such_module:Thing-v0", "no_such_module"),
        ("no_such_module:make", "no_such_module.*PYTHONPATH"),
        ("lpml.agents.catch:Ketch", "Ketch"),
        ("builtins:pow", "AbstractEnvironment of 2"),
    ],
)
def test_a_name_that_is_not_known_says_so(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_environment(name, 2, 1)


def test_no_environments_are_refused() -> None:
    with pytest.raises(UsageError, match="num_envs=0"):
        make_environment("Catch", 0)


def test_a_function_of_yours_makes_environments_by_its_name() -> None:
    environment = make_environment("lpml.agents.catch:Catch", 3, 1)
    assert environment.num_envs == 3


def test_without_gymnasium_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lpml.agents.gym")
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UsageError, match=r"'CartPole-v1'.*pip install 'lpml\[gym\]'"):
        make_environment("CartPole-v1")
    assert make_environment("Catch").spec.num_actions == 3
