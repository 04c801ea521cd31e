"""The task: scikit-learn's handwritten digits. Data, model, loss, Worker, Evaluator.

1797 grey images of 8 x 8 pixels, ten classes; 1347 train, 450 test. Letters in shapes: B batch,
N examples.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import haiku as hk
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lpml
from lpml.nodes import (
    AbstractParameterServer,
    Flat,
    ParameterServerStatistics,
    Params,
    Snapshot,
)

Array: TypeAlias = np.ndarray[Any, Any]

HIDDEN = (256, 256)
NUM_PIXELS, NUM_CLASSES = 64, 10


@dataclass(frozen=True)
class Examples:
    """Images and their labels."""

    images: Array
    """float32 [N, 64], centred on the training mean, within about [-2, 2]."""
    labels: Array
    """int32 [N], 0 to 9."""

    def __len__(self) -> int:
        return len(self.labels)


@functools.cache
def load() -> tuple[Examples, Examples]:
    """The training and the test set, always split the same way (a quarter for the test)."""
    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = map(
        np.asarray,  # which they are already, but the type checkers cannot know
        train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0),
    )
    mean = train_images.mean(axis=0)

    def examples(images: Array, labels: Array) -> Examples:
        return Examples((2 * (images - mean)).astype(np.float32), labels.astype(np.int32))

    return examples(train_images, train_labels), examples(test_images, test_labels)


def _network(images: jax.Array) -> jax.Array:
    return hk.nets.MLP([*HIDDEN, NUM_CLASSES])(images)


network = hk.transform(_network)


def init_params(seed: int = 0) -> Params:
    """Parameters drawn He-normal, biases 0.

    With NumPy, so that whoever declares a program with them starts no JAX backend.
    """
    key, images = np.zeros((2,), np.uint32), np.zeros((1, NUM_PIXELS), np.float32)
    shapes = jax.eval_shape(network.init, key, images)
    rng = np.random.default_rng(seed)

    def draw(leaf: jax.ShapeDtypeStruct) -> Array:
        scale = np.sqrt(2 / leaf.shape[0]) if len(leaf.shape) == 2 else 0.0
        return np.asarray(scale * rng.standard_normal(leaf.shape), np.float32)

    return jax.tree.map(draw, shapes)


def loss(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of images `[B, 64]` with labels `[B]`."""
    losses = _losses(network.apply(params, None, images), labels)
    return losses.mean()


