"""The environment loop: a policy acts in environments, and what comes of it goes to a replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

import lpml
from lpml.errors import CallTimeout, UsageError
from lpml.nodes.acting import Policy
from lpml.nodes.counter import Counter, CountOf
from lpml.nodes.environment import AbstractEnvironment, Timestep
from lpml.nodes.episodes import Episodes
from lpml.nodes.finite import check_observation, check_step
from lpml.nodes.host_policy import ACTING, HostPolicy
from lpml.nodes.inference_server import RemotePolicy
from lpml.nodes.replay import Adder, ReplayTimeout
from lpml.nodes.roles import Params, VariableSource
from lpml.nodes.variables import VariableClient

_LOG_SECONDS = 1.0
_FLUSH_SECONDS = 1.0  # that the last steps may take to be sent


@dataclass(frozen=True)
class ActorStatistics:
    """What an actor did so far, and where its time went."""

    steps: int
    """Of all its environments together."""
    episodes: int
    version: int | None
    """Of its parameters; `None` where a server acts for it."""
    seconds: float
    """Since its first step."""
    policy_seconds: float
    environment_seconds: float
    adding_seconds: float
    """Handing steps to the adder, waiting included."""
    variables_seconds: float
    """Looking for new parameters, and taking them."""

    @property
    def steps_per_second(self) -> float:
        """Mean over `seconds`."""
        return self.steps / self.seconds if self.seconds > 0 else 0.0


@final
class Actor:
    """Acts in E environments and hands what it sees to an adder.

    Args:
      environment: to act in; the actor closes it.
      policy: how to act, with exploration; or a `RemotePolicy`, which asks an inference server.
      variables: where its parameters come from; `None` only beside a `RemotePolicy`.
      adder: where steps go, `[E, ...]`; `None` = nowhere.
      counter: of the program; it counts `actor_steps` and `actor_episodes`.
      seed: of the environments and the policy; different for every actor. After a restart it goes
        on with other numbers.
      period: steps of all E environments from one look for new parameters to the next.
      max_age: seconds that parameters may be old before it waits for newer ones; `None` = as
        they come; 0 = the newest at each step.
      max_steps: of all environments together, after which `run` returns; `None` = when the
        program stops.
      example: parameters like those that will come, to compile with while the learner starts.

    Raises:
      UsageError: there is no source of parameters for the policy.
    """

    lpml_role: ClassVar[str] = "actor"
    lpml_restart: ClassVar[lpml.Restart] = lpml.Restart.on_failure(10)
    lpml_resources: ClassVar[lpml.Resources] = ACTING

    def __init__(
        self,
        environment: AbstractEnvironment,
        policy: Policy | RemotePolicy,
        variables: VariableSource | None = None,
        adder: Adder | None = None,
        *,
        counter: Counter | None = None,
        seed: int = 0,
        period: int = 8,
        max_age: float | None = None,
        max_steps: int | None = None,
        example: Params | None = None,
    ) -> None:
        self._context = lpml.context()
        self._clock = self._context.clock
        self._environment = environment
        self._adder = adder
        self._count = CountOf(counter, "actor")
        self._max_steps = max_steps
        self._seed = seed = fresh_seed(seed, self._context.attempt)
        self._observation = environment.reset(seed)
        check_observation(environment, self._observation, 0, seed)
        self._begins = np.ones(environment.num_envs, np.bool_)
        self._act: HostPolicy | RemotePolicy
        self._host: HostPolicy | None = None  # takes new parameters
        self._variables: VariableClient | None = None
        if isinstance(policy, RemotePolicy):
            self._act = policy
        elif variables is None:
            raise UsageError("Actor(variables=None): give a source of parameters for its policy")
        else:
            self._act = self._host = HostPolicy(policy, environment.num_envs, seed)
            if example is not None:
                self._host.compile(example, self._observation)
            self._variables = VariableClient(variables, period=period, max_age=max_age)
            self._host.update(self._variables.params)
        self._episodes = Episodes(environment.num_envs)
        self._num_episodes = 0
        self._began: float | None = None
        self._logged = (self._clock.time(), 0)  # when, at which step
        self._seconds = [0.0, 0.0, 0.0, 0.0]  # variables, policy, environment, adder
        self._ticks = 0
        self.steps = 0
        """So far, of all environments together."""

    @property
    def returns(self) -> list[float]:
        """Undiscounted, of the episodes that ended so far, in order; `run` keeps the last ones."""
        return self._episodes.returns

    def step(self) -> Timestep:
        """Acts once in every environment. Waits where a limiter of the replay holds it.

        Raises:
          NotFinite: a score of the policy, a reward or an observation is not.
          ProgramStopped: the program stopped while it waited.
        """
        now, clock_time = self._clock.time, self._seconds
        t0 = now()
        if self._began is None:
            self._began = t0
        if self._variables is not None and self._host is not None and self._variables.poll():
            self._host.update(self._variables.params)
        t1 = now()
        action, extras = self._act(self._observation, self._begins)
        t2 = now()
        step = self._environment.step(action)
        self._ticks += 1
        check_step(self._environment, step, self._ticks, self._seed)
        t3 = now()
        steps, valid = len(step.valid), None
        if np.count_nonzero(step.valid) != steps:
            valid = step.valid
            steps = int(np.count_nonzero(valid))
        if self._adder is not None:
            self._add(self._adder, action, extras, step, valid)
        t4 = now()
        clock_time[0] += t1 - t0
        clock_time[1] += t2 - t1
        clock_time[2] += t3 - t2
        clock_time[3] += t4 - t3
        self._observation, self._begins = step.observation, step.begins
        ended = self._episodes.add(step, valid)
        self._num_episodes += ended
        self.steps += steps
        self._count.increment(steps=steps, episodes=ended)
        return step

    def run(self) -> None:
        """Acts until the program stops or `max_steps` are made, then hands in what is left."""
        try:
            with lpml.deadline(None):
                while not self._context.should_stop and not self._is_done():
                    self.step()
                    self._log()
                self._count.flush()
        except lpml.ProgramStopped:
            pass
        finally:
            self._finish()

    @lpml.concurrent
    def statistics(self) -> ActorStatistics:
        """What was done so far."""
        variables, policy, environment, adding = self._seconds
        return ActorStatistics(
            steps=self.steps,
            episodes=self._num_episodes,
            version=None if self._variables is None else self._variables.version,
            seconds=0.0 if self._began is None else self._clock.time() - self._began,
            policy_seconds=policy,
            environment_seconds=environment,
            adding_seconds=adding,
            variables_seconds=variables,
        )

    def _add(
        self, adder: Adder, action: object, extras: object, step: Timestep, valid: object
    ) -> None:
        """Hands a step over; the observations that begin episodes before it."""
        begins = self._begins
        if np.count_nonzero(begins):
            adder.first(self._observation, begins)
        try:
            adder.add(
                action,
                step.reward,
                step.discount,
                step.arrival,
                extras,
                last=step.last,
                envs=valid,
            )
        except (ReplayTimeout, CallTimeout):
            self._wait_for(adder)

    def _wait_for(self, adder: Adder) -> None:
        """The step was taken, and earlier ones are not let in: that is the limiter's right."""
        while True:
            self._clock.check()
            try:
                return adder.flush()
            except (ReplayTimeout, CallTimeout):
                continue

    def _is_done(self) -> bool:
        if self._max_steps is not None and self.steps >= self._max_steps:
            return True
        return self._variables is not None and self._variables.final

    def _finish(self) -> None:
        self._environment.close()
        if self._adder is not None:
            try:
                self._adder.close(0.0 if self._context.should_stop else _FLUSH_SECONDS)
            except lpml.Error:  # the replay may have gone before
                if not self._context.should_stop:
                    raise

    def _log(self) -> None:
        """At most once a second."""
        now = self._clock.time()
        before, steps = self._logged
        if now - before < _LOG_SECONDS:
            return
        metrics = {
            **self._episodes.summary(),
            "episodes": self._num_episodes,
            "steps_per_second": (self.steps - steps) / (now - before),
        }
        if self._variables is not None:
            metrics["version"] = self._variables.version
        self._logged = now, self.steps
        self._episodes.forget()
        self._context.log(metrics, step=self.steps)
        self._context.progress(self.steps, self._max_steps)


def fresh_seed(seed: int, attempt: int) -> int:
    """The seed, or another one after a restart: what was drawn before is not drawn again."""
    if attempt == 0:
        return seed
    state: int = np.random.SeedSequence([seed, attempt]).generate_state(1)[0].item()
    return state & 0x7FFFFFFF
