"""Environments of brax, such as `brax/ant`; the one file that imports brax."""

from __future__ import annotations

from typing import Any

from brax import envs  # type: ignore[import-not-found,import-untyped,unused-ignore]

from lpml.agents.jax_environments.episodic import EpisodicEnvironment
from lpml.errors import UsageError, closest

BACKENDS = ("generalized", "positional", "spring", "mjx")


def make_brax(name: str) -> EpisodicEnvironment:
    """An environment by name; episodes are cut off after 1000 steps.

    Args:
      name: such as `brax/ant`, with the engine that brax takes for it, or `brax/ant:spring`.

    Raises:
      UsageError: there is no such environment or engine.
    """
    own, _, backend = name.removeprefix("brax/").partition(":")
    known: list[str] = sorted(envs._envs)  # brax does not list them otherwise
    if own not in known:
        raise UsageError(f"brax has no environment {own!r}{closest(own, known)}")
    if backend and backend not in BACKENDS:
        raise UsageError(f"{name}: brax has no backend {backend!r}{closest(backend, BACKENDS)}")
    options: dict[str, Any] = {"backend": backend} if backend else {}
    return EpisodicEnvironment(envs.get_environment(own, **options), name)
