"""Several learners as one: each learns from data of its own, and now and then all take their mean.

What is averaged are the numbers of floating point in the state of the algorithm: parameters,
targets, moments of the optimiser, statistics of observations. Random keys and counts stay each
learner's own; the counts are equal, since all make the same number of updates in between.

References: Stich, "Local SGD Converges Fast and Communicates Little" (2019), algorithm 1; Yu, Jin
and Yang, "On the Linear Speedup Analysis of Communication Efficient Momentum SGD for Distributed
Non-Convex Optimization" (2019), algorithm 1 (moments are averaged as parameters are).
"""

from __future__ import annotations

from typing import final

import jax
import jax.numpy as jnp
import optax

from lpml.nodes.compiling import run_once
from lpml.nodes.consistency import Synchronous
from lpml.nodes.flat import Flat
from lpml.nodes.learning import Algorithm, LearnerState
from lpml.nodes.parameter_server import ParameterServer
from lpml.nodes.roles import AbstractParameterServer, Snapshot
from lpml.nodes.updates import strong


def average_server(algorithm: Algorithm, num_learners: int, seed: int = 0) -> ParameterServer:
    """The node through which so many learners take their mean; they begin with its state.

    A learner pushes what it has changed, negated, as if that were a gradient. The server's step
    along the mean of these, of size 1, is the mean of what the learners have.

    Args:
      algorithm: of all the learners.
      num_learners: whom a mean waits for.
      seed: of the state that they begin with.
    """

    def begin() -> list[jax.Array]:
        return averaged(strong(algorithm.init(jax.random.key(seed))))

    # Without a lease: a learner that dies is replaced, and one that compiles is silent for long.
    return ParameterServer(
        lambda: run_once(begin), optax.sgd(1.0), mode=Synchronous(num_learners), lease=None
    )


def averaged(state: LearnerState) -> list[jax.Array]:
    """The part of a state that is averaged."""
    return [leaf for leaf in jax.tree.leaves(state) if _is_float(leaf)]


def replaced(state: LearnerState, part: list[jax.Array]) -> LearnerState:
    """The state with another part of that kind."""
    leaves, structure = jax.tree.flatten(state)
    others = iter(part)
    return jax.tree.unflatten(
        structure, [next(others) if _is_float(leaf) else leaf for leaf in leaves]
    )


def _is_float(leaf: jax.Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


@final
class Average:
    """One learner's part in the mean of several. For one thread, but for `adopt`.

    Args:
      server: an `average_server`.
      learner: its name, other than those of all others.
    """

    def __init__(self, server: AbstractParameterServer, learner: str) -> None:
        self._server = server
        self._learner = learner
        self._version = 0
        self._mean: Flat | None = None
        self._change = jax.jit(
            lambda state, mean: jax.tree.map(jnp.subtract, mean, Flat.of(averaged(state)))
        )
        self._replaced = jax.jit(lambda state, mean: replaced(state, mean.tree))

    def start(self) -> bool:
        """Takes part from now on: the others wait for this one. False if it did before."""
        if self._mean is not None:
            return False
        self._take(self._server.pull(self._learner))
        return True

    def exchange(self, state: LearnerState) -> None:
        """Hands in what was made of the last mean, and waits for that of the others.

        Raises:
          ValueError: the server is of another algorithm.
          ProgramStopped: the program is stopping; the mean stays the last one.
        """
        change = self._change(state, self._mean)
        self._take(self._server.exchange(self._learner, change, version=self._version))

    def adopt(self, state: LearnerState) -> LearnerState:
        """The state with the last mean in place of what was made of it since.

        As it is where none is known yet, before `start`.
        """
        return state if self._mean is None else self._replaced(state, self._mean)

    def leave(self) -> None:
        """Nobody waits for this learner any more."""
        self._server.leave(self._learner)

    def _take(self, snapshot: Snapshot) -> None:
        self._mean, self._version = snapshot.flat, snapshot.version
