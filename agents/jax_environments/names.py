"""Simulations by name: our own, and those of gymnax."""

from __future__ import annotations

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


def is_simulation(name: str) -> bool:
    """Whether a name says that it is one of a simulation: `jax/Catch`, `gymnax/Acrobot-v1`."""
    return name.partition("/")[0] in ("jax", "gymnax") and "/" in name


def simulation_named(name: str) -> AbstractSimulation:
    """One environment as pure functions.

    Args:
      name: of our own, such as `jax/Catch`, or `Catch` where that is clear; or `gymnax/` and a
        name of gymnax.

    Raises:
      UsageError: there is no such simulation, or gymnax is not installed.
    """
    if name.startswith("gymnax/"):
        return _gymnax(name)
    found = SIMULATIONS.get(name) or SIMULATIONS.get(f"jax/{name}")
    if found is not None:
        return found()
    own = name.rpartition("/")[2]
    near = closest(own, [known.partition("/")[2] for known in SIMULATIONS])
    raise UsageError(
        f"simulation {name!r} is none of lpml's own{near}{'' if near.endswith('?') else '.'} If it "
        f"is one of gymnax, name it 'gymnax/{own}': pip install 'gymnax>=1.0'"
    )


def vectorised(name: str) -> Callable[[int, int], VectorSimulator]:
    """A function of E and the seed that makes the named simulation an environment of the host."""

    def make(num_envs: int, seed: int) -> VectorSimulator:
        return VectorSimulator(simulation_named(name), num_envs, seed)

    return make


def _gymnax(name: str) -> AbstractSimulation:
    try:
        from lpml.agents.jax_environments.gymnax import make_gymnax

        return make_gymnax(name)
    except ModuleNotFoundError as error:
        if error.name != "gymnax":
            raise
        raise UsageError(
            f"simulation {name!r} needs gymnax, which is not installed: pip install 'gymnax>=1.0'"
            f"{closest(name.partition('/')[2], [n.partition('/')[2] for n in SIMULATIONS])} (of "
            "lpml's own)"
        ) from error
