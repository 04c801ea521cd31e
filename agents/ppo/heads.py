"""How the numbers of a network are a distribution over actions.

Letters: `[...]` are any axes in front, A the number of actions, D the size of a continuous one.
What is drawn is called raw: the action itself, or what becomes one when it is squashed. Ratios of
probabilities are those of raw draws: the same, since what makes an action of one does not depend
on the parameters, and exact where a tanh is flat.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from lpml.errors import UsageError
from lpml.nodes.environment import EnvironmentSpec


class AbstractHead(ABC):
    """A distribution over actions, given the numbers `outputs` of a network."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many numbers the network gives: a vector `[..., size]`."""

    @property
    @abstractmethod
    def has_deviation(self) -> bool:
        """Whether there is also a deviation, which does not depend on the observation."""

    @property
    @abstractmethod
    def raw(self) -> jax.ShapeDtypeStruct:
        """Of one draw."""

    @property
    @abstractmethod
    def is_indirect(self) -> bool:
        """Whether a draw is something else than the action it becomes."""

    @abstractmethod
    def sample(self, outputs: Any, key: jax.Array) -> jax.Array:
        """Draws, `[..., *raw.shape]`; the random key is consumed."""

    @abstractmethod
    def mode(self, outputs: Any) -> jax.Array:
        """The likeliest draw."""

    @abstractmethod
    def log_prob(self, outputs: Any, raw: jax.Array) -> jax.Array:
        """`[...]`: of draws."""

    @abstractmethod
    def entropy(self, outputs: Any, key: jax.Array) -> jax.Array:
        """`[...]`: of the actions, perhaps estimated by a draw; the random key is consumed."""

    @abstractmethod
    def action(self, raw: jax.Array) -> jax.Array:
        """What a draw does in the environment."""

    @abstractmethod
    def scores(self, outputs: Any) -> jax.Array:
        """`[..., size]`: what the action was chosen by."""


@final
@dataclass(frozen=True)
class Categorical(AbstractHead):
    """One of A actions; outputs are logits `[..., A]`."""

    num_actions: int
    dtype: Any = jnp.int32

    @property
    def size(self) -> int:
        return self.num_actions

    @property
    def has_deviation(self) -> bool:
        return False

    @property
    def raw(self) -> jax.ShapeDtypeStruct:
        return array_spec((), self.dtype)

    @property
    def is_indirect(self) -> bool:
        return False

    def sample(self, outputs: Any, key: jax.Array) -> jax.Array:
        return jax.random.categorical(key, outputs).astype(self.dtype)

    def mode(self, outputs: Any) -> jax.Array:
        return jnp.argmax(outputs, axis=-1).astype(self.dtype)

    def log_prob(self, outputs: Any, raw: jax.Array) -> jax.Array:
        chosen = jnp.take_along_axis(outputs, raw[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(outputs, axis=-1)

    def entropy(self, outputs: Any, key: jax.Array) -> jax.Array:
        del key
        log_p = jax.nn.log_softmax(outputs)
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

    def action(self, raw: jax.Array) -> jax.Array:
        return raw

    def scores(self, outputs: Any) -> jax.Array:
        scores: jax.Array = outputs
        return scores


class Normal(NamedTuple):
    """Independent normal distributions, one a coordinate."""

    mean: jax.Array
    """`[..., D]`."""
    log_std: jax.Array
    """`[D]`."""


@final
@dataclass(frozen=True, eq=False)
class Gaussian(AbstractHead):
    """D independent coordinates; outputs are a `Normal`.

    Args:
      shape: of an action; D is its size.
      dtype: of an action.
      low, high: bounds of that shape: a draw of -1 is the one, of 1 the other, once it is
        squashed or cut off. `None` = a draw is an action.
      squash: draws go through a tanh, rather than being cut off at -1 and 1.
    """

    shape: tuple[int, ...]
    dtype: Any = jnp.float32
    low: npt.NDArray[Any] | None = None
    high: npt.NDArray[Any] | None = None
    squash: bool = True

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def has_deviation(self) -> bool:
        return True

    @property
    def raw(self) -> jax.ShapeDtypeStruct:
        return array_spec((self.size,))

    @property
    def is_indirect(self) -> bool:
        return True

    def sample(self, outputs: Any, key: jax.Array) -> jax.Array:
        mean, log_std = _normal(outputs)
        noise = jax.random.normal(key, mean.shape)
        return mean + noise * _like(jnp.exp(log_std), mean)

    def mode(self, outputs: Any) -> jax.Array:
        return _normal(outputs).mean

    def log_prob(self, outputs: Any, raw: jax.Array) -> jax.Array:
        mean, log_std = _normal(outputs)
        z = (raw - mean) * _like(jnp.exp(-log_std), mean)
        constant = jnp.sum(log_std) + 0.5 * self.size * math.log(2 * math.pi)
        return -0.5 * jnp.sum(z**2, axis=-1) - constant

    def entropy(self, outputs: Any, key: jax.Array) -> jax.Array:
        mean, log_std = _normal(outputs)
        entropy = jnp.sum(log_std) + 0.5 * self.size * math.log(2 * math.pi * math.e)
        if self.low is None or not self.squash:
            return jnp.broadcast_to(entropy, mean.shape[:-1])
        # log of the derivative of tanh, in a form that is exact where tanh is flat
        u = self.sample(outputs, key)
        slope = 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
        return entropy + jnp.sum(slope, axis=-1)

    def action(self, raw: jax.Array) -> jax.Array:
        shaped = raw.reshape(*raw.shape[:-1], *self.shape)
        if self.low is None or self.high is None:
            return shaped.astype(self.dtype)
        unit = jnp.tanh(shaped) if self.squash else jnp.clip(shaped, -1.0, 1.0)
        low, high = jnp.asarray(self.low, unit.dtype), jnp.asarray(self.high, unit.dtype)
        action = _like(low, unit) + 0.5 * (unit + 1.0) * _like(high - low, unit)
        return jnp.clip(action, _like(low, unit), _like(high, unit)).astype(self.dtype)

    def scores(self, outputs: Any) -> jax.Array:
        return _normal(outputs).mean


def make_head(spec: EnvironmentSpec, *, squash: bool = True) -> AbstractHead:
    """The distribution that fits the actions of `spec`.

    Args:
      spec: discrete, or continuous with or without bounds.
      squash: bounded continuous actions through a tanh, else cut off.

    Raises:
      UsageError: actions are neither.
    """
    action = spec.action
    if spec.num_actions is not None and action.shape == ():
        return Categorical(spec.num_actions, action.dtype)
    if spec.num_actions is not None or not np.issubdtype(action.dtype, np.floating):
        raise UsageError(
            f"PPO: {spec.name or 'the environment'} has actions {action}; it acts with one "
            "discrete action or with an array of floats: wrap the environment in one of these"
        )
    low, high = spec.low, spec.high
    if low is None or high is None or not (np.isfinite(low).all() and np.isfinite(high).all()):
        low = high = None
    return Gaussian(action.shape, action.dtype, low, high, squash)


def array_spec(shape: tuple[int, ...] = (), dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """An array without its values."""
    return jax.ShapeDtypeStruct(shape, dtype)


def _normal(outputs: Any) -> Normal:
    normal: Normal = outputs
    return normal


def _like(vector: jax.Array, other: jax.Array) -> jax.Array:
    """With axes of 1 in front, as many as `other` has more: ranks are never promoted."""
    return vector.reshape(*[1] * (other.ndim - vector.ndim), *vector.shape)
