"""The loop on the device with a replay: transitions are drawn from what was stored before."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lpml.agents.builder import AbstractBuilder
from lpml.agents.intake import AbstractIntake, Brought, Learning
from lpml.errors import UsageError
from lpml.nodes import simulation
from lpml.nodes.data_parallel import place, replicate, spread
from lpml.nodes.replay import Prioritised, Step, TableConfig, Transitions
from lpml.nodes.replay.functional import BufferState, make_buffer
from lpml.nodes.simulation import AbstractSimulation, Simulated, Ticked
from lpml.nodes.updates import many_updates

_MOST_TICKS = 64  # between updates that come seldom


class Held(NamedTuple):
    """What `FromReplay` holds."""

    buffer: BufferState
    key: jax.Array
    """Of its draws."""


@final
class FromReplay(AbstractIntake):
    """T ticks into a replay on the device, then K draws from it, each of several batches.

    T is the smallest number for which K is whole, so that ticks and draws are in the proportion
    of the table's limiter. A tick without a step, in which an episode begins, counts as one. There
    is no update before the replay holds as many items as the limiter wants.

    Raises:
      UsageError: an environment's share of the replay is too short for an item.
    """

    def __init__(
        self,
        builder: AbstractBuilder,
        environment: AbstractSimulation,
        num_envs: int,
        table: TableConfig,
        view: Transitions,
    ) -> None:
        batches, bounds = builder.batches, table.limiter.bounds
        self._environment, self._num_envs = environment, num_envs
        self._policy = builder.policy(environment.spec)
        self._algorithm = builder.algorithm(environment.spec)
        self._per_draw = batches.updates_per_step
        self._count = batches.batch_size * batches.updates_per_step
        self._many = many_updates(self._algorithm, batches.updates_per_step, batches.batch_size)
        self._min_size = bounds.min_size
        self._capacity = -(-table.max_size // num_envs)
        if self._capacity <= view.n_step:
            raise UsageError(
                f"anakin: a replay of {table.max_size} items over num_envs={num_envs} environments "
                f"leaves each {self._capacity} steps, fewer than the {view.n_step + 1} of an item; "
                "take fewer environments, or a larger replay"
            )
        sampler = table.sampler
        exponent = sampler.exponent if isinstance(sampler, Prioritised) else None
        self._buffer = make_buffer(
            self._capacity,
            num_envs,
            n_step=view.n_step,
            discount=view.discount,
            priority_exponent=exponent,
        )
        unbounded = np.isinf(bounds.max_diff)
        draws = Fraction(
            1.0 if unbounded else num_envs * bounds.samples_per_insert / self._count
        ).limit_denominator(_MOST_TICKS)
        draws = max(draws, Fraction(1, _MOST_TICKS))
        self._ticks, self._draws = draws.denominator, draws.numerator

    @property
    def ticks(self) -> int:
        return self._ticks

    @property
    def updates(self) -> int:
        return self._draws * self._per_draw

    @property
    def rows(self) -> int:
        return self._capacity

    def init(self, key: jax.Array) -> Held:
        spec = self._environment.spec
        shapes = Step(spec.observation, spec.action, np.float32(0), np.float32(0))
        shapes = shapes._replace(extras=self._policy.extras)
        row = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return Held(self._buffer.init(row), key)

    def place(self, held: Held, mesh: Mesh | None) -> Held:
        """Steps are divided, each device has those of its environments; weights are whole."""
        steps = held.buffer.steps
        buffer, key = place((held.buffer._replace(steps=()), held.key), mesh, divided=False)
        return Held(buffer._replace(steps=place(steps, mesh, divided=True)), key)

    def iterate(
        self, learning: Learning, simulated: Simulated, held: Held
    ) -> tuple[Learning, Simulated, Held, Brought]:
        params = self._algorithm.variables(learning.state)

        def one(carry: tuple[Simulated, BufferState], key: jax.Array) -> tuple[Any, Ticked]:
            simulated, (row, ticked) = simulation.advance(
                self._environment, self._policy, params, carry[0], key
            )
            return (simulated, self._buffer.insert(carry[1], row, ~ticked.valid)), ticked

        simulated, keys = simulation.draw_keys(simulated, self._ticks)
        (simulated, buffer), ticked = jax.lax.scan(one, (simulated, held.buffer), keys)
        key, draw_key = jax.random.split(held.key)
        carry = learning, _divided(buffer)
        keys = jax.random.split(draw_key, self._draws)
        brought = jax.eval_shape(self._learn, carry, keys)[1]

        def rest(carry: Any, keys: jax.Array) -> Any:
            del keys
            return carry, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), brought)

        ready = self._buffer.can_sample(buffer, self._min_size)
        (learning, buffer), metrics = jax.lax.cond(ready, self._learn, rest, carry, keys)
        made = jnp.where(ready, jnp.int32(self.updates), jnp.int32(0))
        sums = simulation.sums_of(ticked, simulated.lanes)
        return learning, simulated, Held(buffer, key), Brought(metrics, made, sums)

    def _learn(self, carry: tuple[Learning, BufferState], keys: jax.Array) -> Any:
        """K draws; the new carry, and means of the metrics."""

        def draw(carry: tuple[Learning, BufferState], key: jax.Array) -> Any:
            (state, bad, version), buffer = carry
            sample = self._buffer.sample(buffer, key, self._count)
            data = replicate(sample.data)
            size = jnp.sum(buffer.items, dtype=jnp.float32)
            state, update, bad = self._many(state, data, sample.probabilities, size, bad, version)
            if update.priorities is not None:
                buffer = self._buffer.update_priorities(
                    buffer, sample.indices, replicate(update.priorities)
                )
            learning = Learning(state, bad, version + self._per_draw)
            return (learning, _divided(buffer)), update.metrics

        carry, metrics = jax.lax.scan(draw, carry, keys)
        return carry, jax.tree.map(jnp.mean, metrics)


def _divided(buffer: BufferState) -> BufferState:
    steps = spread(buffer.steps)
    whole: BufferState = replicate(buffer._replace(steps=()))
    return whole._replace(steps=steps)
