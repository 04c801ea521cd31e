"""Networks of frames: an agent that is given pixels takes convolutions, without being told."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from lpml.agents import AbstractBuilder
from lpml.agents.impala import ImpalaBuilder, ImpalaConfig
from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.agents.torsos import are_frames
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
    ("shape", "dtype", "yes"),
    [((84, 84, 4), BYTES, True), ((2, 6, 6), np.dtype(np.float32), False), ((128,), BYTES, False)],
)
def test_frames_are_one_array_of_bytes(
    shape: tuple[int, ...], dtype: np.dtype[Any], yes: bool
) -> None:
    leaf = jax.ShapeDtypeStruct(shape, dtype)
    assert are_frames(leaf) == yes
    assert not are_frames({"a": leaf, "b": leaf})
