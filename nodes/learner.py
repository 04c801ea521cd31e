"""The learner: updates parameters from a replay's batches until told, and serves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, final

import jax

import lpml
from lpml.errors import NotFinite, UsageError
from lpml.nodes.averaging import Average
from lpml.nodes.counter import Counter, CountOf
from lpml.nodes.flat import Flat
from lpml.nodes.learning import Algorithm
from lpml.nodes.learning_time import LearnerStatistics, LearningTime
from lpml.nodes.priorities import PriorityWriter
from lpml.nodes.replay import AbstractReplay, Sample
from lpml.nodes.roles import Params, Readable, Snapshot
from lpml.nodes.training import Training
from lpml.nodes.under_way import StepsUnderWay

_PATIENCE_SECONDS = 2.0


class SampleSource(Protocol):
    """Batches, one after another: a `Prefetcher`, or a generator."""

    def __next__(self) -> Sample: ...
    def close(self) -> None: ...


@final
class Learner:
    """Runs an algorithm on batches; whoever wants its parameters pulls them.

    Its version is its count of updates. A step of the learner is one call of the device that
    makes `updates_per_step` updates, each on its own part of a batch of as many times
    `batch_size` items. The device works on one step while the batch of the next is fetched.

    Metrics that are not finite end the program; they are looked for at least every
    `log_seconds`, and before parameters are given away.

    Several learners, with batches of their own, learn as one if each takes part in an average:
    after each step they all go on from the mean of what they have, and that is what is pulled.

    Args:
      algorithm: how to learn.
      samples: batches of `updates_per_step * batch_size` items, such as a `Prefetcher`; or a
        function that makes one, called when the first is needed.
      replay: where priorities go to; `None` = nowhere.
      table: of the priorities.
      batch_size: B, items of one update.
      updates_per_step: K.
      average: this learner's part in the average of several; `None` = it is the only one.
      counter: where updates are counted as `learner_steps`; `None` = nowhere.
      max_updates: `run` returns after this many; `None` = when the program stops.
      seed: of the algorithm's random key.
      example: a batch like those that will come; `run` compiles with it before the first is
        there.
      at_end: called with the last parameters when `run` ends.
      log_seconds: from one log of the metrics to the next.
      synchronous: everything is done when `step` returns, the priorities too, and published
        parameters stay on the device: for loops in one process that must be reproducible.

    Raises:
      UsageError: a number is out of range.
    """

    lpml_role: ClassVar[str] = "learner"

    def __init__(
        self,
        algorithm: Algorithm,
        samples: SampleSource | Callable[[], SampleSource],
        *,
        batch_size: int,
        updates_per_step: int = 1,
        replay: AbstractReplay | None = None,
        table: str = "",
        average: Average | None = None,
        counter: Counter | None = None,
        max_updates: int | None = None,
        seed: int = 0,
        example: Sample | None = None,
        at_end: Callable[[Params], object] | None = None,
        log_seconds: float = 1.0,
        synchronous: bool = False,
    ) -> None:
        if batch_size < 1 or updates_per_step < 1:
            raise UsageError(
                f"Learner(batch_size={batch_size}, updates_per_step={updates_per_step}): give "
                "at least 1 of each"
            )
        self._context = lpml.context()
        self._clock = self._context.clock
        self._make_samples = samples
        self._samples: SampleSource | None = None
        self._updates_per_step = updates_per_step
        self._max_updates = max_updates
        self._example = example
        self._at_end = at_end
        self._log_seconds = log_seconds
        self._count = CountOf(counter, "learner")
        self._training = Training(
            algorithm,
            batch_size=batch_size,
            updates_per_step=updates_per_step,
            average=average,
            seed=seed,
            flat=not synchronous,
            share=self._share,
        )
        self._diverged = -1  # the update after which a caller of `pull` found it so

        self._steps = StepsUnderWay(
            PriorityWriter(replay, table, wait=synchronous), self._check, synchronous=synchronous
        )
        self._time = LearningTime(self._clock)

    def run(self) -> None:
        """Steps until the program stops or `max_updates` are made."""
        try:
            with lpml.deadline(None):
                self._compile()
                self.join()
                while not self._context.should_stop and not self._done():
                    self.step()
                self._complete()
                self._training.leave()
        except lpml.ProgramStopped:
            pass
        finally:
            self._finish()
        if self._done():
            self._context.stop_program(f"the learner made its {self._training.updates} updates")

    def join(self) -> None:
        """Begins where the other learners are, if there are any; before the first step."""
        self._training.join()

    def step(self) -> int:
        """Makes `updates_per_step` updates; waits for a batch. To be called by one thread.

        Returns:
          How many updates were made so far.

        Raises:
          NotFinite: metrics of this or an earlier step are not finite.
          ReplayTimeout: as the iterator of batches raises.
        """
        self._time.begin()
        if self._training.is_mean:  # else it was saved while it waited for the others
            self._update()
        if not self._training.is_mean:
            self._exchange()
        if self._time.since_log() >= self._log_seconds:
            self._log()
        return self._training.updates

    @lpml.concurrent
    @lpml.idempotent
    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        """The newest parameters; waits for version `at_least`, or until the last one.

        A version is copied when it is first asked for, and the training goes on meanwhile.

        Args:
          worker: who asks, for messages.
          at_least: waits until there is this version, or until no more updates will be made.
          timeout: seconds to wait at most; `None` = until the deadline of the call.

        Raises:
          CallTimeout: there was no such version in time.
        """
        return self._training.publication.pull(worker, at_least, timeout)

    def variables(self) -> Params:
        """A copy of the newest parameters, or a `Flat` of it, that stays on the device.

        For who shares the device: nothing is waited for, and what is not finite is not found.
        """
        return self._training.variables()

    @lpml.concurrent
    def statistics(self) -> LearnerStatistics:
        """What was done so far."""
        training = self._training
        return self._time.statistics(training.updates, training.publication.snapshots)

    @lpml.concurrent
    def save(self) -> dict[str, Any]:
        """The algorithm's whole state, random key included, and the count of updates."""
        saved = self._training.save()
        self._check(int(self._training.bad))
        return {**saved, "counted": self._count.save()}

    @lpml.concurrent
    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts back what `save` of a learner with the same algorithm returned.

        Raises:
          UsageError: the states differ in names or shapes; nothing was changed.
        """
        self._training.restore(state)
        self._time.restore(self._training.updates)
        self._diverged = -1
        self._count.restore(state["counted"])

    def _update(self) -> None:
        with self._time.of("waiting"):
            sample = self._next_sample()
        self._check(self._diverged)
        with self._time.of("updating"):
            self._steps.add(self._training.update(sample))
        self._time.steps += 1
        self._count.increment(steps=self._updates_per_step)

    def _exchange(self) -> None:
        with self._time.of("updating"):
            self._steps.settle()
            self._check(int(self._training.bad))  # what is not finite is not handed on
        with self._time.of("averaging"):
            self._training.exchange()

    def _next_sample(self) -> Sample:
        if self._samples is None:
            made = self._make_samples
            self._samples = made() if callable(made) else made
        return next(self._samples)

    def _share(self, taken: tuple[Any, jax.Array]) -> Readable:
        params, bad = taken
        with self._time.of("publishing"):
            self._check_for_pull(int(bad))
            held = isinstance(params, Flat)  # else they stay on the device
            return lpml.Shared(params.to_numpy()) if held else _Held(params)

    def _check(self, bad: int) -> None:
        if bad >= 0:
            raise NotFinite(
                f"{self._context.name}: the metrics of update {bad} are not finite; lower the "
                "learning rate, clip gradients, or look for what the batch holds"
            )

    def _check_for_pull(self, bad: int) -> None:
        """As `_check`, but lets the training fail first: it is its fault, not the caller's."""
        if bad < 0:
            return
        self._diverged = bad
        if self._clock.wait(_PATIENCE_SECONDS):
            raise lpml.ProgramStopped("the program is stopping")
        self._check(bad)

    def _log(self) -> None:
        """Metrics of the last step that the device has done, or of one to wait for."""
        if self._steps.last is None:
            self._steps.settle()
        step = self._steps.last
        if step is None:
            return
        metrics = {name: float(value) for name, value in step.update.metrics.items()}
        self._check(int(step.bad))
        updates = self._training.updates
        metrics |= self._time.log(updates)
        self._context.log(metrics, step=step.last)
        self._context.progress(updates, self._max_updates)

    def _done(self) -> bool:
        return (
            self._training.is_mean
            and self._max_updates is not None
            and self._training.updates >= self._max_updates
        )

    def _compile(self) -> None:
        """Makes a step whose outcome is thrown away; pulls are answered meanwhile."""
        if self._example is None:
            return
        example, self._example = self._example, None
        self._training.compile(example, f"{self._context.name}: batches of batch_size")

    def _complete(self) -> None:
        """Sees to it that what was sent has arrived, unless the program is stopping."""
        if self._context.should_stop:
            return
        self._steps.flush()
        self._count.flush()

    def _finish(self) -> None:
        """No more updates will be made."""
        self._training.publication.finish()
        if self._samples is not None:
            self._samples.close()
        self._check(int(self._training.bad))
        self._log()
        if self._at_end is not None:
            params = jax.device_get(self.variables())
            self._at_end(params.tree if isinstance(params, Flat) else params)


@dataclass(frozen=True)
class _Held:
    """Parameters that stay where they are."""

    value: Params
