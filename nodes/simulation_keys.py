"""Random numbers of simulations: counted keys of steps, mixed seeds of episodes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_KIND_OF_KEYS = "threefry2x32"  # whose numbers do not depend on how many environments there are
_LANES, _ACTIONS = 0x1A9E5, 0xAC7105  # folded into the key of a seed, which others have, too


def replay_keys(seed: int | jax.Array, step: int | jax.Array) -> jax.Array:
    """The key of step `step` of the episode with this seed; step 0 is its reset.

    Seed and step are the key's two words as they are: threefry is made for keys that are counted
    (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011), and to fold the step in
    would take as long as a step of a small environment does.
    """
    words = jnp.stack([jnp.asarray(seed, jnp.uint32), jnp.asarray(step).astype(jnp.uint32)])
    key: jax.Array = jax.random.wrap_key_data(words, impl=_KIND_OF_KEYS)
    return key


def lane_roots(num_envs: int, seed: int | jax.Array) -> jax.Array:
    """Of every environment what its seeds are made of, `[E]` uint32."""
    # To split a key is to fold 0, 1, 2, ... in: whoever splits that of the seed would have these.
    key = jax.random.fold_in(jax.random.key(seed, impl=_KIND_OF_KEYS), _LANES)

    def root(i: jax.Array) -> jax.Array:
        return jax.random.bits(jax.random.fold_in(key, i), dtype=jnp.uint32)

    roots: jax.Array = jax.vmap(root)(jnp.arange(num_envs))
    return roots


def episode_seed(root: jax.Array, episode: jax.Array) -> jax.Array:
    """Of all that is random in an episode of the environment with this root; uint32."""
    # Mixed twice: two environments with a seed in common have other seeds before and after it.
    return _mixed(root ^ _mixed(episode.astype(jnp.uint32)))


def phases(root: jax.Array, length: int) -> jax.Array:
    """One of 0, ..., length - 1 for each root, drawn beside the seeds of its episodes; int32."""
    drawn = _mixed(~root) % jnp.uint32(length)
    phase: jax.Array = drawn.astype(jnp.int32)
    return phase


def action_key(seed: int) -> jax.Array:
    """Of the policy's draws beside environments of this seed: of nothing else that is drawn."""
    return jax.random.fold_in(jax.random.key(seed & 0xFFFFFFFF), _ACTIONS)


def _mixed(word: jax.Array) -> jax.Array:
    """Another uint32 for each: the finalizer of MurmurHash3, in which every bit counts."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        word = (word ^ (word >> jnp.uint32(shift))) * jnp.uint32(factor)
    mixed: jax.Array = word ^ (word >> jnp.uint32(16))
    return mixed
