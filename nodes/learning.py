"""What an algorithm is: pure functions that the agent makes and learners run, on any device.

The same algorithm runs in a `Learner` node, in one process beside the actor, and inside a jitted
loop with the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax

from lpml.nodes.roles import Params

LearnerState: TypeAlias = Any
"""All that an update changes: parameters, targets, optimizer, random key, count of updates."""


class Experience(NamedTuple):
    """A batch to learn from."""

    data: Any
    """What the table's view returns: a `Transition`, `Sequence` or `Step` of arrays `[B, ...]`."""
    probability: jax.Array
    """`[B]` float32: of each draw, for importance weights."""
    size: jax.Array
    """`[]` float32: items in the table."""


class Update(NamedTuple):
    """What an update brought besides the new state."""

    metrics: Mapping[str, jax.Array]
    """Scalars `[]`; `loss` among them. One that is not finite stops the program."""
    priorities: jax.Array | None
    """`[B]`: new priorities of the items; `None` = they stay."""


@dataclass(frozen=True)
class Algorithm:
    """How to learn, as pure functions; jax can trace all of them.

    Args:
      init: `init(key) -> LearnerState`; the random key is consumed.
      update: `update(state, experience) -> (state, Update)`: one update of the parameters from a
        batch (for PPO: from a batch of rollouts, with all epochs and minibatches).
      variables: `variables(state) -> Params`: what `Policy.act` takes as its parameters.
    """

    init: Callable[[jax.Array], LearnerState]
    update: Callable[[LearnerState, Experience], tuple[LearnerState, Update]]
    variables: Callable[[LearnerState], Params]
