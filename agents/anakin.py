"""Anakin: the node in which environment, policy and update are one jitted loop.

Reference: Hessel et al., "Podracer architectures for scalable Reinforcement Learning" (2021),
section 3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
import numpy as np

import lpml
from lpml.agents.fused import Fused, Report
from lpml.errors import NotFinite
from lpml.nodes.averaging import Average
from lpml.nodes.compiling import in_background
from lpml.nodes.counter import Counter, CountOf
from lpml.nodes.memory import check_program
from lpml.nodes.publication import Publication
from lpml.nodes.roles import Params, Snapshot
from lpml.nodes.simulator import raise_bad
from lpml.nodes.updates import from_arrays, to_arrays


@dataclass(frozen=True)
class AnakinStatistics:
    """What the loop did so far."""

    updates: int
    """Of the parameters."""
    steps: int
    """Of all environments together."""
    episodes: int
    seconds: float
    """Since the first call of the device was compiled."""


@final
class Anakin:
    """Acts and learns on the device; whoever wants the parameters pulls them.

    Its version is its count of updates; of an agent with a replay those too that were left out
    because it did not hold enough yet. Metrics and states that are not finite end the program.

    Several of them learn as one if each takes part in an average: after each call of the device
    they all go on from the mean of what they have, and that is what is pulled.

    Args:
      fused: the loop.
      average: this node's part in the average of several; `None` = it is the only one.
      seed: of everything that is drawn; each of several needs its own.
      counter: where `actor_steps`, `actor_episodes` and `learner_steps` are counted.
      max_steps: of all environments, after which `run` returns; `None` = when the program stops.
      at_end: called with the last parameters when `run` ends.
      log_seconds: from one log of the metrics to the next.
    """

    lpml_role: ClassVar[str] = "learner"

    def __init__(
        self,
        fused: Fused,
        *,
        average: Average | None = None,
        seed: int = 0,
        counter: Counter | None = None,
        max_steps: int | None = None,
        at_end: Callable[[Params], object] | None = None,
        log_seconds: float = 1.0,
    ) -> None:
        self._context = lpml.context()
        self._clock = self._context.clock
        self._fused = fused
        self._average = average
        self._seed = seed
        self._max_steps = max_steps
        self._at_end = at_end
        self._log_seconds = log_seconds
        self._counts = CountOf(counter, "actor"), CountOf(counter, "learner")
        self._publication = Publication(self._variables, _shared)
        self._changed = self._publication.changed
        self._state = fused.init(seed)
        self._is_mean = True  # or the learner's state is still this node's own
        self._under_way: deque[Report] = deque()
        self._steps = self._episodes = self._updates = 0
        self._began: float | None = None
        self._logged = self._clock.time(), 0

    def run(self) -> None:
        """Goes on until the program stops or `max_steps` are made."""
        try:
            with lpml.deadline(None):
                self._compile()
                self.join()
                while not self._context.should_stop and not self._enough:
                    self.step()
                while self._under_way:
                    self._settle()
                if self._average is not None:
                    self._average.leave()
                for count in self._counts:
                    count.flush()
        except lpml.ProgramStopped:
            pass
        finally:
            self._publication.finish()
        if self._at_end is not None:
            self._at_end(self.pull().params)
        if self._enough:
            self._context.stop_program(f"the learner made its {self._steps} steps")

    def join(self) -> None:
        """Begins where the other learners are, if there are any; before the first step."""
        if self._average is not None and self._average.start() and self._is_mean:
            with self._changed:
                self._adopt(self._average)

    def step(self) -> int:
        """One call of the device, and the mean of all learners; how many updates were made so far.

        Raises:
          NotFinite: metrics, or the state of an environment, of an earlier call are not finite.
        """
        if self._began is None:
            self._began = self._clock.time()
        if self._is_mean:  # else a checkpoint was taken while this node waited for the others
            with self._changed:
                self._state, report = self._fused.call(self._state)
                self._under_way.append(report)
                self._done(self._average is None)
        if self._average is None:
            if len(self._under_way) > 1:  # the device has the next one to do meanwhile
                self._settle()
        else:
            while self._under_way:  # what is not finite is not handed on
                self._settle()
            self._average.exchange(self._state.learner)
            with self._changed:
                self._adopt(self._average)
                self._done(True)
        return self._publication.version

    @lpml.concurrent
    @lpml.idempotent
    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        """The newest parameters; waits for version `at_least`, or until the last one.

        Raises:
          CallTimeout: there was no such version in time.
        """
        return self._publication.pull(worker, at_least, timeout)

    @lpml.concurrent
    def statistics(self) -> AnakinStatistics:
        """What was done so far."""
        seconds = 0.0 if self._began is None else self._clock.time() - self._began
        return AnakinStatistics(self._updates, self._steps, self._episodes, seconds)

    @lpml.concurrent
    def save(self) -> dict[str, Any]:
        """The whole state, environments and random keys included."""
        with self._changed:
            state, under_way = jax.tree.map(jnp.copy, self._state), list(self._under_way)
            counts = {"version": self._publication.version, "is_mean": self._is_mean}
            counts |= {"steps": self._steps, "episodes": self._episodes, "updates": self._updates}
            counted = [count.save() for count in self._counts]
        reports = jax.device_get(under_way)
        return {"state": to_arrays(state), "under_way": reports, "counted": counted, **counts}

    @lpml.concurrent
    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts back what `save` of a loop with the same options returned.

        Raises:
          UsageError: the states differ in names or shapes; nothing was changed.
        """
        with self._changed:
            self._state = self._fused.placed(from_arrays(state["state"], self._state))
            self._steps, self._episodes = int(state["steps"]), int(state["episodes"])
            self._updates, self._is_mean = int(state["updates"]), bool(state["is_mean"])
            self._under_way = deque(state["under_way"])
            for count, counted in zip(self._counts, state["counted"], strict=True):
                count.restore(counted)
            self._logged = self._clock.time(), self._steps
            self._publication.restore(int(state["version"]))

    @property
    def _enough(self) -> bool:
        return self._is_mean and self._max_steps is not None and self._steps >= self._max_steps

    def _compile(self) -> None:
        """A call whose outcome is thrown away; pulls are answered meanwhile.

        Raises:
          UsageError: it would take more memory than there is.
        """
        fused = self._fused
        state = jax.tree.map(jnp.copy, self._state)
        what = f"{fused.environment.spec.name}, with what is learned from them: num_envs"
        in_background(check_program, fused.call, (state,), what, fused.num_envs)
        in_background(fused.call, state)

    def _adopt(self, average: Average) -> None:
        learner = average.adopt(self._state.learner)
        self._state = self._fused.placed(self._state._replace(learner=learner))

    def _variables(self) -> Params:
        """What all learners have agreed on; with the lock held."""
        learner = self._state.learner
        if self._average is not None and not self._is_mean:
            learner = self._average.adopt(learner)
        return self._fused.variables(learner)

    def _done(self, is_mean: bool) -> None:
        """The updates of a call were made; they are to be seen if they are the mean."""
        self._is_mean = is_mean
        if is_mean:
            self._publication.advance(self._fused.updates)

    def _settle(self) -> None:
        """Waits for the oldest call, and passes on what it found."""
        report = self._under_way.popleft()
        steps, episodes, returns, lengths, is_bad = (float(value) for value in report.sums)
        if is_bad:
            raise_bad(self._fused.environment, self._state.simulated.lanes, self._seed)
        if int(report.bad) >= 0:
            raise NotFinite(
                f"{self._context.name}: the metrics of update {int(report.bad)} are not finite; "
                "lower the learning rate, or clip gradients"
            )
        self._steps += int(steps)
        self._episodes += int(episodes)
        self._counts[0].increment(steps=int(steps), episodes=int(episodes))
        self._updates += int(report.updates)
        self._counts[1].increment(steps=int(report.updates))
        now, (before, then) = self._clock.time(), self._logged
        if now - before >= self._log_seconds:
            self._logged = now, self._steps
            metrics: dict[str, float] = {}
            if int(report.updates):
                metrics = {name: float(value) for name, value in report.metrics.items()}
            if episodes:
                metrics |= {"episode_return": returns / episodes}
                metrics |= {"episode_length": lengths / episodes}
            metrics["steps_per_second"] = (self._steps - then) / (now - before)
            self._context.log(metrics, step=self._steps)
            self._context.progress(self._steps, self._max_steps)


def _shared(params: Params) -> lpml.Shared[Params]:
    return lpml.Shared(jax.tree.map(np.asarray, params))
