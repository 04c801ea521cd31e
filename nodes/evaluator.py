"""Whole episodes without learning, to say how good a policy is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol, final

import numpy as np

import lpml
from lpml.errors import CallTimeout, NodeUnavailable, UsageError
from lpml.nodes.acting import Policy
from lpml.nodes.counter import Counter, CountOf
from lpml.nodes.environment import AbstractEnvironment
from lpml.nodes.episodes import Episodes
from lpml.nodes.finite import check_step
from lpml.nodes.host_policy import ACTING, HostPolicy
from lpml.nodes.roles import Params, Snapshot, VariableSource

_WAIT_SECONDS = 10.0  # a request for a newer version waits so long, then is made again
_RETRY_SECONDS = 0.1


class Judge(Protocol):
    """Who is told how good a policy is: a `Stopper`."""

    def report(self, mean_return: float, episodes: int) -> str:
        """Takes what was measured; why the program stops, or ""."""
        ...


@final
class Evaluator:
    """Plays whole episodes with the newest parameters, again and again.

    Every environment plays as many episodes as the others, or one more, so that short episodes
    count no more than long ones. The parameters do not change within an evaluation, and `run`
    evaluates each version once at most.

    Args:
      environment: to play in; the evaluator closes it.
      policy: how to act, without exploration.
      variables: where its parameters come from.
      episodes: of an evaluation.
      counter: of the program; it counts `evaluator_episodes` and `evaluator_steps`, and its
        `actor_steps` are the abscissa of the curves.
      stopper: is told each mean return.
      keep: called with the parameters and their mean return, before the stopper is told.
      seed: of the environments and the policy.
      period: seconds from the begin of one evaluation to the next, at least.
    """

    lpml_role: ClassVar[str] = "evaluator"
    lpml_restart: ClassVar[lpml.Restart] = lpml.Restart.on_failure(3)
    lpml_resources: ClassVar[lpml.Resources] = ACTING

    def __init__(
        self,
        environment: AbstractEnvironment,
        policy: Policy,
        variables: VariableSource,
        *,
        episodes: int = 20,
        counter: Counter | None = None,
        stopper: Judge | None = None,
        keep: Callable[[Params, float], object] | None = None,
        seed: int = 0,
        period: float = 1.0,
    ) -> None:
        if episodes < 1:
            raise UsageError(f"Evaluator(episodes={episodes}): give at least 1")
        self._context = lpml.context()
        self._environment = environment
        self._variables = variables
        self._episodes = episodes
        self._counter = counter
        self._count = CountOf(counter, "evaluator")
        self._stopper = stopper
        self._keep = keep
        self._period = period
        self._first_seed = seed
        self._seed: int | None = seed
        self._policy = HostPolicy(policy, environment.num_envs, seed)
        self._version = -1

    def evaluate(self) -> float:
        """The mean return of the newest policy over `episodes` episodes; logs it.

        Raises:
          NotFinite: a score of the policy, a reward or an observation is not.
          ProgramStopped: the program stopped meanwhile.
        """
        return self._evaluate(self._variables.pull())

    def run(self) -> None:
        """Evaluates until the program stops, or no newer version will come; tells the stopper."""
        clock = self._context.clock
        try:
            with lpml.deadline(None):
                while not self._context.should_stop:
                    snapshot = self._newer()
                    if snapshot.version != self._version:
                        began = clock.time()
                        mean_return = self._evaluate(snapshot)
                        if self._keep is not None:
                            self._keep(snapshot.params, mean_return)
                        if self._stopper is not None:
                            self._stopper.report(mean_return, self._episodes)
                        self._context.wait(max(0.0, began + self._period - clock.time()))
                    elif snapshot.final:
                        break
        except lpml.ProgramStopped:
            pass
        finally:
            self._environment.close()

    def _newer(self) -> Snapshot:
        """Waits for a version that was not evaluated, or for the last one."""
        while True:
            try:
                return self._variables.pull(at_least=self._version + 1, timeout=_WAIT_SECONDS)
            except CallTimeout:
                self._context.clock.check()
            except NodeUnavailable:
                if self._context.wait(_RETRY_SECONDS):
                    self._context.clock.check()

    def _evaluate(self, snapshot: Snapshot) -> float:
        steps = self._actor_steps()
        self._policy.update(snapshot.params)
        self._version = snapshot.version
        returns, lengths = self._play()
        metrics: Mapping[str, float] = {
            "evaluator_return": float(np.mean(returns)),
            "return_std": float(np.std(returns)),
            "return_min": float(np.min(returns)),
            "return_max": float(np.max(returns)),
            "episode_length": float(np.mean(lengths)),
            "version": snapshot.version,
        }
        self._context.log(metrics, step=snapshot.version if steps is None else steps)
        self._count.increment(episodes=len(returns), steps=int(np.sum(lengths)))
        return metrics["evaluator_return"]

    def _play(self) -> tuple[list[float], list[int]]:
        """Returns and lengths of the first episodes of each environment."""
        num_envs = self._environment.num_envs
        quota = np.full(num_envs, self._episodes // num_envs)
        quota[: self._episodes % num_envs] += 1
        episodes = Episodes(num_envs)
        observation = self._environment.reset(self._seed)
        self._seed = None  # go on with other episodes than the last evaluation's
        begins = np.ones(num_envs, np.bool_)
        left = quota.copy()
        while (left > 0).any():
            self._context.clock.check()
            action, _ = self._policy(observation, begins)
            step = self._environment.step(action)
            check_step(self._environment, step, self._policy.calls, self._first_seed)
            episodes.add(step, step.valid)
            left -= step.last
            observation, begins = step.observation, step.begins
        kept = []
        for number, lane in enumerate(episodes.lanes):
            quota[lane] -= 1
            if quota[lane] >= 0:
                kept.append(number)
        return [episodes.returns[n] for n in kept], [episodes.lengths[n] for n in kept]

    def _actor_steps(self) -> int | None:
        """Of all actors so far, if there is a counter."""
        if self._counter is None:
            return None
        return int(self._counter.get().get("actor_steps", 0))
