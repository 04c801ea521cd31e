"""Environments of dm_env, such as dm_control's and bsuite's; the one file that imports dm_env."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import dm_env
import jax
import numpy as np
import numpy.typing as npt
from dm_env import specs

from lpml.agents.serial import AbstractSingle, Outcome, SerialEnvironment
from lpml.errors import UsageError
from lpml.nodes.environment import EnvironmentSpec


def make_dm(
    make: Callable[[int], dm_env.Environment],
    num_envs: int = 1,
    seed: int = 0,
    *,
    name: str = "",
    max_episode_steps: int | None = None,
) -> SerialEnvironment:
    """E environments, each made with a seed of its own.

    Args:
      make: `make(seed)`; called once for each, and again where `reset` is given a seed, since
        dm_env knows no other way to seed.
      num_envs: E.
      seed: of the first reset.
      name: for messages and files.
      max_episode_steps: after which time cuts an episode off; `None` = the environment's own.

    Raises:
      UsageError: observations or actions are of kinds that cannot be learned from.
    """
    singles = [DmSingle(make, name) for _ in range(num_envs)]
    return SerialEnvironment(singles, seed=seed, max_episode_steps=max_episode_steps)


@final
class DmSingle(AbstractSingle):
    """A `dm_env.Environment`.

    Args:
      environment: one, whose seed stays what it is; or `make(seed)`, which makes one.
      name: for messages and files.

    Raises:
      UsageError: specs of observations or actions are of kinds that cannot be learned from.
    """

    def __init__(
        self, environment: dm_env.Environment | Callable[[int], dm_env.Environment], name: str = ""
    ) -> None:
        given: Any = environment
        self._make: Any = None
        if not isinstance(environment, dm_env.Environment):
            self._make, given = given, given(0)
        self._environment = given
        self._spec = _spec(self._environment, name)
        self._start = getattr(self._environment.action_spec(), "minimum", 0)

    @property
    def spec(self) -> EnvironmentSpec:
        return self._spec

    def reset(self, seed: int | None = None) -> Any:
        if seed is not None and self._make is not None:
            self._environment.close()
            self._environment = self._make(seed)
        return self._observe(self._environment.reset().observation)

    def step(self, action: npt.NDArray[Any]) -> Outcome:
        if self._spec.num_actions is not None:
            chosen: Any = int(action) + int(self._start)
        else:
            chosen = np.clip(action, self._spec.low, self._spec.high)
        step = self._environment.step(chosen)
        if step.first():
            raise UsageError(
                f"environment {self._spec.name!r} began an episode in a step; give it no wrapper "
                "that begins episodes by itself"
            )
        return Outcome(
            self._observe(step.observation), float(step.reward), float(step.discount), step.last()
        )

    def close(self) -> None:
        self._environment.close()

    def _observe(self, observation: Any) -> Any:
        return _convert(observation, self._spec.observation)


def _convert(observation: Any, spec: Any) -> Any:
    """As the spec has it: plain containers, its dtypes."""
    if isinstance(spec, Mapping):
        return {key: _convert(observation[key], part) for key, part in spec.items()}
    if isinstance(spec, Sequence):
        return tuple(_convert(one, part) for one, part in zip(observation, spec, strict=True))
    return np.asarray(observation, spec.dtype)


def _spec(environment: dm_env.Environment, name: str) -> EnvironmentSpec:
    name = name or type(environment).__name__
    observation = _observations(environment.observation_spec(), name)
    action = environment.action_spec()
    if isinstance(action, specs.BoundedArray) and action.shape == () and _is_integer(action):
        # A DiscreteArray, or what was written before there was one.
        count = int(action.maximum) - int(action.minimum) + 1
        kind = jax.ShapeDtypeStruct((), np.dtype(np.int32))
        return EnvironmentSpec(observation, kind, num_actions=count, name=name)
    if isinstance(action, specs.Array) and np.issubdtype(action.dtype, np.floating):
        kind = jax.ShapeDtypeStruct(action.shape, np.dtype(np.float32))
        low = np.full(action.shape, getattr(action, "minimum", -np.inf), np.float32)
        high = np.full(action.shape, getattr(action, "maximum", np.inf), np.float32)
        return EnvironmentSpec(observation, kind, low=low, high=high, name=name)
    raise UsageError(
        f"environment {name!r}: actions {action} are neither one of several nor an array of real "
        "numbers; wrap the environment so that they are"
    )


def _is_integer(spec: specs.Array) -> bool:
    return bool(np.issubdtype(spec.dtype, np.integer))


def _observations(spec: Any, name: str) -> Any:
    if isinstance(spec, Mapping):
        return {key: _observations(part, name) for key, part in spec.items()}
    if isinstance(spec, (list, tuple)):
        return tuple(_observations(part, name) for part in spec)
    if isinstance(spec, specs.StringArray) or not isinstance(spec, specs.Array):
        raise UsageError(
            f"environment {name!r}: an observation {spec} is no array of numbers; wrap the "
            "environment so that it is left out"
        )
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(spec.dtype))
    return jax.ShapeDtypeStruct(spec.shape, dtype)
