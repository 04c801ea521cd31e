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
from lpml.errors import CallTimeout, NotFinite
from lpml.nodes.averaging import Average
from lpml.nodes.compiling import in_background
from lpml.nodes.counter import Counter, CountOf
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
        self._changed = self._clock.condition()  # guards what follows; never held for long
        self._state = fused.init(seed)
        self._is_mean = True  # or the learner's state is still this node's own
        self._version = 0
        self._final = False
        self._published: Snapshot | None = None
        self._under_way: deque[Report] = deque()
        self._steps = self._episodes = self._updates = 0
        self._began: float | None = None
        self._logged = self._clock.time(), 0

    def run(self) -> None:
        """Goes on until the program stops or `max_steps` are made."""
        done = False
        try:
            with lpml.deadline(None):
                self._compile()
                self._join()
                while not self._context.should_stop and not done:
                    self.step()
                    done = self._max_steps is not None and self._steps >= self._max_steps
                while self._under_way:
                    self._settle()
                if self._average is not None:
                    self._average.leave()
                for count in self._counts:
                    count.flush()
        except lpml.ProgramStopped:
            pass
        finally:
            with self._changed:
                self._final = True
                self._changed.notify_all()
        if self._at_end is not None:
            self._at_end(self.pull().params)
        if done:
            self._context.stop_program(f"the learner made its {self._steps} steps")

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
                self._done(self._average is None)
            self._under_way.append(report)
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
        return self._version

    @lpml.concurrent
    @lpml.idempotent
    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        """The newest parameters; waits for version `at_least`, or until the last one.

        Raises:
          CallTimeout: there was no such version in time.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._version >= at_least or self._final, timeout
            ):
                raise CallTimeout(
                    f"pull by {worker or 'a reader'} waited {timeout} s for version {at_least}: "
                    f"the learner is at {self._version}; allow more time"
                )
            version, final, known = self._version, self._final, self._published
            if known is not None and (known.version, known.final) == (version, final):
                return known
            learner = self._state.learner
            if self._average is not None and not self._is_mean:
                learner = self._average.adopt(learner)
            params = self._fused.variables(learner)
        shared = lpml.Shared(jax.tree.map(np.asarray, params))
        self._published = Snapshot(version, shared, final)
        return self._published

    @lpml.concurrent
    def statistics(self) -> AnakinStatistics:
        """What was done so far."""
        seconds = 0.0 if self._began is None else self._clock.time() - self._began
        return AnakinStatistics(self._updates, self._steps, self._episodes, seconds)

    @lpml.concurrent
    def save(self) -> dict[str, Any]:
        """The whole state, environments and random keys included."""
        with self._changed:
            state = jax.tree.map(jnp.copy, self._state)
            counts = {"version": self._version, "steps": self._steps, "episodes": self._episodes}
            counts |= {"updates": self._updates, "is_mean": self._is_mean}
        return {"state": to_arrays(state), **counts}

    @lpml.concurrent
    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts back what `save` of a loop with the same options returned.

        Raises:
          UsageError: the states differ in names or shapes; nothing was changed.
        """
        with self._changed:
            self._state = self._fused.placed(from_arrays(state["state"], self._state))
            self._version, self._steps = int(state["version"]), int(state["steps"])
            self._episodes, self._updates = int(state["episodes"]), int(state["updates"])
            self._is_mean, self._published = bool(state["is_mean"]), None
            self._changed.notify_all()

    def _compile(self) -> None:
        """A call whose outcome is thrown away; pulls are answered meanwhile."""
        in_background(self._fused.call, jax.tree.map(jnp.copy, self._state))

    def _join(self) -> None:
        """Begins where the other learners are, if there are any."""
        if self._average is None:
            return
        self._average.start()
        if self._is_mean:
            with self._changed:
                self._adopt(self._average)

    def _adopt(self, average: Average) -> None:
        learner = average.adopt(self._state.learner)
        self._state = self._fused.placed(self._state._replace(learner=learner))

    def _done(self, is_mean: bool) -> None:
        """The updates of a call were made; they are to be seen if they are the mean."""
        self._is_mean = is_mean
        if is_mean:
            self._version += self._fused.updates
            self._changed.notify_all()

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
