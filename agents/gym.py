"""Gymnasium's environments, single and vectorised; the one file that imports gymnasium."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, final

import gymnasium
import jax
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from lpml.agents.serial import AbstractSingle, Outcome, SerialEnvironment, spread_seed
from lpml.errors import UsageError, closest
from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep

Vectorisation: TypeAlias = Literal["auto", "serial", "native"]
_FEW = 4  # environments up to which stepping one after the other is cheaper than a vectorised one
_SEVERAL = (gymnasium.vector.SyncVectorEnv, gymnasium.vector.AsyncVectorEnv)  # take a seed for each


def make_gym(
    name: str,
    num_envs: int = 1,
    seed: int | None = 0,
    *,
    vectorisation: Vectorisation = "auto",
    max_episode_steps: int | None = None,
    frames_last: bool = False,
    options: Mapping[str, Any] | None = None,
) -> AbstractEnvironment:
    """Makes a registered environment of gymnasium.

    Args:
      name: such as `CartPole-v1`, or `package:Name-v0` where `package` registers it.
      num_envs: E.
      seed: of the first reset.
      vectorisation: `native` = by the environment's own vectorised form, its
        `vector_entry_point`; `serial` = E single ones, one after the other; `auto` = whichever is
        faster. They differ in what they draw at random, and native ones mostly need a step of its
        own to begin an episode.
      max_episode_steps: after which time cuts an episode off; `None` = as registered.
      frames_last: as in `GymVector`; of native ones only.
      options: more arguments of the environment.

    Raises:
      UsageError: there is no such environment, something that it needs is not installed, or its
        spaces are of kinds that cannot be learned from.
    """
    registered = _find(name)
    native = registered.vector_entry_point is not None and not registered.additional_wrappers
    if vectorisation == "native" and not native:
        raise UsageError(f"environment {name!r} has no vector_entry_point; take 'serial'")
    options = dict(options or {})
    if max_episode_steps is not None:
        options["max_episode_steps"] = max_episode_steps
    try:
        if native and vectorisation != "serial" and (vectorisation == "native" or num_envs > _FEW):
            made = gymnasium.make_vec(
                name, num_envs, vectorization_mode="vector_entry_point", **options
            )
            return GymVector(made, name=name, seed=seed, frames_last=frames_last)
        singles = [
            gymnasium.make(name, disable_env_checker=True, **options) for _ in range(num_envs)
        ]
    except gymnasium.error.DependencyNotInstalled as error:
        raise UsageError(f"environment {name!r}: {error}") from error
    return SerialEnvironment([GymSingle(single, name) for single in singles], seed=seed)


def make_drawn(name: str) -> tuple[GymSingle, Callable[[], Any]]:
    """A single environment, and a function that draws it as it is now, uint8 `[H, W, 3]`.

    Raises:
      UsageError: there is no such environment, or no way to draw it.
    """
    _find(name)
    try:
        made = gymnasium.make(name, render_mode="rgb_array", disable_env_checker=True)
        made.reset(seed=0)
        made.render()
    except (gymnasium.error.Error, ImportError) as error:
        raise UsageError(f"environment {name!r} cannot be drawn here: {error}") from error
    return GymSingle(made, name), made.render


def _find(name: str) -> Any:
    """What is registered under a name."""
    try:
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        near = closest(name, [str(known) for known in gymnasium.registry])
        near = near if near.startswith("; did") else ""  # not a thousand names
        said = str(error).partition(" Did you mean")[0] if near else error  # ours has the version
        raise UsageError(f"environment {name!r}: gymnasium has none: {said}{near}") from error


@final
class GymSingle(AbstractSingle):
    """A `gymnasium.Env`.

    Args:
      environment: with actions that are `Discrete` or `Box`. Continuous actions are clipped to
        their bounds.
      name: for messages and files.

    Raises:
      UsageError: spaces are of other kinds.
    """

    def __init__(self, environment: gymnasium.Env[Any, Any], name: str = "") -> None:
        self._environment = environment
        name = name or (environment.spec.id if environment.spec else "")
        observation, self._convert = _observations(environment.observation_space, name)
        self._spec, self._act = _actions(environment.action_space, observation, name)
        self._discrete = self._spec.num_actions is not None

    @property
    def spec(self) -> EnvironmentSpec:
        return self._spec

    def reset(self, seed: int | None = None) -> Any:
        return self._convert(self._environment.reset(seed=seed)[0])

    def step(self, action: npt.NDArray[Any]) -> Outcome:
        chosen = self._act(action)
        observation, reward, terminated, truncated, _ = self._environment.step(
            int(chosen) if self._discrete else chosen
        )
        last = bool(terminated or truncated)
        return Outcome(self._convert(observation), float(reward), float(not terminated), last)

    def close(self) -> None:
        self._environment.close()


@final
class GymVector(AbstractEnvironment):
    """E environments of a `gymnasium.vector.VectorEnv`, in the autoreset mode that it has.

    Args:
      vector: its metadata says when it begins episodes: `AutoresetMode.NEXT_STEP`, in a step of
        its own in which the action is ignored, or `SAME_STEP`, in the step that ended one.
      name: for messages and files.
      seed: of the first reset.
      frames_last: images whose frames come first, `[K, H, W]`, become `[H, W, K]`, as the
        networks take them.

    Raises:
      UsageError: it has no such mode, or its spaces are of kinds that cannot be learned from.
    """

    def __init__(
        self,
        vector: VectorEnv,
        *,
        name: str = "",
        seed: int | None = None,
        frames_last: bool = False,
    ) -> None:
        mode = vector.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            raise UsageError(
                f"environment {name or vector}: metadata['autoreset_mode'] is {mode!r}; make it "
                "with AutoresetMode.NEXT_STEP or AutoresetMode.SAME_STEP"
            )
        self._vector = vector
        self._next_step = mode == AutoresetMode.NEXT_STEP
        self._seed = seed
        name = name or (vector.spec.id if vector.spec else "")
        observation, self._convert = _observations(vector.single_observation_space, name)
        if frames_last:
            observation, self._convert = _frames_last(observation, self._convert)
        self._spec, self._act = _actions(vector.single_action_space, observation, name)
        self._action_dtype = vector.action_space.dtype
        self._copies = bool(getattr(vector.unwrapped, "copy", True))
        self._ended = np.zeros(vector.num_envs, np.bool_)
        self._all = np.ones(vector.num_envs, np.bool_)
        self._all.flags.writeable = False

    @property
    def spec(self) -> EnvironmentSpec:
        return self._spec

    @property
    def num_envs(self) -> int:
        return int(self._vector.num_envs)

    def reset(self, seed: int | None = None) -> Any:
        seed, self._seed = (self._seed if seed is None else seed), None
        self._ended = np.zeros(self.num_envs, np.bool_)
        return self._observe(self._vector.reset(seed=self._seeds(seed))[0])

    def step(self, action: npt.NDArray[Any]) -> Timestep:
        chosen = np.asarray(self._act(action), self._action_dtype)
        seen, rewards, terminated, truncated, infos = self._vector.step(chosen)
        observation = self._observe(seen)
        reward = np.asarray(rewards, np.float32)
        discount = np.logical_not(terminated).astype(np.float32)
        last = np.logical_or(terminated, truncated)
        if self._next_step:
            begins, self._ended = self._ended, last
            valid = ~begins if begins.any() else self._all
            return Timestep(observation, reward, discount, last, observation, begins, valid)
        arrival = self._arrival(observation, last, infos) if last.any() else observation
        return Timestep(observation, reward, discount, last, arrival, last, self._all)

    def close(self) -> None:
        self._vector.close()

    def _seeds(self, seed: int | None) -> Any:
        if seed is None:
            return None
        several = isinstance(self._vector.unwrapped, _SEVERAL)
        return spread_seed(seed, self.num_envs) if several else spread_seed(seed, 1)[0]

    def _observe(self, seen: Any) -> Any:
        observation = self._convert(seen)
        return observation if self._copies else jax.tree.map(np.copy, observation)

    def _arrival(self, observation: Any, last: npt.NDArray[np.bool_], infos: Any) -> Any:
        """Where the actions led: observations that are last stand apart, in `infos`."""
        if "final_obs" not in infos:
            raise UsageError(
                f"environment {self._spec.name}: it begins episodes in the step that ends one and "
                "gives no infos['final_obs']; make it with AutoresetMode.NEXT_STEP"
            )
        arrival = jax.tree.map(np.copy, observation)
        finals = infos["final_obs"]
        if isinstance(finals, np.ndarray) and finals.dtype == object:
            for lane in np.flatnonzero(last).tolist():
                _put(arrival, lane, self._convert(finals[lane]))
            return arrival
        return jax.tree.map(
            lambda old, new: np.where(last.reshape(-1, *[1] * (old.ndim - 1)), new, old),
            arrival,
            self._convert(finals),
        )


def _put(arrays: Any, lane: int, one: Any) -> None:
    for array, leaf in zip(jax.tree.leaves(arrays), jax.tree.leaves(one), strict=True):
        array[lane] = leaf


_Convert: TypeAlias = Callable[[Any], Any]


def _observations(space: spaces.Space[Any], name: str) -> tuple[Any, _Convert]:
    """The tree of shapes of a space, and how an observation, or several `[E, ...]`, becomes one.

    A `Discrete` observation is one-hot, since its number means nothing to a network; 64 bits
    become 32 unless jax is told otherwise.
    """
    if isinstance(space, spaces.Dict):
        parts = {key: _observations(part, name) for key, part in space.spaces.items()}
        tree: Any = {key: part[0] for key, part in parts.items()}
        return tree, lambda x: {key: part[1](x[key]) for key, part in parts.items()}
    if isinstance(space, spaces.Tuple):
        several = [_observations(part, name) for part in space.spaces]
        tree = tuple(part[0] for part in several)
        return tree, lambda x: tuple(f(y) for (_, f), y in zip(several, x, strict=True))
    if isinstance(space, spaces.Discrete):
        rows, start = np.eye(int(space.n), dtype=np.float32), int(space.start)
        return jax.ShapeDtypeStruct((int(space.n),), rows.dtype), lambda x: rows[
            np.asarray(x) - start
        ]
    if space.shape is None or space.dtype is None or not np.issubdtype(space.dtype, np.generic):
        raise UsageError(
            f"environment {name!r}: observations {space} have no fixed shape; wrap the "
            "environment so that it has Box, Discrete, Dict or Tuple"
        )
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(space.dtype))
    return jax.ShapeDtypeStruct(space.shape, dtype), lambda x: np.asarray(x, dtype)


def _frames_last(observation: Any, convert: _Convert) -> tuple[Any, _Convert]:
    """`[K, H, W]`, and any axes before, as `[H, W, K]`; other arrays as they are."""

    def shape(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        k, *image = leaf.shape if len(leaf.shape) == 3 else (0,)
        return jax.ShapeDtypeStruct((*image, k), leaf.dtype) if image else leaf

    shapes = [len(leaf.shape) for leaf in jax.tree.leaves(observation)]
    if 3 not in shapes:
        return observation, convert

    def move(x: Any) -> Any:
        leaves, structure = jax.tree.flatten(convert(x))
        moved = [
            np.ascontiguousarray(np.moveaxis(leaf, -3, -1)) if rank == 3 else leaf
            for leaf, rank in zip(leaves, shapes, strict=True)
        ]
        return jax.tree.unflatten(structure, moved)

    return jax.tree.map(shape, observation), move


def _actions(
    space: spaces.Space[Any], observation: Any, name: str
) -> tuple[EnvironmentSpec, _Convert]:
    """The spec, and how an action of it, or several `[E, ...]`, becomes one of the space."""
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        action = jax.ShapeDtypeStruct((), np.dtype(np.int32))
        spec = EnvironmentSpec(observation, action, num_actions=int(space.n), name=name)
        return spec, (lambda a: a + start) if start else _same
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        action = jax.ShapeDtypeStruct(space.shape, np.dtype(np.float32))
        low, high = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)
        spec = EnvironmentSpec(observation, action, low=low, high=high, name=name)
        dtype = space.dtype
        return spec, lambda a: np.clip(a, low, high).astype(dtype, copy=False)
    raise UsageError(
        f"environment {name!r}: actions {space} are neither Discrete nor a Box of real numbers; "
        "wrap the environment so that they are"
    )


def _same(action: Any) -> Any:
    return action
