"""Gymnasium's environments, single and vectorised; the one file that imports gymnasium."""

from __future__ import annotations

from typing import Any, Literal, final

import gymnasium
import jax
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from lpml.errors import UsageError, closest
from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep

Autoreset = Literal["next_step", "same_step"]
_MANY = 32  # environments from which a vector entry point is faster than a loop over single ones


def make_gym(
    name: str, num_envs: int = 1, seed: int = 0, *, autoreset: Autoreset = "same_step"
) -> GymEnvironment:
    """Makes a registered environment of gymnasium.

    Args:
      name: such as `CartPole-v1`.
      num_envs: E.
      seed: of the first reset.
      autoreset: whether an episode begins in the step that ended the one before, or in a step of
        its own. Some environments that are vectorised themselves know only the latter.

    Raises:
      UsageError: there is no such environment, or its spaces cannot be learned from.
    """
    try:
        registered = gymnasium.spec(name)
    except gymnasium.error.Error as error:
        known = list(gymnasium.registry)
        raise UsageError(
            f"environment {name!r}: gymnasium says: {error}" + closest(name, known)
        ) from error
    mode = AutoresetMode.NEXT_STEP if autoreset == "next_step" else AutoresetMode.SAME_STEP
    try:
        if registered.vector_entry_point is not None and num_envs >= _MANY:
            made = gymnasium.make_vec(name, num_envs, vectorization_mode="vector_entry_point")
        else:
            made = gymnasium.make_vec(
                name, num_envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}
            )
    except gymnasium.error.DependencyNotInstalled as error:
        raise UsageError(f"environment {name!r}: {error}") from error
    return GymEnvironment(made, name, seed)


@final
class GymEnvironment(AbstractEnvironment):
    """E environments of a `gymnasium.vector.VectorEnv`, in either autoreset mode.

    Args:
      vector: whose metadata says how it begins episodes.
      name: for messages and files.
      seed: of the first reset.

    Raises:
      UsageError: it does not say when it begins episodes, or its actions are of a kind that is
        not known.
    """

    def __init__(self, vector: gymnasium.vector.VectorEnv, name: str = "", seed: int = 0) -> None:
        mode = vector.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            raise UsageError(
                f"environment {name!r}: its metadata has autoreset_mode={mode!r}; give one with "
                "AutoresetMode.NEXT_STEP or SAME_STEP"
            )
        self._vector = vector
        self._next_step = mode == AutoresetMode.NEXT_STEP
        self._seed: int | None = seed
        self._spec = _spec(vector, name)
        self._all = np.ones(vector.num_envs, bool)
        self._ended = np.zeros(vector.num_envs, bool)

    @property
    def spec(self) -> EnvironmentSpec:
        return self._spec

    @property
    def num_envs(self) -> int:
        return int(self._vector.num_envs)

    def reset(self, seed: int | None = None) -> Any:
        seed, self._seed = (self._seed if seed is None else seed), None
        self._ended = np.zeros(self.num_envs, bool)
        return self._vector.reset(seed=seed)[0]

    def step(self, action: npt.NDArray[Any]) -> Timestep:
        observation, reward, terminated, truncated, infos = self._vector.step(action)
        discount = np.where(terminated, np.float32(0), np.float32(1))
        reward = np.asarray(reward, np.float32)
        last = np.logical_or(terminated, truncated)
        if self._next_step:
            begins, self._ended = self._ended, last
            return Timestep(observation, reward, discount, last, observation, begins, ~begins)
        arrival = observation
        if last.any():
            arrival = jax.tree.map(np.copy, observation)
            for lane in np.flatnonzero(last).tolist():
                final_one = infos["final_obs"][lane]
                jax.tree.map(lambda to, of, i=lane: to.__setitem__(i, of), arrival, final_one)
        return Timestep(observation, reward, discount, last, arrival, last, self._all)

    def close(self) -> None:
        self._vector.close()


def _spec(vector: gymnasium.vector.VectorEnv, name: str) -> EnvironmentSpec:
    observation = _tree(vector.single_observation_space, name)
    space = vector.single_action_space
    if isinstance(space, spaces.Discrete):
        if space.start != 0:
            raise UsageError(
                f"environment {name!r}: {space} does not begin at 0; shift its actions"
            )
        action = jax.ShapeDtypeStruct((), np.dtype(np.int32))
        return EnvironmentSpec(observation, action, num_actions=int(space.n), name=name)
    if isinstance(space, spaces.Box):
        action = jax.ShapeDtypeStruct(space.shape, np.dtype(np.float32))
        low, high = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)
        return EnvironmentSpec(observation, action, low=low, high=high, name=name)
    raise UsageError(
        f"environment {name!r}: actions {space} are neither Discrete nor Box; wrap the environment"
    )


def _tree(space: spaces.Space[Any], name: str) -> Any:
    """A space as a tree of shapes and dtypes."""
    if isinstance(space, spaces.Dict):
        return {key: _tree(part, name) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_tree(part, name) for part in space.spaces)
    if space.shape is None or space.dtype is None:
        raise UsageError(
            f"environment {name!r}: observations {space} have no fixed shape; wrap the environment"
        )
    return jax.ShapeDtypeStruct(space.shape, space.dtype)
