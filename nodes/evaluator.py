"""Whole episodes without learning, to say how good a policy is."""

from __future__ import annotations

from typing import ClassVar, Protocol, final

import numpy as np

import lpml
from lpml.errors import UsageError
from lpml.nodes.acting import Policy
from lpml.nodes.counter import Counter, CountOf
from lpml.nodes.environment import AbstractEnvironment
from lpml.nodes.episodes import Episodes
from lpml.nodes.host_policy import HostPolicy
from lpml.nodes.roles import VariableSource


class Judge(Protocol):
    """Who is told how good a policy is: a `Stopper`."""

    def report(self, mean_return: float, episodes: int) -> str: ...


@final
class Evaluator:
    """Plays whole episodes with the newest parameters, again and again.

    Every environment plays as many episodes as the others, or one more, so that short episodes
    count no more than long ones. The parameters do not change within an evaluation.

    Args:
      environment: to play in; the evaluator closes it.
      policy: how to act, without exploration.
      variables: where its parameters come from.
      episodes: of an evaluation.
      counter: of the program; it counts `evaluator_episodes`, and its `actor_steps` are the
        abscissa of the curves.
      stopper: is told each mean return.
      seed: of the environments and the policy.
      period: seconds from the begin of one evaluation to the next, at least.
    """

    lpml_role: ClassVar[str] = "evaluator"

    def __init__(
        self,
        environment: AbstractEnvironment,
        policy: Policy,
        variables: VariableSource,
        *,
        episodes: int = 20,
        counter: Counter | None = None,
        stopper: Judge | None = None,
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
        self._period = period
        self._seed: int | None = seed
        self._policy = HostPolicy(policy, environment.num_envs, seed)
        self._version = -1

    def evaluate(self) -> float:
        """The mean return of the newest policy over `episodes` episodes; logs it.

        Raises:
          NotFinite: a score of the policy is not.
          ProgramStopped: the program stopped meanwhile.
        """
        steps = self._actor_steps()
        snapshot = self._variables.pull()
        self._policy.update(snapshot.params)
        self._version = snapshot.version
        returns = self._play()
        metrics = {
            "evaluator_return": float(np.mean(returns)),
            "return_std": float(np.std(returns)),
            "return_min": float(np.min(returns)),
            "return_max": float(np.max(returns)),
            "version": float(snapshot.version),
        }
        self._context.log(metrics, step=snapshot.version if steps is None else steps)
        self._count.increment(episodes=len(returns))
        return metrics["evaluator_return"]

    def run(self) -> None:
        """Evaluates until the program stops; tells the stopper."""
        clock = self._context.clock
        try:
            while not self._context.should_stop:
                began = clock.time()
                with lpml.deadline(None):
                    mean_return = self.evaluate()
                    if self._stopper is not None:
                        self._stopper.report(mean_return, self._episodes)
                self._context.wait(max(0.0, began + self._period - clock.time()))
        except lpml.ProgramStopped:
            pass
        finally:
            self._environment.close()

    def _play(self) -> list[float]:
        """The returns of the first episodes of each environment."""
        num_envs = self._environment.num_envs
        quota = np.full(num_envs, self._episodes // num_envs)
        quota[: self._episodes % num_envs] += 1
        episodes = Episodes(num_envs)
        observation = self._environment.reset(self._seed)
        self._seed = None  # go on with other episodes than the last evaluation's
        begins = np.ones(num_envs, bool)
        done = np.zeros(num_envs, np.int64)
        while (done < quota).any():
            self._context.clock.check()
            action, _ = self._policy(observation, begins)
            step = self._environment.step(action)
            episodes.add(step)
            done += step.last & step.valid
            observation, begins = step.observation, step.begins
        counted = np.zeros(num_envs, np.int64)
        returns = []
        for lane, value in zip(episodes.lanes, episodes.returns, strict=True):
            counted[lane] += 1
            if counted[lane] <= quota[lane]:
                returns.append(value)
        return returns

    def _actor_steps(self) -> int | None:
        """Of all actors so far, if there is a counter."""
        if self._counter is None:
            return None
        return int(self._counter.get().get("actor_steps", 0))
