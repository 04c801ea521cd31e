"""The nodes of the supervised half, and what its results come to the other half through."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

import lpml
from lpml.agents.environments import make_environment
from lpml.errors import CallTimeout, NodeUnavailable, UsageError
from lpml.nodes import AbstractParameterServer, Flat, Params, Snapshot
from lpml.nodes.host_policy import ACTING
from lpml.nodes.replay import AbstractReplay, Prefetcher, Sample, Transition
from lpml.nodes.variables import VariableClient
from lpml.programs.world_and_labels.agent import FRAMES, Refreshed
from lpml.programs.world_and_labels.encoder import Model, Weights

_WAIT_SECONDS = 10.0  # a request for a newer version waits so long, then is made again
_RETRY_SECONDS = 0.1
_LOG_EVERY = 50  # updates of a worker


class Examples(NamedTuple):
    """Frames and their labels."""

    frames: npt.NDArray[Any]
    """`[N, *shape]`."""
    actions: npt.NDArray[Any]
    """`[N]`: taken there."""
    following: npt.NDArray[Any]
    """`[N, *shape]`: what came of it, the label."""


@final
class HeldOut:
    """Serves frames that are in no replay, to measure on: episodes of its own, random actions.

    Args:
      environment: its name, as `make_environment` takes it.
      size: how many frames, at least.
      num_envs: environments that step together.
      seed: of the environments and the actions.
    """

    lpml_role: ClassVar[str] = "data source"
    lpml_resources: ClassVar[lpml.Resources] = ACTING
    lpml_restart: ClassVar[lpml.Restart] = lpml.Restart.on_failure(10)

    def __init__(
        self, environment: str, *, size: int = 2000, num_envs: int = 50, seed: int = 0
    ) -> None:
        made = make_environment(environment, num_envs, seed)
        num_actions, dtype = made.spec.num_actions, made.spec.action.dtype
        if num_actions is None:
            raise UsageError(f"HeldOut({environment!r}): its actions are not discrete")
        rng = np.random.default_rng(seed)
        observation, parts = made.reset(seed), []
        count = 0
        while count < size:
            action = rng.integers(num_actions, size=num_envs).astype(dtype)
            step = made.step(action)
            valid = step.valid
            parts.append(Examples(observation[valid], action[valid], step.arrival[valid]))
            count += int(np.count_nonzero(valid))
            observation = step.observation
        made.close()
        self._examples = Examples(*map(np.concatenate, zip(*parts, strict=True)))

    @lpml.concurrent
    @lpml.idempotent
    def examples(self) -> Examples:
        """All of them, always the same."""
        return self._examples


@final
class Worker:
    """Samples frames from the replay, and hands the gradients to the parameter server.

    Args:
      model: to train.
      server: of its parameters.
      replay: with the table `frames`.
      batch_size: B.
    """

    lpml_role: ClassVar[str] = "learner"
    lpml_restart: ClassVar[lpml.Restart] = lpml.Restart.on_failure(10)

    def __init__(
        self,
        model: Model,
        server: AbstractParameterServer,
        replay: AbstractReplay,
        *,
        batch_size: int = 64,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"Worker(batch_size={batch_size}): give at least 1")
        self._context = lpml.context()
        self._model = model
        self._server = server
        self._replay = replay
        self._batch_size = batch_size
        # Compiled now, while the server compiles too.
        frames = np.zeros((batch_size, *model.shape), np.float32)
        actions = np.zeros(batch_size, np.int32)
        loss_and_gradient(model, Flat.of(model.init()), frames, actions, frames)

    def run(self) -> None:
        """Exchanges gradients for parameters until the program stops."""
        name, updates = self._context.name, 0
        try:
            with (
                lpml.deadline(None),
                Prefetcher(self._replay, FRAMES, self._batch_size) as batches,
            ):
                snapshot = self._server.pull(name)
                while not (snapshot.final or self._context.should_stop):
                    batch: Transition = next(batches).data
                    loss, grads = loss_and_gradient(
                        self._model,
                        snapshot.flat,
                        batch.observation,
                        batch.action,
                        batch.next_observation,
                    )
                    snapshot = self._server.exchange(name, grads, version=snapshot.version)
                    updates += 1
                    if updates % _LOG_EVERY == 0:
                        self._context.log({"loss": float(loss)}, step=snapshot.version)
                        self._context.progress(updates)
                if not self._context.should_stop:
                    self._server.leave(name)
        except lpml.ProgramStopped:
            pass


@final
class Examiner:
    """Measures on held-out frames how well the next ones are foretold, before and as it is learnt.

    Args:
      model: that is trained.
      server: of its parameters.
      held_out: what to measure on.
      period: seconds from one measurement to the next, at least.
    """

    lpml_role: ClassVar[str] = "evaluator"
    lpml_restart: ClassVar[lpml.Restart] = lpml.Restart.on_failure(3)

    def __init__(
        self,
        model: Model,
        server: AbstractParameterServer,
        held_out: HeldOut,
        *,
        period: float = 1.0,
    ) -> None:
        self._context = lpml.context()
        self._model = model
        self._server = server
        self._held_out = held_out
        self._period = period

    def run(self) -> None:
        """Measures each version once at most, until the program stops; says what came of it."""
        said = ""
        try:
            with lpml.deadline(None):
                examples = self._held_out.examples()
                snapshot = self._server.pull()
                first = self.measure(snapshot, examples)
                while not (snapshot.final or self._context.wait(self._period)):
                    snapshot = self._newer(snapshot.version)
                    loss, foretold = self.measure(snapshot, examples)
                    said = (
                        f"held-out loss {loss:.4f} after {snapshot.version} updates, {first[0]:.4f}"
                        f" before; {foretold:.0%} foretold, {first[1]:.0%} before"
                    )
        except lpml.ProgramStopped:
            pass
        if said:
            print(said, flush=True)

    def measure(self, snapshot: Snapshot, examples: Examples) -> tuple[float, float]:
        """The loss, and the share of what is brightest that was foretold; logs both."""
        found = measure(self._model, snapshot.params, *examples)
        loss, foretold = map(float, found)
        metrics = {"validation_loss": loss, "foretold": foretold}
        self._context.log(metrics, step=snapshot.version)
        self._context.progress(snapshot.version)
        return loss, foretold

    def _newer(self, version: int) -> Snapshot:
        """Waits for a version that was not measured, or for the last one."""
        while True:
            try:
                return self._server.pull(at_least=version + 1, timeout=_WAIT_SECONDS)
            except CallTimeout:
                self._context.clock.check()
            except NodeUnavailable:
                if self._context.wait(_RETRY_SECONDS):
                    self._context.clock.check()


@final
class EncodedBatches:
    """Batches of rollouts, each with the encoder to learn with: for a `Learner`.

    The encoder comes from the parameter server in the background; training never waits for it,
    except for the first.

    Args:
      replay: of the rollouts.
      table: in it.
      count: rollouts of a batch.
      server: of the encoder.
      refresh: batches from one look for a newer encoder to the next.
    """

    def __init__(
        self,
        replay: AbstractReplay,
        table: str,
        count: int,
        server: AbstractParameterServer,
        *,
        refresh: int,
    ) -> None:
        self._variables = VariableClient(server, period=refresh, interval=0.0)
        self._batches = Prefetcher(replay, table, count)

    def __next__(self) -> Sample:
        sample = next(self._batches)
        self._variables.poll()
        version = np.float32(self._variables.version)
        return with_encoder(sample, self._variables.params, version)

    def close(self) -> None:
        """Gives up the batches on their way."""
        self._batches.close()


def with_encoder(sample: Sample, weights: Weights, version: Any) -> Sample:
    """The batch with the encoder among those weights."""
    encoder: Params = weights.encoder
    return sample._replace(data=Refreshed(sample.data, encoder, version))


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(model: Model, weights: Flat, *batch: Any) -> tuple[jax.Array, Flat]:
    """`Model.gradient`, compiled once a process: nodes that share one share it."""
    return model.gradient(weights, *batch)


@functools.partial(jax.jit, static_argnums=0)
def measure(model: Model, weights: Weights, *examples: Any) -> tuple[jax.Array, jax.Array]:
    """`Model.measure`, likewise."""
    return model.measure(weights, *map(jnp.asarray, examples))
