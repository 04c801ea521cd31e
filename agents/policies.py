"""A policy and its parameters that act on observations as they come, without a program."""

from __future__ import annotations

from typing import Any, final

import jax
import numpy as np

from lpml.agents.builder import AbstractBuilder
from lpml.errors import UsageError
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.host_policy import HostPolicy
from lpml.nodes.roles import Params


@final
class SavedPolicy:
    """Acts as well as it can, on one observation or on several.

    A policy with a memory remembers from call to call; `reset` begins new episodes.
    """

    def __init__(
        self, builder: AbstractBuilder, spec: EnvironmentSpec, params: Params, seed: int = 0
    ) -> None:
        self.builder = builder
        self.spec = spec
        self.params = params
        self._policy = builder.policy(spec, evaluation=True)
        self._seed = seed
        self._host: HostPolicy | None = None
        self._num_envs = 0
        self._begins = np.ones(0, bool)

    def __call__(self, observation: Any, begins: Any = None) -> Any:
        """The action for an observation.

        Args:
          observation: `[...]` as in the spec, or `[E, ...]` of E environments.
          begins: whether it is the first of an episode, a boolean or `[E]`; `None` = only in the
            first call, or after `reset`.

        Returns:
          `[...]` or `[E, ...]`, a numpy array.

        Raises:
          UsageError: the observation does not fit the spec.
          NotFinite: a score of the policy is not finite.
        """
        observation, batched = self._batch(observation)
        num_envs = len(jax.tree.leaves(observation)[0])
        if self._host is None or num_envs != self._num_envs:
            self._host = HostPolicy(self._policy, num_envs, self._seed)
            self._host.update(self.params)
            self._num_envs, self._begins = num_envs, np.ones(num_envs, bool)
        if begins is not None:
            self._begins = np.broadcast_to(np.asarray(begins, bool), (num_envs,))
        action, _ = self._host(observation, self._begins)
        self._begins = np.zeros(num_envs, bool)
        return np.asarray(action) if batched else np.asarray(action)[0]

    def reset(self) -> None:
        """New episodes begin with the next call."""
        self._begins = np.ones(self._num_envs, bool)

    def _batch(self, observation: Any) -> tuple[Any, bool]:
        """The observation with an axis E, as the spec has it, and whether it had one."""
        specs, structure = jax.tree.flatten(self.spec.observation)
        one_array = jax.tree_util.treedef_is_leaf(structure)  # then a list of numbers will do
        given = [observation] if one_array else jax.tree.leaves(observation)
        leaves = [np.asarray(leaf) for leaf in given]
        shapes = [leaf.shape for leaf in leaves]
        wanted = [spec.shape for spec in specs]
        batched = shapes != wanted
        inner = [shape[1:] if batched else shape for shape in shapes]
        if inner != wanted or (batched and len({shape[:1] for shape in shapes}) != 1):
            raise UsageError(
                f"an observation of shapes {shapes} does not fit {self.spec.name or 'the spec'}, "
                f"which has {wanted}; give one, or several with one axis in front"
            )
        fitting = [
            (leaf if batched else leaf[None]).astype(spec.dtype, copy=False)
            for leaf, spec in zip(leaves, specs, strict=True)
        ]
        return jax.tree.unflatten(structure, fitting), batched
