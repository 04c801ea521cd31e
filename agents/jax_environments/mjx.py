"""MuJoCo in jax: environments of MuJoCo Playground; the one file that imports it.

Reference: Zakka et al., "MuJoCo Playground" (2025).
"""

from __future__ import annotations

from mujoco_playground import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    registry,
)

from lpml.agents.jax_environments.episodic import EpisodicEnvironment
from lpml.errors import UsageError, closest


def make_mjx(name: str) -> EpisodicEnvironment:
    """An environment by name, such as `mjx/CartpoleBalance`, in the implementation for jax.

    Those of locomotion and manipulation fetch their models from the network when they are first
    made.

    Raises:
      UsageError: there is no such environment.
    """
    own = name.removeprefix("mjx/")
    known = [str(there) for there in registry.ALL_ENVS]
    if own not in known:
        raise UsageError(f"MuJoCo Playground has no environment {own!r}{closest(own, known)}")
    config = registry.get_default_config(own)
    environment = registry.load(own, config_overrides={"impl": "jax"})
    return EpisodicEnvironment(environment, name, int(config.episode_length))
