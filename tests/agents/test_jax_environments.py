"""Our simulations against environments that are known, those of other packages by stand-ins."""

from __future__ import annotations

import pickle
import sys
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.agents import make_environment
from lpml.agents.jax_environments import (
    SIMULATIONS,
    CartPole,
    GridWorld,
    Pendulum,
    simulation_named,
)
from lpml.agents.jax_environments import Catch as JaxCatch
from lpml.agents.jax_environments.episodic import EpisodicEnvironment
from lpml.agents.jax_environments.gymnax import GymnaxEnvironment

KEY = jax.random.key(0)


def test_cartpole_moves_as_gymnasiums_does() -> None:
    theirs: Any = gymnasium.make("CartPole-v1").unwrapped
    observation, _ = theirs.reset(seed=3)
    state, _ = CartPole().reset(KEY)
    x, x_dot, theta, theta_dot = (jnp.float32(value) for value in theirs.state)
    state = state._replace(x=x, x_dot=x_dot, theta=theta, theta_dot=theta_dot)
    step = jax.jit(CartPole().step)
    for number in range(200):
        action = number // 3 % 2
        observation, _, theirs_ended, _, _ = theirs.step(action)
        state, mine, reward, ended, cut_off = step(state, jnp.int32(action), KEY)
        np.testing.assert_allclose(mine, observation, rtol=1e-4, atol=1e-5)
        assert (bool(ended), bool(cut_off), float(reward)) == (theirs_ended, False, 1.0)
        if theirs_ended:
            return
    pytest.fail("the pole never fell")


def test_pendulum_moves_as_gymnasiums_does() -> None:
    theirs: Any = gymnasium.make("Pendulum-v1").unwrapped
    theirs.reset(seed=3)
    state, _ = Pendulum(limit=40).reset(KEY)
    theta, theta_dot = (jnp.float32(value) for value in theirs.state)
    state = state._replace(theta=theta, theta_dot=theta_dot)
    step = jax.jit(Pendulum(limit=40).step)
    for number in range(40):
        torque = np.array([3 * np.sin(number)], np.float32)  # beyond the bounds now and then
        observation, cost, _, _, _ = theirs.step(torque)
        state, mine, reward, ended, cut_off = step(state, jnp.asarray(torque), KEY)
        np.testing.assert_allclose(mine, observation, rtol=1e-3, atol=1e-3)
        assert float(reward) == pytest.approx(cost, rel=1e-3, abs=1e-3)
        assert (bool(ended), bool(cut_off)) == (False, number == 39)


def test_catch_pays_for_the_ball_in_the_last_row() -> None:
    environment = JaxCatch()
    state, board = environment.reset(KEY)
    assert np.argwhere(np.asarray(board)).tolist() == [[0, int(state.column)], [9, 2]]
    for number in range(9):
        aim = 1 + jnp.sign(state.column - state.paddle)
        state, board, reward, ended, cut_off = environment.step(state, aim, KEY)
        assert (bool(ended), bool(cut_off)) == (number == 8, False)
        assert float(reward) == (1.0 if number == 8 else 0.0)


def test_the_way_to_the_goal_of_a_grid_world_is_worth_what_it_says() -> None:
    environment = GridWorld()
    step, total, episodes = jax.jit(environment.step), 0.0, 40
    for number in range(episodes):
        state, board = environment.reset(jax.random.key(number))
        assert np.asarray(board).sum() == 2
        assert not np.array_equal(state.place, state.goal)
        for _ in range(10):
            down, right = np.sign(np.asarray(state.goal - state.place)).tolist()
            action = {-1: 0, 1: 1}.get(down, 2 if right < 0 else 3)
            state, _, reward, ended, _ = step(state, jnp.int32(action), KEY)
            total += float(reward)
            if ended:
                break
    assert total / episodes == pytest.approx(0.94, abs=0.02)


@pytest.mark.parametrize("name", SIMULATIONS)
def test_each_is_an_environment_of_the_host_by_name(name: str) -> None:
    environment = make_environment(name, 3, seed=1)
    spec = environment.spec
    assert spec.name == name
    observation = environment.reset(1)
    assert observation.shape == (3, *spec.observation.shape)
    step = environment.step(np.zeros((3, *spec.action.shape), spec.action.dtype))
    assert step.observation.dtype == spec.observation.dtype
    assert step.valid.all()


