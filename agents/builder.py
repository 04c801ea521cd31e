"""What an agent must be able to make; whoever runs agents knows no more of them than this."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lpml.nodes.acting import Policy
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Algorithm
from lpml.nodes.replay import AbstractCut, CutSequences, Sequences, TableConfig


@dataclass(frozen=True)
class Batches:
    """Which batches the learner takes."""

    table: str
    batch_size: int
    """Items of one update."""
    updates_per_step: int = 1
    """Updates that the learner makes in one call of the device, on as many batches."""


class AbstractBuilder(ABC):
    """Makes the parts of an agent from its config, in whichever node they are needed.

    A builder is a frozen value: it is sent to the nodes, and equal builders make equal agents.
    """

    name: ClassVar[str]
    """Of the agent, as in `lpml run NAME` and in the file of a saved policy."""

    @property
    @abstractmethod
    def config(self) -> Any:
        """The options: a frozen dataclass of numbers, strings, booleans and tuples of them."""

    @property
    @abstractmethod
    def batches(self) -> Batches:
        """What the learner draws."""

    @abstractmethod
    def tables(self, spec: EnvironmentSpec) -> list[TableConfig]:
        """The replay's tables; their steps are `lpml.nodes.replay.Step`s."""

    @abstractmethod
    def cuts(self, spec: EnvironmentSpec) -> Mapping[str, AbstractCut]:
        """How episodes become the items of each table."""

    @abstractmethod
    def policy(
        self,
        spec: EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: int = 0,
        num_actors: int = 1,
    ) -> Policy:
        """How to act: with exploration, or as well as it can where `evaluation`.

        Args:
          spec: of the environment.
          evaluation: without exploration.
          actor, num_actors: which actor of how many, where they explore differently.
        """

    @abstractmethod
    def algorithm(self, spec: EnvironmentSpec) -> Algorithm:
        """How to learn."""


def seeded(tables: Sequence[TableConfig], seed: int) -> list[TableConfig]:
    """The same tables with random numbers of their own for each seed."""
    return [dataclasses.replace(table, seed=table.seed + seed) for table in tables]


def window_rows(builder: AbstractBuilder, spec: EnvironmentSpec) -> int | None:
    """Rows T + 1 of the windows that an agent learns from, cut across the ends of episodes.

    Returns:
      `None` if it learns from something else, such as transitions.
    """
    name = builder.batches.table
    table = next(table for table in builder.tables(spec) if table.name == name)
    cut = builder.cuts(spec)[name]
    fits = (
        isinstance(cut, CutSequences)
        and isinstance(table.view, Sequences)
        and cut.across_episodes
        and cut.length == table.view.length > 1
    )
    return cut.length if fits and isinstance(cut, CutSequences) else None
