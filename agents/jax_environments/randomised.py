"""Domain randomisation: an environment whose numbers are others in every episode.

Reference: Tobin et al., "Domain Randomization for Transferring Deep Neural Networks from Simulation
to the Real World", IROS 2017; Peng et al., "Sim-to-Real Transfer of Robotic Control with Dynamics
Randomization", ICRA 2018.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from lpml.errors import UsageError, closest
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.simulation import AbstractDrawn, AbstractSimulation

_DRAW = 0x5EED  # folded into the key of a reset


class RandomisedState(NamedTuple):
    """The state of the environment, and the numbers of this episode."""

    inner: Any
    drawn: tuple[jax.Array, ...]


@final
@dataclass(frozen=True)
class Randomised(AbstractDrawn):
    """Draws fields of an environment anew in each episode, uniformly between two bounds.

    What is drawn depends on the seed of the episode alone, so `replay_keys` gives it again. The
    environment must be a dataclass that computes with the field, not one that decides by it.

    Args:
      environment: whose other fields stay as they are.
      ranges: `(field, low, high)` for each field that is drawn; integers are drawn as integers,
        with both bounds included.

    Raises:
      UsageError: there is no such field, or no number between the bounds.
    """

    environment: AbstractSimulation
    ranges: tuple[tuple[str, float, float], ...]

    def __post_init__(self) -> None:
        inner: Any = self.environment
        if not dataclasses.is_dataclass(inner):
            raise UsageError(f"Randomised: {type(inner).__name__} is no dataclass; make it one")
        fields = [field.name for field in dataclasses.fields(inner)]
        for name, low, high in self.ranges:
            if name not in fields:
                raise UsageError(
                    f"Randomised: {type(inner).__name__} has no field {name!r}"
                    f"{closest(name, fields)}"
                )
            if not low <= high:
                raise UsageError(f"Randomised: {name} between {low} and {high}; give low <= high")

    @property
    def spec(self) -> EnvironmentSpec:
        return self.environment.spec

    def reset(self, key: jax.Array) -> tuple[RandomisedState, Any]:
        keys = jax.random.split(jax.random.fold_in(key, _DRAW), max(1, len(self.ranges)))
        drawn = tuple(
            _draw(keys[number], low, high) for number, (_, low, high) in enumerate(self.ranges)
        )
        inner, observation = self._with(drawn).reset(key)
        return RandomisedState(inner, drawn), observation

    def step(
        self, state: RandomisedState, action: jax.Array, key: jax.Array
    ) -> tuple[RandomisedState, Any, jax.Array, jax.Array, jax.Array]:
        inner, *rest = self._with(state.drawn).step(state.inner, action, key)
        observation, reward, terminated, truncated = rest
        return state._replace(inner=inner), observation, reward, terminated, truncated

    def render(self, state: RandomisedState) -> npt.NDArray[np.uint8]:
        """As the environment draws itself with the numbers of the episode.

        Raises:
          UsageError: it does not draw itself.
        """
        numbers: Any = tuple(number.item() for number in state.drawn)
        drawn = self._with(numbers)
        if not isinstance(drawn, AbstractDrawn):
            raise UsageError(
                f"Randomised: {type(drawn).__name__} has no way to draw it; make it a "
                "lpml.nodes.simulation.AbstractDrawn, which has a method render(state)"
            )
        return drawn.render(state.inner)

    def _with(self, drawn: tuple[Any, ...]) -> AbstractSimulation:
        """The environment with these numbers, which may be traced."""
        names = [name for name, _, _ in self.ranges]
        made: Any = self.environment
        changed: AbstractSimulation = dataclasses.replace(
            made, **dict(zip(names, drawn, strict=True))
        )
        return changed


def _draw(key: jax.Array, low: float, high: float) -> jax.Array:
    if isinstance(low, int) and isinstance(high, int):
        return jax.random.randint(key, (), low, high + 1, jnp.int32)
    return jax.random.uniform(key, (), jnp.float32, low, high)