def test_names_that_nobody_knows_bring_near_ones_and_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(lpml.UsageError, match=r"did you mean 'CartPole-v1'.*lpml\[brax\]"):
        simulation_named("CartPol-v1")
    with pytest.raises(lpml.UsageError, match="did you mean 'Catch'"):
        make_environment("jax/Cach")
    packages = {"gymnax": "gymnax", "brax": "brax", "mjx": "mujoco_playground"}
    for adapter, package in packages.items():
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, f"lpml.agents.jax_environments.{adapter}", raising=False)
        wanted = rf"needs {package}.*pip install 'lpml\[{adapter}\]'.*did you mean 'CartPole-v1'"
        with pytest.raises(lpml.UsageError, match=wanted):
            simulation_named(f"{adapter}/CartPole")


class Params(NamedTuple):
    """As those of gymnax."""

    max_steps_in_episode: int = 3

    def replace(self, **changes: int) -> Params:
        return self._replace(**changes)


class Discrete:
    """As that of gymnax."""

    n = 2

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (), 0, 2)


class Corridor:
    """Ends for good at place 2; otherwise by time. As before version 1 of gymnax, or as from it."""

    def __init__(self, six: bool) -> None:
        self._six = six

    def action_space(self, params: Params) -> Discrete:
        del params
        return Discrete()

    def reset_env(self, key: jax.Array, params: Params) -> tuple[Any, Any]:
        del key, params
        return jnp.zeros((1,), jnp.float32), {"place": 0, "time": 0}

    def step_env(self, key: jax.Array, state: Any, action: Any, params: Params) -> tuple[Any, ...]:
        del key
        state = {"place": state["place"] + action, "time": state["time"] + 1}
        observation = jnp.full((1,), state["place"], jnp.float32)
        ended, late = state["place"] >= 2, state["time"] >= params.max_steps_in_episode
        ends = (ended, late) if self._six else (ended | late,)
        return (observation, state, jnp.float32(1), *ends, {})


@pytest.mark.parametrize("six", [False, True])
def test_the_end_for_good_and_by_time_are_told_apart_in_both_versions_of_gymnax(six: bool) -> None:
    environment = GymnaxEnvironment.of(Corridor(six), Params(), "gymnax/Corridor")
    assert environment.spec.num_actions == 2
    for action, ends in ((1, [(False, False), (True, False)]), (0, [(False, False)] * 2)):
        state, _ = environment.reset(KEY)
        found = []
        for _ in ends:
            state, _, _, ended, cut_off = environment.step(state, jnp.int32(action), KEY)
            found.append((bool(ended), bool(cut_off)))
        assert found == ends
    state, _, _, ended, cut_off = environment.step(state, jnp.int32(0), KEY)
    assert (bool(ended), bool(cut_off)) == (False, True)


class Moved(NamedTuple):
    """The state of an environment of brax."""

    obs: jax.Array
    reward: jax.Array
    done: jax.Array


class Physics:
    """An environment of brax that counts how often its `reset` is traced."""

    action_size = 2

    def __init__(self) -> None:
        self.traced = 0

    def reset(self, key: jax.Array) -> Moved:
        self.traced += 1
        return Moved(jax.random.uniform(key, (3,)), jnp.float32(0), jnp.float32(0))

    def step(self, state: Moved, action: jax.Array) -> Moved:
        return Moved(state.obs + action[0], action[1], jnp.float32(state.obs[0] > 2))


def test_physics_is_traced_once_to_know_its_shapes_whoever_it_is_sent_to() -> None:
    environment = EpisodicEnvironment(Physics(), "brax/physics", limit=2)
    assert (environment.spec.observation.shape, environment.spec.action.shape) == ((3,), (2,))
    sent = pickle.loads(pickle.dumps(environment))
    assert sent.spec.observation.shape == (3,)
    assert (environment.environment.traced, sent.environment.traced) == (1, 1)


def test_physics_ends_for_good_when_it_is_done_and_by_time_at_its_limit() -> None:
    environment = EpisodicEnvironment(Physics(), "brax/physics", limit=2)
    state, seen = environment.reset(KEY)
    found = []
    for _ in range(2):
        state, seen, reward, ended, cut_off = environment.step(state, jnp.full((2,), 5.0), KEY)
        found.append((float(reward), bool(ended), bool(cut_off)))
    assert found == [(1, False, False), (1, False, True)]  # actions are kept within [-1, 1]
    assert float(seen[0]) > 2
    assert bool(environment.step(state, jnp.zeros((2,)), KEY)[3])
