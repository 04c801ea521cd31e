"""Environments of gymnax, brax and MuJoCo Playground for real, where they are installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.agents.jax_environments import CartPole, simulation_named
from lpml.nodes.compiling import run_once
from lpml.nodes.simulation import begin, tick

KEY = jax.random.key(0)


def needs(package: str, extra: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(
        not there, reason=f"{package} is not there: pip install lpml[{extra}]"
    )


pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, while they are imported


@needs("gymnax", "gymnax")
def test_cartpole_of_gymnax_moves_as_ours_and_is_cut_off_at_the_same_step() -> None:
    theirs, ours = simulation_named("gymnax/CartPole-v1"), CartPole()
    assert theirs.spec.num_actions == 2
    state, seen = theirs.reset(KEY)
    mine, _ = ours.reset(KEY)
    x, x_dot, theta, theta_dot = jnp.asarray(seen, jnp.float32)
    mine = mine._replace(x=x, x_dot=x_dot, theta=theta, theta_dot=theta_dot)
    steps = jax.jit(theirs.step), jax.jit(ours.step)
    for number in range(60):
        action = jnp.int32(number // 2 % 2)
        state, seen, reward, ended, cut_off = steps[0](state, action, KEY)
        mine, own, _, own_ended, own_cut_off = steps[1](mine, action, KEY)
        np.testing.assert_allclose(seen, own, rtol=1e-4, atol=1e-5)
        assert (bool(ended), bool(cut_off)) == (bool(own_ended), bool(own_cut_off))
        assert float(reward) == 1
        if ended:
            break
    held = state._replace(steps=jnp.int32(499))  # as if it had not fallen
    assert bool(steps[0](held, jnp.int32(0), KEY)[4])


@needs("gymnax", "gymnax")
@pytest.mark.parametrize("name", ["Pendulum-v1", "Catch-bsuite", "Breakout-MinAtar"])
def test_environments_of_gymnax_step_together(name: str) -> None:
    environment = simulation_named(f"gymnax/{name}")
    lanes = jax.eval_shape(lambda: begin(environment, 3, 0))
    action = jax.ShapeDtypeStruct(
        (3, *environment.spec.action.shape), environment.spec.action.dtype
    )
    new, outcome = jax.eval_shape(lambda x, a: tick(environment, x, a), lanes, action)
    assert jax.tree.map(_shape, new) == jax.tree.map(_shape, lanes)
    assert outcome.reward.shape == (3,)


@needs("gymnax", "gymnax")
def test_a_name_that_gymnax_does_not_know_brings_the_nearest() -> None:
    with pytest.raises(lpml.UsageError, match="did you mean 'Acrobot-v1'"):
        simulation_named("gymnax/Acrobt-v1")


@needs("brax", "brax")
def test_names_and_engines_that_brax_does_not_know_bring_the_nearest() -> None:
    with pytest.raises(lpml.UsageError, match="did you mean 'ant'"):
        simulation_named("brax/antt")
    with pytest.raises(lpml.UsageError, match="did you mean 'spring'"):
        simulation_named("brax/ant:sprig")


@needs("mujoco_playground", "mjx")
def test_names_that_playground_does_not_know_bring_the_nearest() -> None:
    with pytest.raises(lpml.UsageError, match="did you mean 'CartpoleBalance'"):
        simulation_named("mjx/CartpolBalance")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("brax/inverted_pendulum:spring", marks=needs("brax", "brax")),
        pytest.param("mjx/CartpoleBalance", marks=needs("mujoco_playground", "mjx")),
    ],
)
def test_physics_steps_on_the_device(name: str) -> None:
    environment = simulation_named(name)
    spec = environment.spec
    assert (spec.name, spec.num_actions) == (name, None)
    np.testing.assert_array_equal(spec.low, -np.ones(spec.action.shape, np.float32))
    lanes: Any = run_once(lambda: begin(environment, 3, 7))
    first = np.asarray(lanes.observation)
    assert first.shape == (3, *spec.observation.shape)
    assert not np.array_equal(first[0], first[1])
    action = jnp.full((3, *spec.action.shape), 0.5, jnp.float32)
    lanes, outcome = run_once(lambda x, a: tick(environment, x, a), lanes, action)
    assert np.isfinite(outcome.reward).all()
    assert (np.asarray(lanes.bad_step) == -1).all()
    assert not np.array_equal(first, lanes.observation)


def _shape(leaf: Any) -> Any:
    return leaf.shape, leaf.dtype
