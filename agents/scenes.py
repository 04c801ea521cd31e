"""Environments that can be looked at: one at a time, with a picture of where it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import jax
import numpy as np
import numpy.typing as npt

from lpml.agents.environments import make_environment
from lpml.agents.jax_environments import SIMULATIONS, is_simulation, simulation_named
from lpml.agents.jax_environments.drawing import Picture
from lpml.agents.serial import Outcome
from lpml.errors import UsageError
from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec
from lpml.nodes.simulation import AbstractDrawn, AbstractSimulation
from lpml.nodes.simulation_keys import replay_keys
from lpml.nodes.simulator import VectorSimulator

_SMALLEST = 160  # pixels; smaller observations are shown larger


class AbstractScene(ABC):
    """One environment, and how it looks."""

    @property
    @abstractmethod
    def spec(self) -> EnvironmentSpec:
        """Of the environment."""

    @abstractmethod
    def reset(self, seed: int) -> Any:
        """Begins an episode; its first observation."""

    @abstractmethod
    def step(self, action: npt.NDArray[Any]) -> Outcome:
        """One action; never after a last step without `reset`."""

    @abstractmethod
    def draw(self) -> Picture:
        """How it looks now, `[H, W, 3]`."""

    @abstractmethod
    def close(self) -> None:
        """Frees what it holds."""


def make_scene(name: str) -> AbstractScene:
    """The environment of this name, in the first of these ways that there is.

    lpml's own simulation of that name draws itself, as does that of a `VectorSimulator` which a
    function of yours makes; gymnasium's draws by `rgb_array`; where observations are pictures, they
    are shown.

    Args:
      name: as `make_environment` takes it.

    Raises:
      UsageError: there is no such environment, or no way to draw it.
    """
    source, _, own = name.rpartition("/")
    simulated = name if is_simulation(name) else f"jax/{own}"
    if is_simulation(name) or (source in ("", "lpml") and simulated in SIMULATIONS):
        return _simulated(simulation_named(simulated), name)
    made = make_environment(name, 1, 0)
    if isinstance(made, VectorSimulator):
        return _simulated(made.environment, name)
    if _is_picture(made.spec.observation):
        return SeenScene(made)
    made.close()
    if source or ":" in name:
        raise UsageError(
            f"environment {name!r} has no way to draw it: it is neither a simulation nor one of "
            f"gymnasium, and its observations, {made.spec.observation}, are no pictures"
        )
    from lpml.agents.gym import make_drawn

    return GymScene(*make_drawn(name))


def _simulated(environment: AbstractSimulation, name: str) -> SimulatedScene:
    """A simulation as a scene, if it draws itself."""
    if isinstance(environment, AbstractDrawn):
        return SimulatedScene(environment)
    raise UsageError(
        f"environment {name!r} has no way to draw it: its simulation is no "
        "lpml.nodes.simulation.AbstractDrawn, which has a method render(state)"
    )


@final
class SimulatedScene(AbstractScene):
    """A simulation that draws itself; its seed is that of an episode, as in `replay_keys`."""

    def __init__(self, environment: AbstractDrawn) -> None:
        self._environment = environment
        self._reset: Any = jax.jit(lambda seed: environment.reset(replay_keys(seed, 0)))
        self._step: Any = jax.jit(
            lambda state, action, seed, n: environment.step(state, action, replay_keys(seed, n))
        )
        self._state: Any = None
        self._seed, self._steps = np.uint32(0), 0

    @property
    def spec(self) -> EnvironmentSpec:
        return self._environment.spec

    def reset(self, seed: int) -> Any:
        self._seed, self._steps = np.uint32(seed & 0xFFFFFFFF), 0
        self._state, observation = self._reset(self._seed)
        return jax.tree.map(np.asarray, observation)

    def step(self, action: npt.NDArray[Any]) -> Outcome:
        self._steps += 1
        self._state, observation, reward, terminated, truncated = self._step(
            self._state, action, self._seed, np.int32(self._steps)
        )
        return Outcome(
            jax.tree.map(np.asarray, observation),
            float(reward),
            float(not terminated),
            bool(terminated or truncated),
        )

    def draw(self) -> Picture:
        return self._environment.render(self._state)

    def close(self) -> None:
        """Nothing is held."""


@final
class GymScene(AbstractScene):
    """An environment of gymnasium that was made with `render_mode="rgb_array"`."""

    def __init__(self, single: Any, render: Any) -> None:
        self._single, self._render = single, render

    @property
    def spec(self) -> EnvironmentSpec:
        spec: EnvironmentSpec = self._single.spec
        return spec

    def reset(self, seed: int) -> Any:
        return self._single.reset(seed)

    def step(self, action: npt.NDArray[Any]) -> Outcome:
        outcome: Outcome = self._single.step(action)
        return outcome

    def draw(self) -> Picture:
        return np.asarray(self._render(), np.uint8)

    def close(self) -> None:
        self._single.close()


@final
class SeenScene(AbstractScene):
    """Shows the observations, which are pictures: the last of several frames."""

    def __init__(self, environment: AbstractEnvironment) -> None:
        self._environment = environment
        self._seen: Any = None

    @property
    def spec(self) -> EnvironmentSpec:
        return self._environment.spec

    def reset(self, seed: int) -> Any:
        self._seen = self._environment.reset(seed)[0]
        return self._seen

    def step(self, action: npt.NDArray[Any]) -> Outcome:
        step = self._environment.step(action[None])
        self._seen = step.arrival[0]
        return Outcome(
            self._seen, float(step.reward[0]), float(step.discount[0]), bool(step.last[0])
        )

    def draw(self) -> Picture:
        picture = np.asarray(self._seen)
        if picture.ndim == 2:
            picture = picture[..., None]
        if picture.shape[-1] != 3:
            picture = np.repeat(picture[..., -1:], 3, axis=-1)
        times = -(-_SMALLEST // max(picture.shape[:2]))
        return np.ascontiguousarray(picture.repeat(times, 0).repeat(times, 1))

    def close(self) -> None:
        self._environment.close()


def _is_picture(observation: Any) -> bool:
    """Whether it is one array of bytes with height and width."""
    leaves = jax.tree.leaves(observation)
    return len(leaves) == 1 and leaves[0].dtype == np.uint8 and len(leaves[0].shape) in (2, 3)
