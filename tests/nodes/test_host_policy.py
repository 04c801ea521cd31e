"""Policies on the host: their state, their random numbers, and how often they are compiled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.errors import NotFinite, UsageError
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.host_policy import HostPolicy
from lpml.testing import node

E = 3


class Counting:
    """A policy that counts the steps of episodes, draws a number, and how often it was traced."""

    def __init__(self) -> None:
        self.traces = 0
        self.policy = Policy(
            lambda num_envs: {"count": jnp.zeros(num_envs, jnp.int32)},
            self.act,
            {"draw": jax.ShapeDtypeStruct((), jnp.float32)},
        )

    def act(self, params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
        self.traces += 1
        count = state["count"] + 1
        draw = jax.random.uniform(key, count.shape)
        scores = observation["x"] * params["w"][None]
        return PolicyOutput(count, {"count": count}, {"draw": draw}, scores)


def observation(value: float = 1.0) -> dict[str, Any]:
    return {"x": np.full((E, 2), value, np.float32)}


def params(value: float = 1.0) -> dict[str, Any]:
    return {"w": np.full(2, value, np.float32), "steps": np.int32(3)}


def none() -> np.ndarray[Any, Any]:
    return np.zeros(E, bool)


def test_the_state_begins_anew_where_an_episode_does() -> None:
    host = HostPolicy(Counting().policy, E)
    host.update(params())
    begins = [none(), none(), np.array([False, True, False]), none()]
    actions = [host(observation(), mask)[0].tolist() for mask in begins]
    assert actions == [[1, 1, 1], [2, 2, 2], [3, 1, 3], [4, 2, 4]]


def test_it_is_compiled_once_before_there_are_parameters() -> None:
    counting = Counting()
    host = HostPolicy(counting.policy, E)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params())
    host.compile(shapes, observation())
    traces = counting.traces
    for value in range(3):
        host.update(params(value))
        host(observation(), none())
        host(observation(2.0), ~none())
    assert counting.traces == traces == 1
    assert host.calls == 6


def test_draws_differ_from_step_to_step_and_repeat_with_the_seed() -> None:
    def draws(seed: int) -> list[list[float]]:
        host = HostPolicy(Counting().policy, E, seed)
        host.update(params())
        return [host(observation(), none())[1]["draw"].tolist() for _ in range(4)]

    assert draws(1) == draws(1)
    numbers = {number for seed in (1, 2) for step in draws(seed) for number in step}
    assert len(numbers) == 2 * 4 * E
    assert all(0 <= number < 1 for number in numbers)


def test_large_parameters_act_alike() -> None:
    def act(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
        scores = observation["x"][:, 0] * params["w"].sum() + params["b"]
        return PolicyOutput(scores, state, (), scores)

    for size in (1, 1 << 18):
        host = HostPolicy(Policy(lambda num_envs: (), act), E)
        host.update({"w": np.ones(size, np.float32), "b": np.float32(1)})
        action, extras = host(observation(2.0), none())
        assert action.tolist() == [2 * size + 1] * E
        assert extras == ()


def test_what_comes_out_are_arrays_of_the_host() -> None:
    host = HostPolicy(Counting().policy, E)
    host.update(params())
    action, extras = host(observation(), none())
    assert type(action) is type(extras["draw"]) is np.ndarray


def test_a_score_that_is_not_finite_names_node_step_and_environments() -> None:
    host = HostPolicy(Counting().policy, E)
    host.update(params())
    bad = observation()
    bad["x"][1, 0] = np.inf
    with node("actor/7"):
        host(observation(), none())
        with pytest.raises(NotFinite, match=r"actor/7: .* at its step 2 in environments \[1\]"):
            host(bad, none())
        host.update(params(np.nan))
        with pytest.raises(NotFinite, match=r"step 3 in environments \[0, 1, 2\]"):
            host(observation(), none())


def test_without_parameters_it_says_so() -> None:
    with pytest.raises(UsageError, match="update first"):
        HostPolicy(Counting().policy, E)(observation(), none())
