"""Simulations by name: our own, and those of other packages."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

from lpml.agents.jax_environments.cartpole import CartPole
from lpml.agents.jax_environments.catch import Catch
from lpml.agents.jax_environments.grid_world import GridWorld
from lpml.agents.jax_environments.pendulum import Pendulum
from lpml.errors import UsageError, closest
from lpml.nodes.simulation import AbstractSimulation
from lpml.nodes.simulator import VectorSimulator

SIMULATIONS: Mapping[str, Callable[[], AbstractSimulation]] = {
    "jax/CartPole-v1": CartPole,
    "jax/Catch": Catch,
    "jax/GridWorld": GridWorld,
    "jax/Pendulum-v1": Pendulum,
}
"""Our own."""


_ADAPTERS: Mapping[str, tuple[str, str]] = {
    "gymnax": ("make_gymnax", "gymnax"),
    "brax": ("make_brax", "brax"),
    "mjx": ("make_mjx", "mujoco_playground"),
}
"""By what stands before the name, which is also the module and the extra: function, package."""

_ELSEWHERE = "gymnax/NAME (lpml[gymnax]), brax/NAME (lpml[brax]) and mjx/NAME (lpml[mjx])"


def is_simulation(name: str) -> bool:
    """Whether a name says that it is one of a simulation: `jax/Catch`, `brax/ant`."""
    source, _, own = name.partition("/")
    return bool(own) and (source == "jax" or source in _ADAPTERS)


def simulation_named(name: str) -> AbstractSimulation:
    """One environment as pure functions.

    Args:
      name: of our own, such as `jax/Catch`, or `Catch` where that is clear; or that of an adapter
        and a name that it knows: `gymnax/Acrobot-v1`, `brax/ant`, `mjx/CartpoleBalance`.

    Raises:
      UsageError: there is no such simulation, or its package is not installed.
    """
    source, _, own = name.rpartition("/")
    adapter = name.partition("/")[0]
    if adapter in _ADAPTERS:
        return _adapted(adapter, name)
    found = SIMULATIONS.get(name if source else f"jax/{name}")
    if found is not None:
        return found()
    near = closest(own, [known.partition("/")[2] for known in SIMULATIONS])
    raise UsageError(
        f"simulation {name!r} is none of lpml's own{near}{'' if near.endswith('?') else '.'} There "
        f"are also {_ELSEWHERE}"
    )


def vectorised(name: str) -> Callable[[int, int], VectorSimulator]:
    """A function of E and the seed that makes the named simulation an environment of the host."""

    def make(num_envs: int, seed: int) -> VectorSimulator:
        return VectorSimulator(simulation_named(name), num_envs, seed)

    return make


def _adapted(adapter: str, name: str) -> AbstractSimulation:
    """An environment of another package."""
    function, package = _ADAPTERS[adapter]
    try:
        module = importlib.import_module(f"lpml.agents.jax_environments.{adapter}")
        made: AbstractSimulation = getattr(module, function)(name)
    except ModuleNotFoundError as error:
        near = closest(name.partition("/")[2], [known.partition("/")[2] for known in SIMULATIONS])
        raise UsageError(
            f"simulation {name!r} needs {error.name or package}, which is not installed: pip "
            f"install 'lpml[{adapter}]'{near} (of lpml's own)"
        ) from error
    return made
