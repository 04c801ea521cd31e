"""Thousands of environments in one jitted program: stepped from the host, or asked for rollouts."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

import lpml
from lpml.errors import NotFinite, UsageError
from lpml.nodes.acting import Policy
from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep
from lpml.nodes.flat import Flat
from lpml.nodes.memory import check_bytes
from lpml.nodes.replay import Sequence
from lpml.nodes.roles import Params
from lpml.nodes.simulation import (
    AbstractSimulation,
    Lanes,
    Simulated,
    begin,
    begin_episodes,
    rollout,
    tick,
)
from lpml.nodes.simulation_keys import action_key, lane_roots
from lpml.nodes.windows import EpisodeSums


@dataclass(frozen=True)
class SimulatorStatistics:
    """What a simulator did in its rollouts so far."""

    steps: int
    """Of all environments together."""
    episodes: int
    """That ended; the means are over these, and 0 before the first."""
    mean_return: float
    mean_length: float


@final
class VectorSimulator(AbstractEnvironment):
    """E environments that are pure functions, stepped together on the device.

    An `AbstractEnvironment` for actors and evaluators of the host; and, with a policy, a service
    whose `rollout` acts T times in each without leaving the device. An environment takes a tick of
    its own to begin its next episode: a step that is not `valid`.

    Args:
      environment: one of them.
      num_envs: E.
      seed: of all that is random; environment i draws the same numbers for any E.
      policy: how to act in rollouts; `None` = there are none.
      length: T of a rollout that is asked for without a length.
      device: where they are; `None` = jax's own choice.

    Raises:
      UsageError: E is out of range, or more than memory holds.
    """

    lpml_role: ClassVar[str] = "simulator"

    def __init__(
        self,
        environment: AbstractSimulation,
        num_envs: int = 1,
        seed: int = 0,
        *,
        policy: Policy | None = None,
        length: int = 32,
        device: jax.Device | None = None,
    ) -> None:
        check_memory(environment, num_envs, length=0 if policy is None else length)
        self._device = device
        self._environment = environment
        self._num_envs = num_envs
        self._policy = policy
        self._length = length
        self._seed = seed
        self._sums = np.zeros(4)  # steps, episodes, returns, lengths
        self._shared: Any = _hashable(environment)
        self._lanes: Lanes = self._begin(seed)
        self._policy_state: Any = None
        self._policy_key: Any = None

    @property
    def spec(self) -> EnvironmentSpec:
        return self._environment.spec

    @property
    def num_envs(self) -> int:
        return self._num_envs

    @property
    def environment(self) -> AbstractSimulation:
        """One of them."""
        return self._environment

    def reset(self, seed: int | None = None) -> Any:
        if seed is not None:
            self._seed = seed
            self._policy_state = None
            self._lanes = self._begin(seed)
        else:
            old = self._lanes
            self._lanes = _episodes(self._shared, old.root, old.episode + 1)
        return jax.tree.map(np.array, self._lanes.observation)

    def step(self, action: npt.NDArray[Any]) -> Timestep:
        """One tick of every environment.

        Raises:
          NotFinite: a state, observation or reward is not; the message names the environment and
            the seed of its episode.
        """
        self._lanes, seen = _tick(self._shared, self._lanes, action)
        observation, reward, discount, last, begins, valid, is_bad = jax.tree.map(np.array, seen)
        if is_bad:
            raise_bad(self._environment, self._lanes, self._seed)
        return Timestep(observation, reward, discount, last, observation, begins, valid)

    def rollout(self, params: Params, length: int | None = None) -> Sequence:
        """Acts T times in each environment and returns what an on-policy learner takes.

        Args:
          params: of the policy.
          length: T; each new one is compiled.

        Returns:
          A `Sequence` of `Step`s `[E, T + 1, ...]`; the last row is the first of the next rollout.

        Raises:
          UsageError: the simulator has no policy.
          NotFinite: as `step`.
        """
        sequence, _ = self.roll(params, length)
        made: Sequence = jax.tree.map(np.asarray, sequence)
        return made

    def roll(self, params: Params, length: int | None = None) -> tuple[Sequence, EpisodeSums]:
        """As `rollout`, for who shares the device: the steps stay there.

        Returns:
          Steps `[E, T + 1, ...]`, and numbers about their episodes.
        """
        if self._policy is None:
            raise UsageError("VectorSimulator(policy=None): give a policy to ask for rollouts")
        if self._policy_state is None:
            state = jax.tree.map(np.array, self._policy.init(self._num_envs))  # donated: no aliases
            self._policy_state = jax.device_put(state, self._device)
            self._policy_key = jax.device_put(action_key(self._seed), self._device)
        simulated = Simulated(self._lanes, self._policy_state, self._policy_key)
        simulated, sequence, sums = _rollout(
            self._shared, self._policy.init, self._policy.act, length or self._length, params,
            simulated,
        )  # fmt: skip
        self._lanes, self._policy_state, self._policy_key = simulated
        sums = jax.device_get(sums)
        self._sums += [float(value) for value in sums[:4]]
        if sums.is_bad:
            raise_bad(self._environment, self._lanes, self._seed)
        return sequence, sums

    @lpml.concurrent
    def statistics(self) -> SimulatorStatistics:
        """Of the rollouts so far."""
        steps, episodes, returns, lengths = self._sums.tolist()
        whole = max(episodes, 1.0)
        return SimulatorStatistics(int(steps), int(episodes), returns / whole, lengths / whole)

    def _begin(self, seed: int) -> Lanes:
        roots = _roots(self._num_envs, np.asarray(seed & 0xFFFFFFFF, np.uint32))
        zeros = jnp.zeros(self._num_envs, jnp.int32)
        lanes: Lanes = _episodes(self._shared, *jax.device_put((roots, zeros), self._device))
        return lanes


@final
class _Same:
    """Stands for an environment that cannot be hashed: compiled functions are its own."""

    def __init__(self, environment: AbstractSimulation) -> None:
        self.environment = environment


def _hashable(environment: AbstractSimulation) -> _Same | AbstractSimulation:
    try:
        hash(environment)
    except TypeError:
        return _Same(environment)
    return environment


def _plain(shared: _Same | AbstractSimulation) -> AbstractSimulation:
    return shared.environment if isinstance(shared, _Same) else shared


# Simulators of equal environments share what is compiled.


_roots = jax.jit(lane_roots, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _episodes(shared: Any, roots: jax.Array, episodes: jax.Array) -> Lanes:
    """Of the first episodes and of the next: physics takes long to compile."""
    return begin_episodes(_plain(shared), roots, episodes)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _tick(shared: Any, lanes: Lanes, action: jax.Array) -> tuple[Lanes, tuple[Any, ...]]:
    lanes, outcome = tick(_plain(shared), lanes, action)
    return lanes, (
        lanes.observation,
        outcome.reward,
        outcome.discount,
        outcome.last,
        lanes.begins,
        outcome.valid,
        jnp.any(lanes.bad_step >= 0),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=5)
def _rollout(
    shared: Any, init: Any, act: Any, length: int, params: Params, simulated: Simulated
) -> tuple[Simulated, Sequence, EpisodeSums]:
    params = params.tree if isinstance(params, Flat) else params
    return rollout(_plain(shared), Policy(init, act), params, simulated, length)


def raise_bad(environment: AbstractSimulation, lanes: Lanes, seed: int) -> None:
    """Raises NotFinite with the first environment that was not finite."""
    steps = np.asarray(lanes.bad_step)
    index = int(np.flatnonzero(steps >= 0)[0])
    episode = int(np.asarray(lanes.bad_seed)[index])
    raise NotFinite(
        f"{lpml.context().name}: environment {index} of {len(steps)} ({environment.spec.name}, "
        f"seed {seed}) was not finite after step {int(steps[index])} of its episode; to replay it: "
        f"environment.reset(lpml.nodes.replay_keys({episode}, 0)), then step n with "
        f"replay_keys({episode}, n)"
    )


def check_memory(
    environment: AbstractSimulation, num_envs: int, memory: int | None = None, length: int = 0
) -> None:
    """Raises UsageError if E environments are none, or more than memory holds.

    Args:
      environment: one of them.
      num_envs: E.
      memory: bytes there are; `None` = those of the device, or of the machine.
      length: rows of each that are held besides its state.
    """
    name = environment.spec.name
    if num_envs < 1:
        raise UsageError(f"{name}: num_envs={num_envs}; give at least 1")
    one = jax.eval_shape(lambda: begin(environment, 1, 0))
    lanes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(one))
    observation = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(one.observation))
    needed = num_envs * (2 * lanes + length * observation)  # old and new, side by side
    check_bytes(needed, f"{name}: num_envs", num_envs, memory)
