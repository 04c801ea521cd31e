"""Networks of frames: an agent that is given pixels takes convolutions, without being told."""

from __future__ import annotations

from typing import Any

import haiku as hk
import jax
import numpy as np
import pytest

from lpml.agents import AbstractBuilder
from lpml.agents.impala import ImpalaBuilder, ImpalaConfig
from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.agents.torsos import are_frames, convolutions, convolve
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.experience import example_batch
from lpml.nodes.learning import Experience

BYTES = np.dtype(np.uint8)
FRAMES = EnvironmentSpec(
    jax.ShapeDtypeStruct((20, 20, 4), BYTES),
    jax.ShapeDtypeStruct((), np.dtype(np.int32)),
    num_actions=3,
)
BUILDERS = {
    "ppo": PPOBuilder(PPOConfig(batch_size=2, unroll_length=2, hidden=(8,), epochs=1)),
    "impala": ImpalaBuilder(ImpalaConfig(batch_size=2, sequence_length=2, hidden=(8,), lstm=4)),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_frames_pass_through_convolutions(name: str) -> None:
    builder: AbstractBuilder = BUILDERS[name]
    algorithm, policy = builder.algorithm(FRAMES), builder.policy(FRAMES)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    params = algorithm.variables(state)
    assert [leaf.shape for leaf in jax.tree.leaves(params) if len(leaf.shape) == 4] == [
        (8, 8, 4, 32),
        (4, 4, 32, 64),
        (3, 3, 64, 64),
    ]
    frames = jax.ShapeDtypeStruct((5, 20, 20, 4), BYTES)
    output: Any = jax.eval_shape(policy.act, params, jax.random.key(0), frames, policy.init(5))
    assert output.action.shape == (5,)
    (table,) = builder.tables(FRAMES)
    data = example_batch(table, builder.cuts(FRAMES)[table.name], 2).data
    assert data.steps.observation.dtype == np.uint8
    ones: Any = np.ones(2, np.float32)
    after, _ = jax.eval_shape(algorithm.update, state, Experience(data, ones, ones[0]))
    assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(
        lambda leaf: leaf.shape, state
    )


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(20, 8, 4), (11, 4, 2), (7, 3, 1), (84, 8, 4)]
)
def test_what_is_differentiated_is_the_convolution(size: int, kernel: int, stride: int) -> None:
    images_key, key = jax.random.split(jax.random.key(0))
    images = jax.random.normal(images_key, (2, size, size - 1, 3))
    w = jax.random.normal(key, (kernel, kernel, 3, 5))

    def plain(images: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            images, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    outputs, vjp = jax.vjp(lambda images, w: convolve(images, w, stride), images, w)
    expected, plain_vjp = jax.vjp(plain, images, w)
    np.testing.assert_allclose(np.asarray(outputs), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(convolve(images, w, stride), expected)
    for gradient, right in zip(vjp(expected), plain_vjp(expected), strict=True):
        np.testing.assert_allclose(gradient, right, rtol=1e-4, atol=1e-2)


def test_parameters_are_named_and_drawn_as_haiku_does() -> None:
    def theirs(images: Any) -> Any:
        for layer in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            images = hk.Conv2D(*layer)(images)
        return images

    images = np.zeros((2, 20, 20, 4), np.float32)
    drawn = [
        hk.transform(network).init(jax.random.key(0), images) for network in (convolutions, theirs)
    ]
    jax.tree.map(np.testing.assert_array_equal, *drawn)


@pytest.mark.parametrize(
    ("shape", "dtype", "yes"),
    [((84, 84, 4), BYTES, True), ((2, 6, 6), np.dtype(np.float32), False), ((128,), BYTES, False)],
)
def test_frames_are_one_array_of_bytes(
    shape: tuple[int, ...], dtype: np.dtype[Any], yes: bool
) -> None:
    leaf = jax.ShapeDtypeStruct(shape, dtype)
    assert are_frames(leaf) == yes
    assert not are_frames({"a": leaf, "b": leaf})
