"""Whose fault a number is that is not finite: what environments of the host gave is looked at."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

import lpml
from lpml.errors import NotFinite
from lpml.nodes.environment import AbstractEnvironment, Timestep


def check_step(environment: AbstractEnvironment, step: Timestep, at: int, seed: int) -> None:
    """Raises NotFinite if a reward or an observation is not; some microseconds where they are few.

    Args:
      environment: what made the step.
      step: to look at.
      at: its number in the node, for the message.
      seed: of the environments, for the message.
    """
    reward = step.reward
    if not _is_finite(reward):
        _raise_for(environment, "a reward", np.where(step.valid, reward, 0), at, seed)
    check_observation(environment, step.observation, at, seed)
    if step.arrival is not step.observation:
        check_observation(environment, step.arrival, at, seed)


def check_observation(
    environment: AbstractEnvironment, observation: Any, at: int, seed: int
) -> None:
    """As `check_step`, of observations `[E, ...]`."""
    if isinstance(observation, np.ndarray):
        if not _is_finite(observation):
            _raise_for(environment, "an observation", observation, at, seed)
        return
    for leaf in jax.tree.leaves(observation):
        if not _is_finite(leaf):
            _raise_for(environment, "an observation", leaf, at, seed)


def _is_finite(numbers: npt.NDArray[Any]) -> bool:
    """False where one is not finite, or where squares are too large to tell."""
    return numbers.dtype.kind != "f" or math.isfinite(np.vdot(numbers, numbers))


def _raise_for(
    environment: AbstractEnvironment, what: str, numbers: npt.NDArray[Any], at: int, seed: int
) -> None:
    """Raises NotFinite if one of `[E, ...]` is not."""
    finite = np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)
    if finite.all():
        return
    lanes = np.flatnonzero(~finite).tolist()
    seen = numbers[lanes[0]]
    name = environment.spec.name or type(environment).__name__
    raise NotFinite(
        f"{lpml.context().name}: {name} gave {what} that is not finite "
        f"({seen[~np.isfinite(seen)].flat[0]}) at step {at} of the node in environments {lanes} of "
        f"{len(numbers)}, which began with seed {seed}; the fault is the environment's or the "
        "action's, and no learning rate repairs it"
    )
