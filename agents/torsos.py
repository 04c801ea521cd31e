"""What agents share of their networks: layers for frames of pixels."""

from __future__ import annotations

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, kernel, stride


def are_frames(observation: Any) -> bool:
    """Whether observations are frames of pixels: one array of bytes, `[H, W, C]`.

    Args:
      observation: of an `EnvironmentSpec`.
    """
    leaves = jax.tree.leaves(observation)
    return len(leaves) == 1 and len(leaves[0].shape) == 3 and leaves[0].dtype == np.uint8


def of_frames(frames: jax.Array, w_init: Any = None) -> jax.Array:
    """Features `[..., F]` of frames of bytes `[..., H, W, C]`; `w_init`: of haiku's layers."""
    lead = frames.shape[:-3]
    images = frames.reshape(-1, *frames.shape[-3:]).astype(jnp.float32) * (1 / 255)
    return convolutions(images, w_init).reshape(*lead, -1)


def convolutions(images: jax.Array, w_init: Any = None) -> jax.Array:
    """The three layers of Mnih et al. (2015) over `[N, H, W, C]`; padded: small images pass too."""
    for channels, kernel, stride in _LAYERS:
        images = jax.nn.relu(hk.Conv2D(channels, kernel, stride, w_init=w_init)(images))
    return images
