"""Environments by name: our own, gymnasium's, and those that a function of yours makes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from lpml.agents.cartpole import CartPole
from lpml.agents.catch import Catch
from lpml.agents.jax_environments import SIMULATIONS, is_simulation, vectorised
from lpml.errors import UsageError, closest
from lpml.nodes.environment import AbstractEnvironment

OWN: dict[str, Callable[[int, int], AbstractEnvironment]] = {
    "Catch": Catch,
    "lpml/CartPole-v1": CartPole,
    **{name: vectorised(name) for name in SIMULATIONS},
}
"""Environments of lpml itself."""

_GYM = ("gym", "make_gym", "gymnasium", "gym")
_ELSEWHERE = {
    "ale": ("atari", "make_atari", "ale_py", "atari"),
    "envpool": ("envpool", "make_envpool", "envpool", "envpool"),
}
"""By what stands before the name: module, function, optional package and the extra of it."""

_SOURCES = (
    "envpool/NAME of EnvPool (lpml[envpool]), ALE/NAME-v5 of Atari (lpml[atari]), gymnax/NAME, "
    "brax/NAME and mjx/NAME (lpml[gymnax], lpml[brax], lpml[mjx]), and "
    "package.module:function of yours"
)

_SOLVED = {"CartPole-v1": 475.0, "Catch": 0.95, "GridWorld": 0.9, "Pendulum-v1": -200.0}


def task_of(name: str) -> str:
    """What an environment is, whoever steps it: `ant` of `brax/ant:spring`.

    Args:
      name: as `make_environment` takes it.
    """
    return name.rpartition("/")[2].partition(":")[0]


def solved_at(name: str) -> float | None:
    """The mean return at which an environment counts as solved; `None` where that is not known.

    Args:
      name: as `make_environment` takes it.
    """
    return _SOLVED.get(task_of(name))


def make_environment(name: str, num_envs: int = 1, seed: int = 0) -> AbstractEnvironment:
    """E environments of one kind.

    Args:
      name: `Catch`, `lpml/CartPole-v1`, `jax/Pendulum-v1`; a name of gymnasium, such as
        `CartPole-v1`; `gymnax/` and one of gymnax; `envpool/` and one of EnvPool; `ALE/Pong-v5` or
        another game of Atari; or `package.module:function` with a function of yours, which is
        called with E and the seed.
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
    if is_simulation(name):
        return vectorised(name)(num_envs, seed)
    module, _, function = name.partition(":")
    if function.isidentifier():
        return _call(module, function, num_envs, seed)
    source, _, task = name.partition("/")
    if source.lower() in _ELSEWHERE and task:
        return _loaded(source.lower(), name)(name, num_envs, seed)
    try:
        return _loaded("gym", name)(name, num_envs, seed)
    except UsageError as error:
        said, near = str(error), closest(name, list(OWN))
        if "pip install" in said:
            raise
        if near.startswith("; did") and "did you mean" not in said:
            said = said.rstrip(".") + near
        raise UsageError(f"{said} There is also {_SOURCES}") from error


def _loaded(source: str, name: str) -> Callable[[str, int, int], AbstractEnvironment]:
    """The function that makes environments of an optional package."""
    module, function, package, extra = {**_ELSEWHERE, "gym": _GYM}[source]
    try:
        make: Callable[[str, int, int], AbstractEnvironment]
        make = getattr(importlib.import_module(f"lpml.agents.{module}"), function)
    except ModuleNotFoundError as error:
        if error.name not in (package, "gymnasium"):
            raise
        near = closest(name.rpartition("/")[2], [own.rpartition("/")[2] for own in OWN])
        raise UsageError(
            f"environment {name!r} needs {package}, which is not installed: pip install "
            f"'lpml[{extra}]'{near.replace('; did', '; or did') if '; did' in near else ''}"
        ) from error
    return make


def _call(module: str, function: str, num_envs: int, seed: int) -> AbstractEnvironment:
    """What a function of the user's makes."""
    where = f"environment '{module}:{function}'"
    try:
        make: Any = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise UsageError(f"{where}: {error}; is its folder on PYTHONPATH?") from error
    except AttributeError as error:
        raise UsageError(f"{where}: {error}") from error
    made = make(num_envs, seed)
    if not isinstance(made, AbstractEnvironment) or made.num_envs != num_envs:
        raise UsageError(
            f"{where} returned {made!r}; return a lpml.nodes.AbstractEnvironment of {num_envs}, "
            "such as lpml.agents.serial.SerialEnvironment makes of single ones"
        )
    return made
