"""Catch in jax: a ball falls, a paddle moves below it.

Reference: Osband et al., "Behaviour Suite for Reinforcement Learning" (2020); Mnih et al.,
"Recurrent Models of Visual Attention" (2014), section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.jax_environments import drawing
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.simulation import AbstractDrawn


class CatchState(NamedTuple):
    """Where ball and paddle are."""

    row: jax.Array
    column: jax.Array
    paddle: jax.Array


@final
@dataclass(frozen=True)
class Catch(AbstractDrawn):
    """`lpml.agents.catch.Catch`, one board: +1 for a ball that is caught, -1 for one that is not.

    An observation is the board, float32, with a 1 for the ball and one for the paddle. Actions are
    left, stay and right. An episode takes `rows - 1` steps.
    """

    rows: int = 10
    columns: int = 5

    @property
    def spec(self) -> EnvironmentSpec:
        return EnvironmentSpec(
            observation=jax.ShapeDtypeStruct((self.rows, self.columns), jnp.dtype(jnp.float32)),
            action=jax.ShapeDtypeStruct((), jnp.dtype(jnp.int32)),
            num_actions=3,
            name="jax/Catch",
        )

    def reset(self, key: jax.Array) -> tuple[CatchState, jax.Array]:
        column = jax.random.randint(key, (), 0, self.columns, jnp.int32)
        middle = jnp.full((), self.columns // 2, jnp.int32)
        state = CatchState(jnp.zeros((), jnp.int32), column, middle)
        return state, self._observe(state)

    def step(
        self, state: CatchState, action: jax.Array, key: jax.Array
    ) -> tuple[CatchState, jax.Array, jax.Array, jax.Array, jax.Array]:
        del key
        paddle = jnp.clip(state.paddle + action - 1, 0, self.columns - 1)
        new = CatchState(state.row + 1, state.column, paddle)
        last = new.row >= self.rows - 1
        caught = jnp.where(new.column == paddle, jnp.float32(1), jnp.float32(-1))
        reward = jnp.where(last, caught, jnp.float32(0))
        return new, self._observe(new), reward, last, jnp.zeros((), jnp.bool_)

    def render(self, state: CatchState) -> drawing.Picture:
        cells = np.zeros((self.rows, self.columns), np.int32)
        cells[-1, int(state.paddle)] = 1
        cells[int(state.row), int(state.column)] = 2
        return drawing.board(cells, {1: drawing.INK, 2: drawing.RED}, 20)

    def _observe(self, state: CatchState) -> jax.Array:
        rows, columns = jnp.arange(self.rows)[:, None], jnp.arange(self.columns)[None]
        ball = (rows == state.row) & (columns == state.column)
        paddle = (rows == self.rows - 1) & (columns == state.paddle)
        return (ball | paddle).astype(jnp.float32)
