"""Cuts episodes into transitions, n-step transitions or sequences, and sends them in batches.

An adder stands in the actor. Every step is written into a local log and sent once; what the items
are is sent beside them as places and lengths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np

import lpml
from lpml.errors import UsageError
from lpml.nodes.replay.cuts import AbstractCut
from lpml.nodes.replay.lanes import Lanes
from lpml.nodes.replay.outbox import Outbox
from lpml.nodes.replay.protocol import AbstractReplay
from lpml.nodes.replay.step_log import StepLog
from lpml.nodes.replay.streams import Insert, Items, UnknownWriter
from lpml.nodes.replay.views import Step


@final
class Adder:
    """Writes the steps of one or more environments into the tables of a replay.

    ::

        adder = Adder(replay, {"replay": CutTransitions(n_step=3)})
        adder.first(observation)
        adder.add(action, reward, discount, next_observation, last=done)

    To a replay in another process an insert travels while the actor goes on; at most one is under
    way. What went wrong with it is raised by the next `add` that sends, or by `flush`.

    Args:
      replay: where to; its tables take `Step`s of one signature.
      cuts: how each table's items are cut, `{table: cut}`.
      num_envs: `None` = one environment, whose arrays have no leading axis; a number = so many,
        `[E, ...]`, each with its own episodes.
      steps_per_insert: how many steps are collected before they are sent; `None` = 64, and at
        least 32 of each environment.
      priority: of new items; `None` = the highest that the table has seen, or what is made of the
        priorities given with the steps.
      mix: the priority of an item whose steps have priorities p is
        `mix * max(p) + (1 - mix) * mean(p)`, over all its steps but the last.
      timeout: seconds that a full log may wait for the limiter; `None` = as long as it takes.

    Raises:
      UsageError: the tables' steps differ, or are no `Step`.

    Reference: Kapturowski et al., "Recurrent Experience Replay in Distributed Reinforcement
    Learning" (2019), section 2.3, for priorities of sequences.
    """

    def __init__(
        self,
        replay: AbstractReplay,
        cuts: Mapping[str, AbstractCut],
        *,
        num_envs: int | None = None,
        steps_per_insert: int | None = None,
        priority: float | None = None,
        mix: float = 0.9,
        timeout: float | None = None,
    ) -> None:
        signatures = [replay.signature(table) for table in cuts]
        if not signatures or any(other != signatures[0] for other in signatures):
            raise UsageError(f"Adder: tables {list(cuts)}; give at least one, of one signature")
        self._signature = signatures[0]
        self._lanes = Lanes(list(cuts.values()), num_envs or 1, mix)
        self._tables = list(cuts)
        self._steps_per_insert = steps_per_insert or max(64, 32 * (num_envs or 1))
        entries = -(-self._steps_per_insert // (num_envs or 1)) + 2
        self._log = StepLog(self._signature, num_envs, entries)
        self._priority = priority
        self._timeout = timeout
        self._outbox = Outbox(replay, lpml.context().name)

    def first(self, observation: Any, envs: Any = None) -> None:
        """Begins episodes.

        Args:
          observation: the first one, `[...]`, or `[E, ...]` of all environments.
          envs: mask `[E]` of those that begin; `None` = all.

        Raises:
          UsageError: a field does not fit the signature, or an episode has not ended.
        """
        self._log.first(observation, envs)

    def add(
        self,
        action: Any,
        reward: Any,
        discount: Any,
        next_observation: Any,
        extras: Any = (),
        *,
        last: Any = False,
        envs: Any = None,
        priority: Any = None,
    ) -> None:
        """What followed the last observation. Sends what is collected when it is enough.

        Args:
          action: taken, `[...]` or `[E, ...]`; so are all that follow.
          reward: after the action.
          discount: 0 where the episode ended for good, else 1 (also where time cut it off).
          next_observation: of the same episode, the last one too.
          extras: of this step.
          last: whether the episode ended, for good or by time; `first` begins the next.
          envs: mask `[E]` of those that stepped; `None` = all.
          priority: of this step, such as its absolute TD error; given with all steps or none.

        Raises:
          UsageError: a field does not fit the signature; the message names it. The step was not
            taken.
          ReplayTimeout: the limiter did not let earlier items in. The step was taken; `flush`
            waits again, and so does the next `add`.
        """
        log = self._log
        log.add(Step(next_observation, action, reward, discount, extras), last, envs, priority)
        if log.size >= self._steps_per_insert:
            self._send(self._outbox.end(self._timeout))

    def flush(self, timeout: float | None = None) -> None:
        """Sends what was collected, and waits until the limiter has let it in.

        Args:
          timeout: seconds; `None` = that of the adder.

        Raises:
          ReplayTimeout: it has not; what is left is sent by the next `flush`.
        """
        end = self._outbox.end(self._timeout if timeout is None else timeout)
        self._send(end)
        self._settle(end)

    def close(self, timeout: float | None = None) -> None:
        """Sends what is left and leaves the replay; an open episode stays as it is."""
        try:
            self.flush(timeout)
        finally:
            self._outbox.close()

    def _send(self, end: float | None) -> None:
        """Sends the log, once what was sent before is in."""
        self._settle(end)
        if self._log.size:
            self._outbox.put(self._make_insert())
            if not self._outbox.remote:
                self._settle(end)

    def _settle(self, end: float | None) -> None:
        try:
            self._outbox.settle(end)
        except UnknownWriter as error:
            insert = self._outbox.renew()
            if insert is None:
                raise error
            self._outbox.put(self._lanes.without_held(insert))
            self._outbox.settle(end)

    def _make_insert(self) -> Insert:
        rows = self._log.take()
        layout = self._lanes.cut(rows)
        items = {}
        for name, (starts, lengths, priorities) in zip(self._tables, layout.items, strict=True):
            if priorities is None and self._priority is not None:
                priorities = np.full(len(lengths), self._priority, np.float64)
            items[name] = Items(starts, lengths, priorities)
        return Insert(
            writer=self._outbox.writer,
            number=self._outbox.number,
            steps=self._signature.unflatten(rows.columns),
            lanes=layout.lanes,
            counts=layout.counts,
            held=layout.held,
            keep=layout.keep,
            items=items,
        )
