"""Environments by name: our own, and those of packages that are installed."""

from __future__ import annotations

from lpml.agents.catch import Catch
from lpml.errors import UsageError
from lpml.nodes.environment import AbstractEnvironment

OWN = {"Catch": Catch}
"""Environments of lpml itself."""


def make_environment(name: str, num_envs: int = 1, seed: int = 0) -> AbstractEnvironment:
    """E environments of one kind.

    Args:
      name: `Catch`, or a name of gymnasium such as `CartPole-v1`.
      num_envs: E.
      seed: of all that is random in them; differently in each.

    Raises:
      UsageError: there is no such environment, or its package is not installed; the message says
        what to install.
    """
    if num_envs < 1:
        raise UsageError(f"make_environment({name!r}, num_envs={num_envs}): give at least 1")
    if name in OWN:
        return OWN[name](num_envs, seed)
    try:
        from lpml.agents.gym import make_gym
    except ModuleNotFoundError as error:
        raise UsageError(
            f"environment {name!r} is none of lpml's own ({', '.join(OWN)}), and those of "
            "gymnasium are not installed: pip install 'lpml[gym]'"
        ) from error
    return make_gym(name, num_envs, seed)
