"""Environments by their names: CartPole, Catch, and what is said of names that are not known."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from lpml.agents.cartpole import CartPole
from lpml.agents.catch import Catch
from lpml.agents.environments import make_environment
from lpml.agents.gym import make_gym
from lpml.errors import UsageError
from tests.agents.stepping import balance


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
