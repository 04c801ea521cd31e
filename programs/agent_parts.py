"""What every program of an agent has: limits, an evaluator, a policy that is left behind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import final

import numpy as np

import lpml
from lpml.agents.builder import AbstractBuilder
from lpml.agents.environments import make_environment
from lpml.agents.saved import save_policy, saved_return
from lpml.errors import UsageError
from lpml.nodes.counter import Counter
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.evaluator import Evaluator
from lpml.nodes.roles import Params, VariableSource
from lpml.nodes.stopper import Stopper


def add_limits(
    p: lpml.Program,
    *,
    max_actor_steps: int | None,
    max_seconds: float | None,
    target_return: float | None,
    episodes: int,
) -> tuple[Counter, Stopper]:
    """Adds the node that counts, and the one that stops the program.

    Args:
      p: the program.
      max_actor_steps, max_seconds, target_return: to stop after; `None` = without end.
      episodes: over which the return must be that good, at least.

    Raises:
      UsageError: the return is no number.
    """
    if target_return is not None and math.isnan(target_return):
        raise UsageError(f"target_return={target_return}: no return reaches it; give a number")
    with p.group("counter", resources=lpml.Resources(cpu=0.1)):
        counter = p.add_node(lpml.Node(Counter))
    with p.group("stopper", resources=lpml.Resources(cpu=0.1)):
        stopper = p.add_node(
            lpml.Node(
                Stopper,
                counter,
                max_steps=max_actor_steps,
                max_seconds=max_seconds,
                target_return=target_return,
                min_episodes=episodes,
            )
        )
    return counter, stopper


def add_evaluator(
    p: lpml.Program,
    builder: AbstractBuilder,
    environment: str,
    learner: VariableSource,
    counter: Counter,
    stopper: Stopper,
    *,
    episodes: int,
    seed: int,
) -> None:
    """Adds the node that evaluates the policy of the learner over so many episodes."""
    with p.group("evaluator"):
        p.add_node(
            lpml.Node(
                make_evaluator,
                builder,
                environment,
                learner,
                counter,
                stopper,
                episodes=episodes,
                seed=seed,
            )
        )


def make_evaluator(
    builder: AbstractBuilder,
    environment: str,
    learner: VariableSource,
    counter: Counter,
    stopper: Stopper,
    *,
    episodes: int,
    seed: int,
) -> Evaluator:
    """Plays whole episodes without exploration, all at once where there are few."""
    num_envs = min(episodes, 20)
    made = make_environment(environment, num_envs, seed_of(seed, -1))
    directory = lpml.context().directory
    return Evaluator(
        made,
        builder.policy(made.spec, evaluation=True),
        learner,
        episodes=episodes,
        counter=counter,
        stopper=stopper,
        keep=None if directory is None else BestPolicy(builder, made.spec, directory / "best"),
        seed=seed_of(seed, -1),
    )


@final
class BestPolicy:
    """Keeps the policy that an evaluation found best, also over a resume.

    A learner goes on after its policy was good enough, until it is told to end, and what it has
    then, which `leave_policy` saves, may be worse.

    Args:
      builder: of the agent.
      spec: of its environment.
      folder: where the policy is saved.
    """

    def __init__(self, builder: AbstractBuilder, spec: EnvironmentSpec, folder: Path) -> None:
        self._builder, self._spec, self._folder = builder, spec, folder
        known = saved_return(folder)
        self._best = -math.inf if known is None else known

    def __call__(self, params: Params, mean_return: float) -> None:
        """Saves the policy if there was none as good."""
        if not mean_return > self._best:
            return
        try:
            save_policy(self._folder, self._builder, self._spec, params, mean_return=mean_return)
        except OSError as error:  # no reason to end what learns
            print(f"the best policy so far could not be saved: {error}", flush=True)
        else:
            self._best = mean_return


def find_spec(environment: str) -> EnvironmentSpec:
    """Of an environment by name; it is made here and closed again."""
    made = make_environment(environment, 1, 0)
    try:
        return made.spec
    finally:
        made.close()


def leave_policy(builder: AbstractBuilder, spec: EnvironmentSpec, params: Params) -> None:
    """Saves a policy in the run folder, if there is one, and says where."""
    directory = lpml.context().directory
    if directory is not None:
        folder = save_policy(directory / "policy", builder, spec, params)
        best = directory / "best"
        also = f", the best that was evaluated in {best}" if best.is_dir() else ""
        print(f"the policy is in {folder}{also}; lpml.agents.load_policy reads it", flush=True)


def seed_of(seed: int, actor: int) -> int:
    """Of one actor, or of the evaluator (-1): others than those of any other."""
    state: int = np.random.SeedSequence([seed, actor + 1]).generate_state(1)[0].item()
    return state & 0x7FFFFFFF