def loss_and_correct(
    params: Params, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy, and how many are classified correctly."""
    logits = network.apply(params, None, images)
    return _losses(logits, labels).mean(), (logits.argmax(axis=-1) == labels).sum()


def _losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses


def _loss_and_gradient(
    params: Params | Flat, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, Params | Flat]:
    """The loss, and its gradient in the form of `params`: a tree, or flat."""
    if not isinstance(params, Flat):
        return jax.value_and_grad(loss)(params, images, labels)
    value, grads = jax.value_and_grad(loss)(params.tree, images, labels)
    return value, Flat.of(grads)


# One of each per process: nodes that share a process share what was compiled.
loss_and_gradient = jax.jit(_loss_and_gradient)
evaluate = jax.jit(loss_and_correct)


def batches(
    examples: Examples, batch_size: int, seed: int, shard: int = 0, num_shards: int = 1
) -> Iterator[tuple[Array, Array]]:
    """Batches for ever: every example of the shard once per epoch, in a new order each.

    Shard k of n holds the examples k, k + n, k + 2n, ... What does not fill the last batch of an
    epoch begins the next.

    Args:
      batch_size: B; more than the shard holds makes a batch of several epochs.

    Raises:
      ValueError: there is no such batch or shard.
    """
    own = np.arange(shard, len(examples), num_shards)
    if batch_size < 1 or not len(own):
        raise ValueError(
            f"batch_size={batch_size}: shard {shard} of {num_shards} has {len(own)} examples; "
            "give a batch size of at least 1, and no more workers than examples"
        )
    rng = np.random.default_rng((seed, shard))
    order = np.empty(0, dtype=own.dtype)
    while True:
        while len(order) < batch_size:
            order = np.concatenate([order, rng.permutation(own)])
        chosen, order = order[:batch_size], order[batch_size:]
        yield examples.images[chosen], examples.labels[chosen]


@final
class Worker:
    """Computes gradients on its shard of the training set until the parameters are final.

    Args:
      server: where parameters come from and gradients go.
      shard, num_shards: which part of the training set is its own.
      batch_size: B.
      overlap: sends a gradient, and has it applied, while it computes the next one, which is on
        parameters that lack it. For asynchronous servers.
      pause: seconds by which each gradient takes longer: a slow worker, to try what that does.
      seed: of the order of the examples.
    """

    lpml_role: ClassVar[str] = "learner"
    lpml_restart: ClassVar[lpml.Restart] = lpml.Restart.on_failure(10)

    def __init__(
        self,
        server: AbstractParameterServer,
        *,
        shard: int = 0,
        num_shards: int = 1,
        batch_size: int = 128,
        overlap: bool = False,
        pause: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._server = server
        self._overlap = overlap
        self._pause = pause
        self._batches = batches(load()[0], batch_size, seed, shard, num_shards)
        # Compiled now, while the server compiles too.
        images = np.zeros((batch_size, NUM_PIXELS), np.float32)
        loss_and_gradient(Flat.of(init_params()), images, np.zeros(batch_size, np.int32))

    def run(self) -> None:
        """Exchanges gradients for parameters."""
        context = lpml.context()
        exchange = _Ahead(self._server) if self._overlap else _Now(self._server)
        with lpml.deadline(None):  # where workers wait for each other, the slowest decides
            snapshot = self._server.pull(context.name)
            batch = next(self._batches)
            for count in itertools.count(1):
                stopping = context.wait(self._pause) if self._pause else context.should_stop
                if snapshot.final or stopping:
                    break
                value, grads = loss_and_gradient(snapshot.flat, *batch)  # begins, and goes on
                batch = next(self._batches)
                try:
                    snapshot = exchange(context.name, grads, snapshot)
                except lpml.NodeUnavailable:  # the gradient may count, or may not: go on either way
                    snapshot = self._server.pull(context.name)
                if count % 10 == 0:
                    context.log({"loss": value}, step=snapshot.version)
            self._server.leave(context.name)


@final
class _Now:
    """Hands in each gradient and waits for the parameters that have it."""

    def __init__(self, server: AbstractParameterServer) -> None:
        self._server = server

    def __call__(self, name: str, grads: Flat, base: Snapshot) -> Snapshot:
        return self._server.exchange(name, grads, version=base.version)


@final
class _Ahead:
    """Hands in each gradient while the next is computed, on parameters that have all before it.

    Waits for the gradient before `grads` and for the parameters that have it; `grads` may still
    be in the making then, so that the next computation is queued when this one ends.
    """

    def __init__(self, server: AbstractParameterServer) -> None:
        self._server = server
        self._last: tuple[Flat, int] | None = None  # a gradient and the version it was taken at

    def __call__(self, name: str, grads: Flat, base: Snapshot) -> Snapshot:
        last, self._last = self._last, (grads, base.version)
        if last is None:
            return base
        return self._server.exchange(name, last[0], version=last[1])


@final
class Evaluator:
    """Measures the parameters on the test set now and then; ends the program when they are final.

    Args:
      server: where the parameters come from.
      updates: how many there will be, for the progress bar.
      every: updates from one evaluation to the next.
      target: ends the program as soon as this test accuracy is reached; `None` = never.
    """

    lpml_role: ClassVar[str] = "evaluator"
    lpml_restart: ClassVar[lpml.Restart] = lpml.Restart.on_failure(3)

    def __init__(
        self,
        server: AbstractParameterServer,
        *,
        updates: int,
        every: int = 50,
        target: float | None = None,
    ) -> None:
        self._server = server
        self._updates = updates
        self._every = every
        self._target = math.inf if target is None else target
        self._test = load()[1]
        evaluate(init_params(), self._test.images, self._test.labels)  # compiles, as workers do

    def run(self) -> None:
        """Evaluates, logs and reports until the end, which it announces."""
        context = lpml.context()
        next_version = 0
        with lpml.deadline(None):
            while True:
                snapshot = self._server.pull(at_least=next_version)
                accuracy = self.evaluate(snapshot)
                if snapshot.final or accuracy >= self._target or context.should_stop:
                    break
                next_version = snapshot.version + self._every
            summary = self._summary(snapshot, accuracy)
        print(summary, flush=True)
        context.stop_program(summary)

    def evaluate(self, snapshot: Snapshot) -> float:
        """The test accuracy; logs it with the loss, the staleness and the rate of updates."""
        test = self._test
        value, correct = evaluate(snapshot.params, test.images, test.labels)
        accuracy = int(correct) / len(test)
        statistics = self._server.statistics()
        metrics = {
            "loss": float(value),
            "accuracy": accuracy,
            "staleness": statistics.mean_staleness,
            "updates_per_second": _rate(statistics),
        }
        lpml.context().log(metrics, step=snapshot.version)
        lpml.context().progress(snapshot.version, self._updates)
        return accuracy

    def _summary(self, snapshot: Snapshot, accuracy: float) -> str:
        statistics = self._server.statistics()
        correct, total = round(accuracy * len(self._test)), len(self._test)
        return (
            f"test accuracy {accuracy:.1%} ({correct} of {total}) after {snapshot.version} updates"
            f" at {_rate(statistics):.0f}/s; staleness {statistics.mean_staleness:.2f} on average,"
            f" {max(statistics.staleness, default=0)} at most; {statistics.dropped} gradients"
            " dropped"
        )


def _rate(statistics: ParameterServerStatistics) -> float:
    return statistics.version / statistics.seconds if statistics.seconds > 0 else 0.0
