"""What is needed in a program for several learners that go on from the mean of what they have."""

from __future__ import annotations

import functools
from collections.abc import Callable

import lpml
from lpml.agents.builder import AbstractBuilder
from lpml.errors import UsageError
from lpml.nodes.averaging import Average, average_server
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.parameter_server import ParameterServer
from lpml.nodes.roles import Params
from lpml.programs.agent_parts import leave_policy, seed_of


def add_average(
    p: lpml.Program,
    builder: AbstractBuilder,
    spec: EnvironmentSpec,
    *,
    num_learners: int,
    seed: int,
) -> ParameterServer | None:
    """Adds the node through which the learners take their mean; a single one needs none.

    Raises:
      UsageError: there is no learner.
    """
    if num_learners < 1:
        raise UsageError(f"num_learners={num_learners}: give at least 1")
    if num_learners == 1:
        return None
    with p.group("average"):
        return p.add_node(lpml.Node(make_server, builder, spec, num_learners, seed))


def learner_seeds(seed: int, num_learners: int) -> list[int]:
    """Of each learner, such that no two draw the same."""
    return [seed, *(seed_of(seed, learner) for learner in range(1, num_learners))]


def make_server(
    builder: AbstractBuilder, spec: EnvironmentSpec, num_learners: int, seed: int
) -> ParameterServer:
    """The node of the average."""
    return average_server(builder.algorithm(spec), num_learners, seed)


def average_of(server: ParameterServer | None) -> Average | None:
    """In a learner: its part in the average."""
    return None if server is None else Average(server, lpml.context().name)


def at_end(builder: AbstractBuilder, spec: EnvironmentSpec) -> Callable[[Params], object] | None:
    """In a learner: what it does with its last parameters. The first of several saves them."""
    return functools.partial(leave_policy, builder, spec) if lpml.context().index == 0 else None
