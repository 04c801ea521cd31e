"""Environments that are pure functions, and how thousands of them step in one jitted program.

E is the number of environments, T that of the ticks of a rollout. In a tick every environment
brings one row: a step, or, in the tick after the last step of an episode, a row that holds its
last observation and nothing else. These are the rows that an `Actor` writes into a replay through
`CutSequences(T + 1, across_episodes=True)`; so a learner takes either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from lpml.nodes.acting import Policy, PolicyState
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.replay import Sequence, Step
from lpml.nodes.roles import Params
from lpml.nodes.simulation_keys import episode_seed, lane_roots, phases, replay_keys
from lpml.nodes.windows import EpisodeSums, select, windows

State: TypeAlias = Any
"""What an environment knows: a tree of arrays."""

_NEVER = np.iinfo(np.int32).max


class AbstractSimulation(ABC):
    """One environment as pure functions that jax can trace; a frozen value.

    Random keys are given, and consumed. A state holds the steps of the episode where time limits
    it.
    """

    @property
    @abstractmethod
    def spec(self) -> EnvironmentSpec:
        """Of the environment."""

    @abstractmethod
    def reset(self, key: jax.Array) -> tuple[State, Any]:
        """Begins an episode: `(state, observation)`."""

    @abstractmethod
    def step(
        self, state: State, action: jax.Array, key: jax.Array
    ) -> tuple[State, Any, jax.Array, jax.Array, jax.Array]:
        """`(state, observation, reward, terminated, truncated)`, also after the last step.

        `terminated`: the episode ended for good; `truncated`: time cut it off. The observation is
        the one that the action led to, not the first of another episode.
        """


class AbstractDrawn(AbstractSimulation):
    """A simulation that can draw itself, for `lpml render`."""

    @abstractmethod
    def render(self, state: State) -> npt.NDArray[np.uint8]:
        """A picture of one state, `[H, W, 3]`: numpy, on the host; H and W are always the same."""


class Lanes(NamedTuple):
    """E environments, each with its own episodes and random numbers: arrays `[E, ...]`."""

    root: jax.Array
    """uint32: what the seeds of all its episodes are made of."""
    episode: jax.Array
    """int32: number of the episode."""
    seed: jax.Array
    """uint32: of all that is random in the episode; see `replay_keys`."""
    steps: jax.Array
    """int32: made in the episode."""
    limit: jax.Array
    """int32: steps after which the episode is cut off, whatever the environment says."""
    state: State
    observation: Any
    begins: jax.Array
    """Whether `observation` is the first of an episode."""
    ended: jax.Array
    """Whether it is the last of one: the next tick makes no step."""
    total: jax.Array
    """float32: rewards of the episode so far."""
    bad_step: jax.Array
    """int32: the first step whose state, observation or reward was not finite, or -1."""
    bad_seed: jax.Array
    """uint32: the seed of its episode."""


class Outcome(NamedTuple):
    """What a tick brought besides the new lanes, `[E]`; zeros where there was no step."""

    reward: jax.Array
    discount: jax.Array
    last: jax.Array
    valid: jax.Array


class Ticked(NamedTuple):
    """How a tick went for the environments, `[E]`: what `sums_of` sums."""

    valid: jax.Array
    """Whether it was a step; else the row holds the last observation of an episode."""
    last: jax.Array
    total: jax.Array
    """float32: rewards of the episode so far."""
    steps: jax.Array


class Simulated(NamedTuple):
    """All that a rollout changes."""

    lanes: Lanes
    policy: PolicyState
    key: jax.Array
    """Of the policy's draws."""


def begin(environment: AbstractSimulation, num_envs: int, seed: int | jax.Array) -> Lanes:
    """E environments at the begin of their first episodes.

    Environment i is the same for any E: its root is drawn with a key of the seed, i folded in.
    """
    return begin_episodes(environment, lane_roots(num_envs, seed), jnp.zeros(num_envs, jnp.int32))


def staggered(environment: AbstractSimulation, lanes: Lanes) -> Lanes:
    """The lanes with each episode cut off after a step of its own, uniform in its time limit.

    For the first episodes of a learner. Where all episodes are as long as time lets them be, they
    would else go in step for ever: each batch would hold one phase of the task, and what a learner
    knows of the others is lost while it learns from that one.
    """
    longest = environment.spec.max_steps
    if longest is None:
        return lanes
    return lanes._replace(limit=1 + phases(lanes.root, longest))


def begin_episodes(environment: AbstractSimulation, roots: jax.Array, episodes: jax.Array) -> Lanes:
    """The begin of episode `episodes[i]` in the environment with `roots[i]`: arrays `[E]`."""
    return jax.vmap(lambda root, n: _first(environment, root, n))(roots, episodes)


def tick(environment: AbstractSimulation, lanes: Lanes, action: jax.Array) -> tuple[Lanes, Outcome]:
    """One row of every environment: a step, or the begin of an episode after the last one's end.

    Args:
      environment: of the lanes.
      lanes: `[E, ...]`.
      action: `[E, ...]`; ignored where `lanes.ended`.
    """
    stepped, outcome = jax.vmap(lambda lane, a: _step(environment, lane, a))(lanes, action)

    def renewed(stepped: Lanes) -> Lanes:
        return jax.vmap(lambda lane, new: _renewed(environment, lane, new))(lanes, stepped)

    if jax.default_backend() != "cpu":  # there a branch takes longer than what it would spare
        return renewed(stepped), outcome
    return jax.lax.cond(jnp.any(lanes.ended), renewed, lambda lanes: lanes, stepped), outcome


