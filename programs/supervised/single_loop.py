"""The baseline of the parameter-server programs: the same updates in one process, without lpml."""

from __future__ import annotations

from typing import Any

import jax
import optax

import lpml
from lpml.nodes import Params
from lpml.programs.supervised import digits


def train(
    updates: int = 600, batch_size: int = 128, learning_rate: float = 0.2, seed: int = 0
) -> tuple[Params, float]:
    """One jitted call per update: gradient and optimiser in one.

    Returns:
      The parameters, and the seconds that the updates took, compilation excluded.
    """
    optimizer = optax.sgd(learning_rate)

    @jax.jit
    def update(params: Params, opt_state: Params, *batch: Any) -> tuple[Params, Params]:
        grads = jax.grad(digits.loss)(params, *batch)
        changes, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, changes), opt_state

    params = jax.tree.map(jax.numpy.asarray, digits.init_params(seed))
    opt_state = optimizer.init(params)
    batches = digits.batches(digits.load()[0], batch_size, seed)
    _wait_for(update(params, opt_state, *next(batches)))  # compiles; the result is not used
    batches = digits.batches(digits.load()[0], batch_size, seed)
    clock = lpml.context().clock
    begin = clock.time()
    for _ in range(updates):
        params, opt_state = update(params, opt_state, *next(batches))
    _wait_for(params)
    return params, clock.time() - begin


def _wait_for(tree: Params) -> None:
    for leaf in jax.tree.leaves(tree):
        leaf.block_until_ready()


def accuracy(params: Params) -> float:
    """On the test set."""
    test = digits.load()[1]
    return int(digits.evaluate(params, test.images, test.labels)[1]) / len(test)
