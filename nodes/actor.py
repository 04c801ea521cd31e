"""The environment loop: a policy acts in environments, and what comes of it goes to a replay."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

import lpml
from lpml.nodes.acting import Policy
from lpml.nodes.counter import Counter, CountOf
from lpml.nodes.environment import AbstractEnvironment, Timestep
from lpml.nodes.episodes import Episodes
from lpml.nodes.host_policy import HostPolicy
from lpml.nodes.replay import Adder
from lpml.nodes.roles import Params, VariableSource
from lpml.nodes.variables import VariableClient

_LOG_SECONDS = 1.0


@final
class Actor:
    """Acts in E environments and hands what it sees to an adder.

    Args:
      environment: to act in; the actor closes it.
      policy: how to act, with exploration.
      variables: where its parameters come from.
      adder: where steps go; `None` = nowhere.
      counter: of the program; it counts `actor_steps` and `actor_episodes`.
      seed: of the environments and the policy; different for every actor.
      period: steps of all E environments from one look for new parameters to the next.
      max_age: seconds that parameters may be old before it waits for newer ones; `None` = as
        they come.
      example: parameters like those that will come, to compile with while the learner starts.
    """

    lpml_role: ClassVar[str] = "actor"
    lpml_restart: ClassVar[lpml.Restart] = lpml.Restart.never()

    def __init__(
        self,
        environment: AbstractEnvironment,
        policy: Policy,
        variables: VariableSource,
        adder: Adder | None = None,
        *,
        counter: Counter | None = None,
        seed: int = 0,
        period: int = 8,
        max_age: float | None = None,
        example: Params | None = None,
    ) -> None:
        self._context = lpml.context()
        self._environment = environment
        self._adder = adder
        self._count = CountOf(counter, "actor")
        self._observation = environment.reset(seed)
        self._policy = HostPolicy(policy, environment.num_envs, seed)
        if example is not None:
            self._policy.compile(example, self._observation)
        self._variables = VariableClient(variables, period=period, max_age=max_age)
        self._policy.update(self._variables.params)
        self._begins = np.ones(environment.num_envs, bool)
        self._episodes = Episodes(environment.num_envs)
        self._next_log = self._context.clock.time()
        self.steps = 0

    @property
    def returns(self) -> list[float]:
        """Undiscounted, of the episodes that ended so far, in order."""
        return self._episodes.returns

    def step(self) -> Timestep:
        """Acts once in every environment.

        Raises:
          NotFinite: a score of the policy is not.
          ReplayTimeout: the adder did not get its steps in within its timeout.
        """
        adder, begins = self._adder, self._begins
        if self._variables.poll():
            self._policy.update(self._variables.params)
        if adder is not None and begins.any():
            adder.first(self._observation, begins)
        action, extras = self._policy(self._observation, begins)
        step = self._environment.step(action)
        valid = None if step.valid.all() else step.valid
        if adder is not None:
            adder.add(
                action,
                step.reward,
                step.discount,
                step.arrival,
                extras,
                last=step.last,
                envs=valid,
            )
        self._observation, self._begins = step.observation, step.begins
        ended = self._episodes.add(step)
        steps = len(step.valid) if valid is None else int(valid.sum())
        self.steps += steps
        self._count.increment(steps=steps, episodes=ended)
        return step

    def run(self) -> None:
        """Acts until the program stops, then hands in what is left."""
        try:
            while not self._context.should_stop:
                self.step()
                self._log()
        except lpml.ProgramStopped:
            pass
        finally:
            self._environment.close()
            if self._adder is not None:
                self._adder.close(0.0 if self._context.should_stop else None)

    def _log(self) -> None:
        """At most once a second."""
        now = self._context.clock.time()
        if now < self._next_log:
            return
        self._next_log = now + _LOG_SECONDS
        metrics = {**self._episodes.summary(), "version": float(self._variables.version)}
        self._context.log(metrics, step=self.steps)
        self._context.progress(self.steps)
