"""What a policy is: pure functions that the agent makes and actors, evaluators and servers run.

E is the number of environments that are acted in together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax

from lpml.nodes.roles import Params

PolicyState: TypeAlias = Any
"""What a policy carries from step to step, a tree of arrays `[E, ...]`; `()` = nothing."""


class PolicyOutput(NamedTuple):
    """What a policy decides in E environments."""

    action: jax.Array
    """`[E, ...]`."""
    state: PolicyState
    """For the next step."""
    extras: Any
    """A tree of arrays `[E, ...]` that is recorded beside the step for the learner; `()` =
    nothing. Its shapes and dtypes are `Policy.extras`."""
    scores: jax.Array
    """`[E, ...]`: what the action was chosen by (action values, logits, a mean): one that is not
    finite stops the program, with the node and the step in the message."""


@dataclass(frozen=True)
class Policy:
    """How to act, as pure functions; jax can trace both.

    Args:
      init: `init(num_envs) -> PolicyState`: the state at the beginning of an episode.
      act: `act(params, key, observation, state) -> PolicyOutput`, for observations `[E, ...]`;
        the random key is consumed.
      extras: the tree of `jax.ShapeDtypeStruct` of `PolicyOutput.extras`, without the axis E.
    """

    init: Callable[[int], PolicyState]
    act: Callable[[Params, jax.Array, Any, PolicyState], PolicyOutput]
    extras: Any = ()