def rollout(
    environment: AbstractSimulation,
    policy: Policy,
    params: Params,
    simulated: Simulated,
    length: int,
) -> tuple[Simulated, Sequence, EpisodeSums]:
    """T ticks of E environments under a policy.

    Args:
      environment: of the lanes.
      policy: how to act; its extras become those of the rows, and are zero, `valid` too, where
        there was no step.
      params: of the policy.
      simulated: where it goes on.
      length: T.

    Returns:
      What the next rollout goes on from, steps `[E, T + 1, ...]`, and sums. The last row lends
      its observation (and `valid`, if the policy records one), and is the first of the next.
    """

    def one(simulated: Simulated, key: jax.Array) -> tuple[Simulated, tuple[Step, Ticked]]:
        return advance(environment, policy, params, simulated, key)

    simulated, (rows, ticked) = jax.lax.scan(one, *draw_keys(simulated, length))
    lanes = simulated.lanes
    return simulated, windows(rows, lanes.observation, lanes.ended), sums_of(ticked, lanes)


def draw_keys(simulated: Simulated, length: int) -> tuple[Simulated, jax.Array]:
    """Keys `[T]` for as many ticks, drawn all at once, which is faster than one in each tick."""
    keys = jax.random.split(simulated.key, length + 1)
    return simulated._replace(key=keys[0]), keys[1:]


def advance(
    environment: AbstractSimulation,
    policy: Policy,
    params: Params,
    simulated: Simulated,
    key: jax.Array,
) -> tuple[Simulated, tuple[Step, Ticked]]:
    """One tick of E environments under a policy: a row `[E, ...]` as those of `rollout`.

    Args:
      environment: of the lanes.
      policy: how to act.
      params: of the policy.
      simulated: where it goes on.
      key: one of `draw_keys`; consumed.
    """
    lanes = simulated.lanes
    fresh = policy.init(lanes.ended.shape[0])
    state = select(lanes.begins, fresh, simulated.policy)
    output = policy.act(params, key, lanes.observation, state)
    new, outcome = tick(environment, lanes, output.action)
    beside = (output.action, output.extras)
    action, extras = select(outcome.valid, beside, jax.tree.map(jnp.zeros_like, beside))
    row = Step(lanes.observation, action, outcome.reward, outcome.discount, extras)
    ticked = Ticked(outcome.valid, outcome.last, new.total, new.steps)
    return Simulated(new, output.state, simulated.key), (row, ticked)


def sums_of(ticked: Ticked, lanes: Lanes) -> EpisodeSums:
    """What ticks `[..., E]` brought together, and whether the lanes after them are bad."""
    valid, last, totals, steps = ticked
    return EpisodeSums(
        steps=jnp.sum(valid, dtype=jnp.int32),
        episodes=jnp.sum(last, dtype=jnp.int32),
        returns=jnp.sum(jnp.where(last, totals, 0.0)),
        lengths=jnp.sum(jnp.where(last, steps, 0), dtype=jnp.float32),
        is_bad=jnp.any(lanes.bad_step >= 0),
    )


def _first(environment: AbstractSimulation, root: jax.Array, episode: jax.Array) -> Lanes:
    """One environment at the begin of an episode."""
    seed = episode_seed(root, episode)
    state, observation = environment.reset(replay_keys(seed, 0))
    zero, false = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.bool_)
    return Lanes(
        root=root,
        episode=episode,
        seed=seed,
        steps=zero,
        limit=jnp.full((), _NEVER, jnp.int32),
        state=_strong(state),
        observation=_strong(observation),
        begins=~false,
        ended=false,
        total=jnp.zeros((), jnp.float32),
        bad_step=zero - 1,
        bad_seed=jnp.zeros((), jnp.uint32),
    )


def _step(environment: AbstractSimulation, lane: Lanes, action: jax.Array) -> tuple[Lanes, Outcome]:
    """A step of one environment, which means nothing where it rests."""
    steps, rests = lane.steps + 1, lane.ended
    state, observation, reward, terminated, truncated = environment.step(
        lane.state, action, replay_keys(lane.seed, steps)
    )
    state, observation = _like(lane.state, state), _like(lane.observation, observation)
    reward = jnp.asarray(reward).astype(jnp.float32)
    terminated = jnp.asarray(terminated, jnp.bool_)
    last = terminated | truncated | (steps >= lane.limit)
    is_bad = ~(rests | _all_finite((state, observation, reward))) & (lane.bad_step < 0)
    stepped = lane._replace(
        steps=steps,
        state=state,
        observation=observation,
        begins=jnp.zeros_like(rests),
        ended=last,
        total=lane.total + reward,
        bad_step=jnp.where(is_bad, steps, lane.bad_step),
        bad_seed=jnp.where(is_bad, lane.seed, lane.bad_seed),
    )
    return stepped, Outcome(
        reward=jnp.where(rests, 0.0, reward),
        discount=jnp.where(rests | terminated, jnp.float32(0), jnp.float32(1)),
        last=last & ~rests,
        valid=~rests,
    )


def _renewed(environment: AbstractSimulation, lane: Lanes, stepped: Lanes) -> Lanes:
    """The begin of the next episode where the environment rested, else what it stepped to."""
    fresh = _first(environment, lane.root, lane.episode + 1)
    fresh = fresh._replace(root=stepped.root, bad_step=lane.bad_step, bad_seed=lane.bad_seed)
    new: Lanes = jax.tree.map(
        lambda a, b: a if a is b else jnp.where(lane.ended, a, b), fresh, stepped
    )
    return new


def _strong(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), tree)


def _like(old: Any, new: Any) -> Any:
    """The new tree with the types of the old one, none of them weak."""
    return jax.tree.map(lambda a, b: jnp.asarray(b).astype(a.dtype), old, new)


def _all_finite(tree: Any) -> jax.Array:
    finite = jnp.ones((), jnp.bool_)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            finite &= jnp.all(jnp.isfinite(leaf))
    return finite
