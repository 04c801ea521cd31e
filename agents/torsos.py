"""What agents share of their networks: layers for frames of pixels."""

from __future__ import annotations

import functools
from typing import Any, final

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, kernel, stride


def are_frames(observation: Any, lead: int = 0) -> bool:
    """Whether observations are frames of pixels: one array of bytes, `[H, W, C]`.

    Args:
      observation: of an `EnvironmentSpec`, or such arrays.
      lead: axes before these.
    """
    leaves = jax.tree.leaves(observation)
    return len(leaves) == 1 and len(leaves[0].shape) == lead + 3 and leaves[0].dtype == np.uint8


def of_frames(frames: jax.Array, w_init: Any = None) -> jax.Array:
    """Features `[..., F]` of frames of bytes `[..., H, W, C]`; `w_init`: of haiku's layers."""
    lead = frames.shape[:-3]
    images = frames.reshape(-1, *frames.shape[-3:]).astype(jnp.float32) * (1 / 255)
    return convolutions(images, w_init).reshape(*lead, -1)


def convolutions(images: jax.Array, w_init: Any = None) -> jax.Array:
    """The three layers of Mnih et al. (2015) over `[N, H, W, C]`; padded: small images pass too."""
    for channels, kernel, stride in _LAYERS:
        images = jax.nn.relu(_Convolution(channels, kernel, stride, w_init)(images))
    return images


@final
class _Convolution(hk.Module):
    """`hk.Conv2D`, with the same names of its parameters, by `convolve`."""

    def __init__(self, channels: int, kernel: int, stride: int, w_init: Any) -> None:
        super().__init__(name="conv2_d")
        self._channels, self._kernel, self._stride, self._w_init = channels, kernel, stride, w_init

    def __call__(self, images: jax.Array) -> jax.Array:
        shape = self._kernel, self._kernel, images.shape[-1], self._channels
        default = hk.initializers.TruncatedNormal(1 / np.sqrt(np.prod(shape[:-1])))
        w = hk.get_parameter("w", shape, images.dtype, init=self._w_init or default)
        b = hk.get_parameter("b", shape[-1:], images.dtype, init=jnp.zeros)
        return convolve(images, w, self._stride) + b.reshape(1, 1, 1, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(images: jax.Array, w: jax.Array, stride: int) -> jax.Array:
    """A convolution whose gradient is fast inside the loops of a learner, on a CPU too.

    There XLA computes a convolution in a loop, as every update is, some ten times slower than
    outside of one. So where it is differentiated it is a product of matrices on a CPU.

    Args:
      images: `[N, H, W, C]`, padded at the borders so that a stride of 1 would keep H and W.
      w: `[K, K, C, D]`.
      stride: divides K.

    Returns:
      `[N, ceil(H / stride), ceil(W / stride), D]`.
    """
    return _plain(images, w, stride)


def _forward(images: jax.Array, w: jax.Array, stride: int) -> tuple[jax.Array, Any]:
    apply = _by_matrices if jax.default_backend() == "cpu" else _plain
    return jax.vjp(lambda images, w: apply(images, w, stride), images, w)


def _backward(stride: int, vjp: Any, gradient: jax.Array) -> Any:
    del stride
    return vjp(gradient)


convolve.defvjp(_forward, _backward)


def _plain(images: jax.Array, w: jax.Array, stride: int) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        images, w, (stride, stride), "SAME", dimension_numbers=dimensions
    )


def _by_matrices(images: jax.Array, w: jax.Array, stride: int) -> jax.Array:
    """The same: squares of `stride` pixels are channels, and the kernel some of these squares."""
    kernel, _, channels, out = w.shape
    rows, columns = (_padding(size, kernel, stride) for size in images.shape[1:3])
    images = jnp.pad(images, ((0, 0), rows, columns, (0, 0)))
    n, height, width = len(images), images.shape[1] // stride, images.shape[2] // stride
    squares = images.reshape(n, height, stride, width, stride, channels)
    squares = squares.transpose(0, 1, 3, 2, 4, 5).reshape(n, height, width, -1)
    side = kernel // stride  # of the kernel, in squares
    height, width = height - side + 1, width - side + 1
    patches = jnp.concatenate(
        [squares[:, i : i + height, j : j + width] for i in range(side) for j in range(side)], -1
    )
    w = w.reshape(side, stride, side, stride, channels, out).transpose(0, 2, 1, 3, 4, 5)
    return patches @ w.reshape(-1, out)


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Before and after, as `SAME` has it."""
    total = (-(-size // stride) - 1) * stride + kernel - size
    return total // 2, total - total // 2
