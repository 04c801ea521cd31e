"""Environments as pure functions of jax, which step by the thousand on the device.

`simulation_named` finds one by name; `lpml.nodes.VectorSimulator` makes many of it.
"""

from lpml.agents.jax_environments.cartpole import CartPole as CartPole
from lpml.agents.jax_environments.catch import Catch as Catch
from lpml.agents.jax_environments.grid_world import GridWorld as GridWorld
from lpml.agents.jax_environments.names import SIMULATIONS as SIMULATIONS
from lpml.agents.jax_environments.names import is_simulation as is_simulation
from lpml.agents.jax_environments.names import simulation_named as simulation_named
from lpml.agents.jax_environments.names import vectorised as vectorised
from lpml.agents.jax_environments.pendulum import Pendulum as Pendulum
from lpml.agents.jax_environments.randomised import Randomised as Randomised
