"""Rollouts in environments of the host, put together on the device that chooses the actions."""

from __future__ import annotations

import functools
from typing import Any, Protocol, final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

import lpml
from lpml.nodes.acting import Policy, PolicyState
from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep
from lpml.nodes.episodes import Episodes
from lpml.nodes.finite import check_observation, check_step
from lpml.nodes.host_policy import act_in, check_finite, random_key
from lpml.nodes.replay import Sequence, Step
from lpml.nodes.roles import Params
from lpml.nodes.windows import EpisodeSums, select, windows, with_valid


class RolloutSource(Protocol):
    """Whoever acts T times in each of E environments: a `Collector`, or a `VectorSimulator`."""

    @property
    def num_envs(self) -> int:
        """E."""
        ...

    def roll(self, params: Params) -> tuple[Sequence, EpisodeSums]:
        """Steps `[E, T + 1, ...]` on the device, and what is known of their episodes."""
        ...

    def close(self) -> None:
        """Frees what the environments hold."""
        ...


@final
class Collector:
    """Acts in E environments of the host, and keeps what it sees on the device of the policy.

    Observations go to that device once. The rows are those of `lpml.nodes.simulation.rollout`:
    the last observation of an episode has a row of its own. Environments that begin anew in the
    step that ended an episode bring two rows then; so a rollout ends when the first of them has
    T rows, and the windows of the others are padded (`Sequence.mask`).

    Args:
      environment: to act in; the collector closes it.
      policy: how to act.
      length: T.
      seed: of the environments and the policy.
      device: that chooses actions; `None` = jax's own choice.
    """

    def __init__(
        self,
        environment: AbstractEnvironment,
        policy: Policy,
        length: int,
        *,
        seed: int = 0,
        device: jax.Device | None = None,
    ) -> None:
        self._environment = environment
        self._length = length
        self._device = device
        self._clock = lpml.context().clock
        num_envs = environment.num_envs
        self._policy = policy
        self._episodes = Episodes(num_envs)
        self._seed = seed
        self._observation = environment.reset(seed)
        check_observation(environment, self._observation, 0, seed)
        self._begins = np.ones(num_envs, np.bool_)
        spec = environment.spec
        row = (spec.observation, spec.action, policy.extras)
        rows = jax.tree.map(lambda leaf: np.zeros((length, num_envs, *leaf.shape), leaf.dtype), row)
        state: PolicyState = jax.tree.map(np.array, policy.init(num_envs))
        self._key, self._state, self._rows = jax.device_put((random_key(seed), state, rows), device)
        self._has_state = bool(jax.tree.leaves(state))
        self._calls = 0

    @property
    def spec(self) -> EnvironmentSpec:
        return self._environment.spec

    @property
    def num_envs(self) -> int:
        return self._environment.num_envs

    def roll(self, params: Params) -> tuple[Sequence, EpisodeSums]:
        """Acts T times in each environment, or less often where they begin anew at once.

        Args:
          params: of the policy, on its device; or a `Flat` of them.

        Raises:
          NotFinite: a score of the policy, a reward or an observation is not.
          ProgramStopped: the program stopped meanwhile.
        """
        steps: list[Timestep] = []
        placed = np.zeros(self.num_envs, np.int64)  # rows so far
        while placed.max() < self._length:
            self._clock.check()
            steps.append(self._act(params, len(steps)))
            placed += 1 + (steps[-1].last & steps[-1].begins)
        sums = self._sums(steps)
        if placed.max() == len(steps):
            ended = steps[-1].last & ~steps[-1].begins
            return _join(self._rows, *_columns(steps), self._observation, ended), sums
        return jax.device_put(self._padded(steps, placed), self._device), sums

    def close(self) -> None:
        self._environment.close()

    def _act(self, params: Params, tick: int) -> Timestep:
        """One step of all environments; what the policy saw and chose becomes row `tick`."""
        mask = self._begins if self._has_state else ()
        action, self._key, self._state, self._rows, finite = _act(
            self._policy.init, self._policy.act, params, self._key, self._observation,
            self._state, mask, self._rows, np.int32(tick),
        )  # fmt: skip
        chosen = np.asarray(action)
        self._calls += 1
        check_finite(np.asarray(finite), self._calls)
        step = self._environment.step(chosen)
        check_step(self._environment, step, self._calls, self._seed)
        self._observation, self._begins = step.observation, step.begins
        return step

    def _sums(self, steps: list[Timestep]) -> EpisodeSums:
        before = len(self._episodes.returns)
        for step in steps:
            self._episodes.add(step, step.valid)
        returns, lengths = self._episodes.returns[before:], self._episodes.lengths[before:]
        self._episodes.forget()
        made = sum(int(np.count_nonzero(step.valid)) for step in steps)
        sums: Any = (made, len(returns), sum(returns), float(sum(lengths)), False)
        return EpisodeSums(*sums)

    def _padded(self, steps: list[Timestep], placed: npt.NDArray[np.int64]) -> Sequence:
        """Windows of environments that have two rows in the step that ended an episode."""
        count, width = len(steps), self._length + 1
        rows: Any = jax.tree.map(lambda leaf: np.asarray(leaf)[:count], self._rows)
        reward, discount, valid = _columns(steps)
        twice = np.stack([step.last & step.begins for step in steps])  # [n, E]
        place = np.cumsum(1 + twice, axis=0) - 1 - twice
        lanes = np.arange(self.num_envs)

        def put(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
            window = np.zeros((len(lanes), width, *column.shape[2:]), column.dtype)
            window[lanes[None], place] = column
            return window

        observation, action, extras = jax.tree.map(put, rows)
        is_step = put(valid)
        for tick, lane in np.argwhere(twice).tolist():
            _put(observation, lane, int(place[tick, lane]) + 1, steps[tick].arrival)
        for lane in np.flatnonzero(placed < width).tolist():
            _put(observation, lane, int(placed[lane]), steps[-1].observation)
        is_step[placed == width - 1, -1] = True
        mask: Any = np.arange(width)[None] <= placed[:, None]
        extras = with_valid(extras, is_step)
        made: Any = Step(observation, action, put(reward), put(discount), extras)
        return Sequence(made, mask)


# Collectors of one policy share what is compiled.


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=7)
def _act(
    init: Any,
    act: Any,
    params: Any,
    key: jax.Array,
    observation: Any,
    state: PolicyState,
    begins: Any,
    rows: Any,
    tick: jax.Array,
) -> tuple[Any, ...]:
    """A step of the policy, which becomes row `tick` of the rows `[T, E, ...]`."""
    step = act_in(Policy(init, act))
    action, key, extras, state, finite = step(params, key, observation, state, begins)
    rows = jax.tree.map(
        lambda column, row: jax.lax.dynamic_update_index_in_dim(
            column, row.astype(column.dtype), tick, 0
        ),
        rows,
        (observation, action, extras),
    )
    return action, key, state, rows, finite


def _columns(steps: list[Timestep]) -> tuple[npt.NDArray[Any], ...]:
    """Reward, discount and valid, `[T, E]`; the first two are 0 where there was no step."""
    valid = np.stack([step.valid for step in steps])
    reward = np.where(valid, np.stack([step.reward for step in steps]), np.float32(0))
    discount = np.where(valid, np.stack([step.discount for step in steps]), np.float32(0))
    return reward, discount, valid


@jax.jit
def _join(
    rows: Any,
    reward: jax.Array,
    discount: jax.Array,
    valid: jax.Array,
    observation: Any,
    ended: jax.Array,
) -> Sequence:
    """Windows of environments that have one row in each step."""
    seen, *beside = rows
    action, extras = jax.vmap(select)(valid, beside, jax.tree.map(jnp.zeros_like, beside))
    return windows(Step(seen, action, reward, discount, extras), observation, ended)


def _put(window: Any, lane: int, row: int, observation: Any) -> None:
    for column, leaf in zip(jax.tree.leaves(window), jax.tree.leaves(observation), strict=True):
        column[lane, row] = leaf[lane]
