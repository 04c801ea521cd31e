"""What the supervised half learns: a few numbers of a frame, from which the next is foretold.

The label of a frame is what the simulator showed next. What cannot be foretold, such as snow, is
no help with that, so the numbers come to say what can: where things are and where they go.

Reference: Ha and Schmidhuber, "World Models" (2018); Watter et al., "Embed to Control" (2015).

Letters: B batch, D features, `[...]` any axes in front of those of a frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from lpml.errors import UsageError
from lpml.nodes import Flat, Params
from lpml.nodes.environment import EnvironmentSpec

_BRIGHTEST = 0.99  # of the brightest pixel: as bright as it, up to rounding


class Weights(NamedTuple):
    """What the parameter server holds."""

    encoder: Params
    """Makes features of a frame; the reinforcement-learning half reads these."""
    predictor: Params
    """Makes the next frame of features and an action."""


@final
@dataclass(frozen=True)
class Model:
    """Encoder and predictor for the frames of one environment, as pure functions.

    Args:
      shape: of a frame.
      num_actions: A.
      features: D, numbers in [-1, 1] that are kept of a frame.
      units: of the first layer of the encoder, which is the same for each pixel.
      hidden: units of the layer in the predictor.
    """

    shape: tuple[int, ...]
    num_actions: int
    features: int = 32
    units: int = 8
    hidden: int = 128

    @classmethod
    def of(cls, spec: EnvironmentSpec, *, features: int, units: int) -> Model:
        """The model for an environment.

        Raises:
          UsageError: its observations are no single array, or its actions not discrete.
        """
        frame = spec.observation
        if not isinstance(frame, jax.ShapeDtypeStruct) or spec.num_actions is None:
            raise UsageError(
                f"{spec.name or 'the environment'}: observations {frame}, num_actions="
                f"{spec.num_actions}; the encoder takes one array, and one of several actions"
            )
        return cls(tuple(frame.shape), spec.num_actions, features, units)

    def encode(self, encoder: Params, frames: jax.Array) -> jax.Array:
        """Features `[..., D]` of frames `[..., *shape]`."""
        features: jax.Array = self._encoder.apply(encoder, self._flat(frames))
        return features

    def predict(self, weights: Weights, frames: jax.Array, actions: jax.Array) -> jax.Array:
        """What is expected next, pixels `[..., P]`, after actions `[...]` on `[..., *shape]`."""
        taken = jax.nn.one_hot(actions, self.num_actions, dtype=jnp.float32)
        known = jnp.concatenate([self.encode(weights.encoder, frames), taken], axis=-1)
        pixels: jax.Array = self._predictor.apply(weights.predictor, known)
        return pixels

    def loss(self, weights: Weights, frames: Any, actions: Any, following: Any) -> jax.Array:
        """Mean squared error of all pixels of the frames that follow."""
        error = self.predict(weights, frames, actions) - self._flat(following)
        return jnp.mean(error**2)

    def measure(
        self, weights: Weights, frames: Any, actions: Any, following: Any
    ) -> tuple[jax.Array, jax.Array]:
        """The loss, and how much of what is brightest in the frames that follow was foretold.

        The second is a share: of the n brightest pixels of a frame, those that are among the n that
        the prediction has brightest.
        """
        predicted, seen = self.predict(weights, frames, actions), self._flat(following)
        bright = seen >= _BRIGHTEST * jnp.max(seen, axis=-1, keepdims=True)
        # place of each pixel in the order of the prediction, 0 = brightest
        place = jnp.argsort(jnp.argsort(-predicted, axis=-1), axis=-1)
        foretold = bright & (place < jnp.sum(bright, axis=-1, keepdims=True))
        share = jnp.sum(foretold, dtype=jnp.float32) / jnp.sum(bright, dtype=jnp.float32)
        return jnp.mean((predicted - seen) ** 2), share

    def init(self, seed: int = 0) -> Weights:
        """Parameters drawn LeCun-normal, biases 0; by numpy, so that no jax backend is started."""
        key, known = np.zeros((2,), np.uint32), self.features + self.num_actions
        sizes = {"encoder": self._pixels, "predictor": known}
        shapes = Weights(
            **{
                name: jax.eval_shape(
                    getattr(self, f"_{name}").init, key, np.zeros((1, size), np.float32)
                )
                for name, size in sizes.items()
            }
        )
        rng = np.random.default_rng(seed)

        def draw(leaf: jax.ShapeDtypeStruct) -> Any:
            scale = math.sqrt(1 / leaf.shape[0]) if len(leaf.shape) == 2 else 0.0
            return np.asarray(scale * rng.standard_normal(leaf.shape), np.float32)

        drawn: Weights = jax.tree.map(draw, shapes)
        return drawn

    def gradient(self, weights: Flat, *batch: Any) -> tuple[jax.Array, Flat]:
        """The loss of a batch and its gradient, for `jit`, in the form of the parameters."""
        value, grads = jax.value_and_grad(self.loss)(weights.tree, *batch)
        return value, Flat.of(grads)

    @property
    def _pixels(self) -> int:
        return math.prod(self.shape)

    @property
    def _encoder(self) -> Any:
        return hk.without_apply_rng(hk.transform(self._make_features))

    @property
    def _predictor(self) -> Any:
        return hk.without_apply_rng(hk.transform(self._make_pixels))

    def _make_features(self, pixels: jax.Array) -> jax.Array:
        seen = jax.nn.relu(hk.Linear(self.units, name="pixel")(pixels[..., None]))
        seen = seen.reshape(*pixels.shape[:-1], -1)
        features: jax.Array = jnp.tanh(hk.Linear(self.features, name="features")(seen))
        return features

    def _make_pixels(self, known: jax.Array) -> jax.Array:
        predicted: jax.Array = hk.nets.MLP([self.hidden, self._pixels], name="predictor")(known)
        return predicted

    def _flat(self, frames: Any) -> jax.Array:
        frames = jnp.asarray(frames).astype(jnp.float32)
        flat: jax.Array = frames.reshape(*frames.shape[: frames.ndim - len(self.shape)], -1)
        return flat
