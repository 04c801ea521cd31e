"""How an item is read: its window of stored steps as a step, a transition or a sequence.

Letters: B is the batch, T the time in a sequence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from lpml.errors import UsageError
from lpml.nodes.replay.compact import Arena, reduce_joined
from lpml.nodes.replay.signature import Array, Bools, Ints, Signature
from lpml.nodes.replay.steps import StepStore


class Step(NamedTuple):
    """What an actor sees and does at one time.

    The last step of an episode holds its last observation; its other fields mean nothing.
    """

    observation: Any
    action: Any
    reward: Any
    """What followed the action."""
    discount: Any
    """0 where the action ended the episode for good, else 1, also where it was cut off by time."""
    extras: Any = ()
    """What else the learner needs, such as the log-probability of the action."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduce_joined(self, protocol)


class Transition(NamedTuple):
    """From one observation over n actions to another, `[B, ...]`.

    `reward + discount * value(next_observation)` is the n-step target.
    """

    observation: Any
    action: Any
    reward: Any
    """`sum_i gamma^i d_0 .. d_(i-1) r_i` over i < n, or less at the end of an episode."""
    discount: Any
    """`gamma^n d_0 .. d_(n-1)`, with as many factors."""
    next_observation: Any
    extras: Any = ()
    """Of the first step."""


class Sequence(NamedTuple):
    """Successive steps, `[B, T, ...]`; what is beyond the end of an item is zero."""

    steps: Any
    mask: Bools
    """`[B, T]`: where there is a step."""


class AbstractView(ABC):
    """How items of a table are read."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """Steps of the longest window."""

    def check(self, signature: Signature) -> None:
        """Raises UsageError if steps of this signature cannot be read so."""
        del signature

    @abstractmethod
    def gather(
        self, store: StepStore, starts: Ints, lengths: Ints, arena: Arena | None = None
    ) -> Any:
        """The windows as one tree of contiguous arrays `[B, ...]`.

        Args:
          store: of the steps.
          starts: `[B]`, first rows.
          lengths: `[B]`, in steps.
          arena: makes the arrays, in the order of the tree; `None` = numpy does.
        """


@final
@dataclass(frozen=True)
class Steps(AbstractView):
    """Each item is one step, of any signature."""

    @property
    def rows(self) -> int:
        return 1

    def gather(
        self, store: StepStore, starts: Ints, lengths: Ints, arena: Arena | None = None
    ) -> Any:
        del lengths
        return store.signature.unflatten([_take(column, starts, arena) for column in store.columns])


@final
@dataclass(frozen=True)
class Transitions(AbstractView):
    """Each item is a `Transition` over at most `n_step` actions; steps are `Step`s.

    Args:
      n_step: actions between the two observations.
      discount: gamma, per action.

    Reference: Sutton and Barto, "Reinforcement Learning" (2018), eq. (7.1).
    """

    n_step: int = 1
    discount: float = 0.99

    def __post_init__(self) -> None:
        if self.n_step < 1 or not 0 <= self.discount <= 1:
            raise UsageError(f"{self}: give n_step of at least 1 and a discount in [0, 1]")

    @property
    def rows(self) -> int:
        return self.n_step + 1

    def check(self, signature: Signature) -> None:
        layout = signature.unflatten(signature.fields)
        if not isinstance(layout, Step):
            raise UsageError(f"{self} reads lpml.nodes.replay.Step, not {signature!r}")
        for name in ("reward", "discount"):
            dtype = getattr(getattr(layout, name), "dtype", None)
            if dtype is None or not np.issubdtype(dtype, np.floating):
                raise UsageError(f"{self} needs a floating {name}, not {getattr(layout, name)}")
        if layout.reward.shape != layout.discount.shape:
            raise UsageError(
                f"{self} needs reward and discount of one shape, not {layout.reward} and "
                f"{layout.discount}"
            )

    def gather(
        self, store: StepStore, starts: Ints, lengths: Ints, arena: Arena | None = None
    ) -> Any:
        rows = store.windows(starts, lengths, self.n_step + 1)
        columns: Step = store.signature.unflatten(store.columns)
        reward, discount = self._fold(columns.reward, columns.discount, rows, lengths)
        first, last = rows[0], rows[-1]
        return Transition(
            observation=_take_tree(columns.observation, first, arena),
            action=_take_tree(columns.action, first, arena),
            reward=reward if arena is None else arena.copy(reward),
            discount=discount if arena is None else arena.copy(discount),
            next_observation=_take_tree(columns.observation, last, arena),
            extras=_take_tree(columns.extras, first, arena),
        )

    def _fold(
        self, rewards: Array, discounts: Array, rows: Ints, lengths: Ints
    ) -> tuple[Array, Array]:
        gamma = rewards.dtype.type(self.discount)
        reward = _take(rewards, rows[0])
        discount = _take(discounts, rows[0]) * gamma
        for i in range(1, self.n_step):
            within = (lengths - 1 > i).reshape(-1, *[1] * (reward.ndim - 1))
            reward = np.where(within, reward + discount * rewards[rows[i]], reward)
            discount = np.where(within, discount * gamma * discounts[rows[i]], discount)
        return reward, discount.astype(discounts.dtype, copy=False)


@final
@dataclass(frozen=True)
class Sequences(AbstractView):
    """Each item is a `Sequence` of at most `length` steps, of any signature."""

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UsageError(f"Sequences(length={self.length}): give a length of at least 1")

    @property
    def rows(self) -> int:
        return self.length

    def gather(
        self, store: StepStore, starts: Ints, lengths: Ints, arena: Arena | None = None
    ) -> Any:
        rows = store.windows(starts, lengths, self.length).T
        mask = np.arange(self.length) < lengths[:, None]
        flat, full = rows.ravel(), bool(mask.all())
        columns = []
        for column in store.columns:
            taken = _take(column, flat, arena).reshape(*rows.shape, *column.shape[1:])
            if not full:
                taken[~mask] = 0
            columns.append(taken)
        steps = store.signature.unflatten(columns)
        return Sequence(steps, mask if arena is None else arena.copy(mask))


def _take(column: Array, rows: Ints, arena: Arena | None = None) -> Array:
    # mode="clip" spares numpy a buffered copy; the rows are known to be within
    if arena is None:
        return column.take(rows, axis=0, mode="clip")
    made: Array = arena.empty((len(rows), *column.shape[1:]), column.dtype)
    return column.take(rows, axis=0, out=made, mode="clip")


def _take_tree(columns: Any, rows: Ints, arena: Arena | None) -> Any:
    if isinstance(columns, np.ndarray):
        return _take(columns, rows, arena)
    if isinstance(columns, dict):
        return {name: _take_tree(column, rows, arena) for name, column in columns.items()}
    if isinstance(columns, (tuple, list)):
        taken = [_take_tree(column, rows, arena) for column in columns]
        return type(columns)(*taken) if hasattr(columns, "_fields") else type(columns)(taken)
    return columns
