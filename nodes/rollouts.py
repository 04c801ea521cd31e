"""Actor threads and the learner beside them: rollouts go one way, parameters the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

import lpml
from lpml.nodes.collector import RolloutSource
from lpml.nodes.counter import Counter, CountOf
from lpml.nodes.data_parallel import Divided
from lpml.nodes.replay import Sample, SampleInfo
from lpml.nodes.roles import Params
from lpml.nodes.windows import EpisodeSums


class _Rollout(NamedTuple):
    data: Any
    """On the devices of the learner."""
    sums: EpisodeSums


@dataclass
class _Actor:
    """One thread: what it was given and what it brought."""

    source: RolloutSource
    device: jax.Device | None
    params: deque[Params] = field(default_factory=deque)
    made: deque[_Rollout] = field(default_factory=deque)
    future: lpml.Future[None] | None = None
    ended: bool = False
    """Whether the thread makes no more rollouts."""
    acting: float = 0.0
    waiting: float = 0.0


@final
class Rollouts:
    """Batches for a learner: the n-th is made of the n-th rollout of every actor.

    `start` gives each actor the first parameters; each call of `next` gives it the newest ones,
    then waits for its oldest rollout. So rollout n is made with the parameters after update
    n - `ahead`, and at most `ahead + 1` rollouts of an actor wait.

    Args:
      sources: one for each actor, of E environments each.
      devices: that each acts on; `None` = jax's own choice.
      learning: where the rollouts go.
      batches: K that a rollout of all is divided into, for as many updates.
      ahead: rollouts.
      counter: where `actor_steps` and `actor_episodes` are counted, when they are learned from.
      log_seconds: from one log to the next.
    """

    def __init__(
        self,
        sources: Sequence[RolloutSource],
        devices: Sequence[jax.Device | None],
        learning: Divided,
        *,
        batches: int = 1,
        ahead: int = 1,
        counter: Counter | None = None,
        log_seconds: float = 1.0,
    ) -> None:
        self._context = lpml.context()
        self._clock = self._context.clock
        self._changed = self._clock.condition()
        self._actors = [_Actor(*pair) for pair in zip(sources, devices, strict=True)]
        self._learning = learning
        self._batches = batches
        self._ahead = ahead
        self._count = CountOf(counter, "actor")
        self._log_seconds = log_seconds
        self._logged = self._clock.time(), 0
        self._recent: list[EpisodeSums] = []
        self._newest: Callable[[], Params] | None = None
        self._closed = False
        self._join: Any = jax.jit(self._traced_join)
        self.taken = self.steps = self.episodes = 0
        """Rollouts of each actor, steps and episodes of all, that were handed out."""

    def start(self, newest: Callable[[], Params]) -> None:
        """Starts the threads.

        Args:
          newest: a copy of the newest parameters, on a device; called by the learner's thread.
        """
        self._newest = newest
        self._hand_out(self._ahead)
        for actor in self._actors:
            actor.future = lpml.future(self._act, actor)

    def __next__(self) -> Sample:
        """A rollout of every actor, as one batch `[A * E, T + 1, ...]`.

        Raises:
          ProgramStopped: the program is stopping.
          Exception: what an actor raised.
        """
        self._hand_out(1)
        with self._changed:
            self._changed.wait_for(lambda: all(a.made or a.ended for a in self._actors))
            for actor in self._actors:
                if not actor.made and actor.future is not None:
                    actor.future.result()
                    self._clock.check()  # it raised nothing: the program stops
            rollouts = [actor.made.popleft() for actor in self._actors]
        self._note([rollout.sums for rollout in rollouts])
        data = self._join([rollout.data for rollout in rollouts])
        count = len(data.mask)
        ones = np.ones(count)
        return Sample(data, SampleInfo(np.arange(count), ones, ones, np.ones(count, int), count))

    def close(self) -> None:
        """Ends the threads, each when its rollout is made, and waits for them."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for actor in self._actors:
            if actor.future is None:
                actor.source.close()
            else:
                actor.future.exception()
        if not self._context.should_stop:
            self._count.flush()

    @property
    def seconds(self) -> tuple[float, float]:
        """That the actors acted, and waited for parameters, all together."""
        return sum(a.acting for a in self._actors), sum(a.waiting for a in self._actors)

    def save(self) -> dict[str, Any]:
        """What was counted; environments are not saved."""
        return {"steps": self.steps, "episodes": self.episodes, "counted": self._count.save()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on counting where `save` was called."""
        self.steps, self.episodes = int(state["steps"]), int(state["episodes"])
        self._count.restore(state["counted"])
        self._logged = self._clock.time(), self.steps

    def _act(self, actor: _Actor) -> None:
        """The life of a thread."""
        try:
            with lpml.deadline(None):
                while (params := self._next_params(actor)) is not None:
                    began = self._clock.time()
                    data, sums = actor.source.roll(params)
                    rollout = _Rollout(self._learning.put(data), sums)
                    actor.acting += self._clock.time() - began
                    with self._changed:
                        actor.made.append(rollout)
                        self._changed.notify_all()
        except lpml.ProgramStopped:
            pass
        finally:
            actor.source.close()
            with self._changed:
                actor.ended = True
                self._changed.notify_all()

    def _next_params(self, actor: _Actor) -> Params | None:
        began = self._clock.time()
        with self._changed:
            self._changed.wait_for(lambda: bool(actor.params) or self._closed)
            actor.waiting += self._clock.time() - began
            return None if self._closed else actor.params.popleft()

    def _hand_out(self, times: int) -> None:
        """Gives the newest parameters to every actor, on its device."""
        if not times or self._newest is None:
            return
        params = self._newest()
        by_device = {a.device: params for a in self._actors}
        by_device = {d: p if d is None else jax.device_put(p, d) for d, p in by_device.items()}
        with self._changed:
            for actor in self._actors:
                actor.params.extend([by_device[actor.device]] * times)
            self._changed.notify_all()

    def _traced_join(self, parts: list[Any]) -> Any:
        """Rows of every actor side by side, so that none leaves its device for it."""
        if len(parts) > 1:
            parts = [jax.tree.map(lambda *x: jnp.stack(x, 1).reshape(-1, *x[0].shape[1:]), *parts)]
        return self._learning.deal(parts[0], self._batches)

    def _note(self, sums: list[EpisodeSums]) -> None:
        """Counts what is about to be learned from; logs now and then."""
        steps, episodes = sum(int(s.steps) for s in sums), sum(int(s.episodes) for s in sums)
        self.taken += 1
        self.steps += steps
        self.episodes += episodes
        self._count.increment(steps=steps, episodes=episodes)
        self._recent += sums
        now, (before, then) = self._clock.time(), self._logged
        if now - before < self._log_seconds:
            return
        metrics = {"steps_per_second": (self.steps - then) / (now - before)}
        whole = sum(int(s.episodes) for s in self._recent)
        if whole:
            metrics["episode_return"] = sum(float(s.returns) for s in self._recent) / whole
            metrics["episode_length"] = sum(float(s.lengths) for s in self._recent) / whole
        self._logged, self._recent = (now, self.steps), []
        self._context.log(metrics, step=self.taken * self._batches)
