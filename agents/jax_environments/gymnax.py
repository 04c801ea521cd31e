"""Environments of gymnax, of version 1 and before; the one file that imports it.

What they call a step without reset, `step_env`, returns five values, of which `done` is the end for
good in version 1, and any end before it. So the time limit is lifted and counted here. A step of
six values tells the end for good and the cut-off apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.jax_environments.episodic import as_written
from lpml.errors import UsageError, closest
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.simulation import AbstractSimulation

_UNLIMITED = 2**31 - 1


class GymnaxState(NamedTuple):
    """What gymnax knows of an environment, and the steps of its episode."""

    inner: Any
    steps: jax.Array


@final
@dataclass(frozen=True, eq=False)
class GymnaxEnvironment(AbstractSimulation):
    """An environment of gymnax, or of what has its methods.

    Args:
      environment: its `reset_env`, `step_env`, `action_space` and `observation_space` are used.
      params: as `environment.default_params`.
      name: of the environment.
      has_six: whether a step returns six values, the end for good and the cut-off apart.
      limit: steps of an episode, counted here where a step returns five.
    """

    environment: Any
    params: Any
    name: str
    has_six: bool
    limit: int

    @classmethod
    def of(cls, environment: Any, params: Any, name: str) -> GymnaxEnvironment:
        """Finds out by a trace of one step, which computes nothing, how many values it returns."""

        def one(key: jax.Array) -> Any:
            _, state = environment.reset_env(key, params)
            action = environment.action_space(params).sample(key)
            return environment.step_env(key, state, action, params)

        with as_written():
            values = len(jax.eval_shape(one, jax.random.key(0)))
        if values not in (5, 6):
            raise UsageError(f"{name}: a step returns {values} values; gymnax's return 5 or 6")
        limit = int(getattr(params, "max_steps_in_episode", _UNLIMITED))
        if values == 5 and limit < _UNLIMITED:
            params = params.replace(max_steps_in_episode=_UNLIMITED)
        return cls(environment, params, name, values == 6, limit)

    @property
    def spec(self) -> EnvironmentSpec:
        space = self.environment.action_space(self.params)
        num_actions = getattr(space, "n", None)
        shape = () if num_actions is not None else tuple(space.shape)
        dtype = jnp.dtype(jnp.int32 if num_actions is not None else jnp.float32)
        seen = jax.eval_shape(lambda key: self.reset(key)[1], jax.random.key(0))
        bounds: dict[str, Any] = {}
        if num_actions is None:
            for bound in ("low", "high"):
                value = np.asarray(getattr(space, bound), np.float32)
                bounds[bound] = np.broadcast_to(value, shape).copy()
        return EnvironmentSpec(
            observation=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), seen),
            action=jax.ShapeDtypeStruct(shape, dtype),
            num_actions=None if num_actions is None else int(num_actions),
            name=self.name,
            max_steps=self.limit if self.limit < _UNLIMITED else None,
            **bounds,
        )

    def reset(self, key: jax.Array) -> tuple[GymnaxState, Any]:
        with as_written():
            observation, inner = self.environment.reset_env(key, self.params)
        return GymnaxState(inner, jnp.zeros((), jnp.int32)), observation

    def step(
        self, state: GymnaxState, action: jax.Array, key: jax.Array
    ) -> tuple[GymnaxState, Any, jax.Array, jax.Array, jax.Array]:
        with as_written():
            returned = self.environment.step_env(key, state.inner, action, self.params)
        steps = state.steps + 1
        observation, inner, reward, terminated = returned[:4]
        truncated = returned[4] if self.has_six else steps >= self.limit
        return GymnaxState(inner, steps), observation, reward, terminated, truncated


def make_gymnax(name: str) -> GymnaxEnvironment:
    """An environment by name, such as `gymnax/Acrobot-v1`."""
    import gymnax  # type: ignore[import-not-found,import-untyped,unused-ignore]

    own = name.removeprefix("gymnax/")
    known = list(getattr(gymnax, "registered_envs", []))
    if known and own not in known:
        raise UsageError(f"gymnax has no environment {own!r}{closest(own, known)}")
    environment, params = gymnax.make(own)
    return GymnaxEnvironment.of(environment, params, name)
