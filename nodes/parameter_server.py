"""The parameter server: holds the parameters of a model and applies the gradients of workers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import final

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lpml
from lpml.nodes.consistency import Asynchronous, Consistency
from lpml.nodes.flat import Flat
from lpml.nodes.gradients import (
    bytes_of_flat,
    checked,
    compiled_update,
    flat_of_bytes,
    flat_params,
    weighted_mean,
)
from lpml.nodes.membership import Membership
from lpml.nodes.roles import (
    AbstractParameterServer,
    ParameterServerStatistics,
    Params,
    Receipt,
    Snapshot,
    Whole,
)

_SMALL = 1 << 20  # bytes up to which a `lpml.Shared` would be copied for each reader anyway


@final
class ParameterServer(AbstractParameterServer):
    """Applies an optax transformation to the gradients that workers push; serves snapshots.

    The mode decides who waits for whom; a worker is written the same for all three:

        snapshot = server.pull(me)
        while not snapshot.final:
            grads = gradient(snapshot.params, next(batches))
            snapshot = server.exchange(me, grads, version=snapshot.version)
        server.leave(me)

    A worker that was not heard of for `lease` seconds is taken for departed and nobody waits for
    it any more; its next call makes it a member again. A version is published once, when it is
    first pulled, and its readers share that memory where it is more than a megabyte.

    Args:
      params: a pytree of arrays, or a function without arguments that makes one in the node.
      optimizer: any optax transformation; it sees the gradient as `push` brought it, or in
        synchronous mode the weighted mean over the workers, taken in the order of their names.
      mode: `Asynchronous()`, `Synchronous(num_workers, backup_workers)` or
        `BoundedStaleness(bound)`.
      max_updates: after this many, gradients are dropped and snapshots are `final`; `None` = never.
      lease: seconds of silence after which a worker is taken for departed. Several times what a
        gradient takes, compilation included. `None` = never.
      journal: writes each gradient to the run folder before it is applied, so that a server that
        dies is replaced alone and has every update that was acknowledged. `params` must then be
        the same at each call, if it is a function.

    Example:
      >>> import numpy as np
      >>> server = ParameterServer({"w": np.ones(2, np.float32)}, optax.sgd(0.5))
      >>> snapshot = server.exchange("me", {"w": np.ones(2, np.float32)}, version=0)
      >>> snapshot.version, snapshot.params["w"].tolist()
      (1, [0.5, 0.5])
    """

    def __init__(
        self,
        params: Params | Callable[[], Params],
        optimizer: optax.GradientTransformation,
        *,
        mode: Consistency = Asynchronous(),  # noqa: B008  # frozen, so one for all is safe
        max_updates: int | None = None,
        lease: float | None = 60.0,
        journal: bool = False,
    ) -> None:
        if max_updates is not None and max_updates < 0:
            raise ValueError(
                f"ParameterServer(max_updates={max_updates}): give at least 0, or None"
            )
        if lease is not None and not lease > 0:
            raise ValueError(f"ParameterServer(lease={lease}): give seconds above 0, or None")
        self._journal: Callable[[list[memoryview]], None] | None = None
        if journal:
            lpml.context().keep_journal()
            self._journal = lpml.context().journal
        self._clock = lpml.context().clock
        self._changed = self._clock.condition()  # guards all that follows
        self._rules = mode.rules()
        self._members = Membership(self._rules, lease)
        self._max_updates = math.inf if max_updates is None else max_updates
        self._params = flat_params(params() if callable(params) else params)
        self._layout = self._params.layout
        self._opt_state = jax.jit(lambda params: optimizer.init(params.tree))(self._params)
        self._update = compiled_update(optimizer, self._params, self._opt_state)
        self._version = 0
        self._published: Snapshot | None = None
        self._held: dict[str, tuple[Flat, float]] = {}  # {worker: (gradient, weight)}
        self._staleness: Counter[int] = Counter()
        self._pushes = self._dropped = self._snapshots = 0
        self._began: float | None = None

    @lpml.concurrent
    @lpml.idempotent
    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        with self._changed:
            if worker is not None:
                self._members.heard(worker, self._clock.time())
            self._wait(worker, at_least, timeout)
            return self._snapshot()

    @lpml.concurrent
    def push(self, worker: str, grads: Params, *, version: int, weight: float = 1.0) -> Receipt:
        flat = checked(grads, weight, self._layout)
        with self._changed:
            self._members.heard(worker, self._clock.time())
            return self._push(worker, flat, version, weight)

    @lpml.concurrent
    def exchange(
        self,
        worker: str,
        grads: Params,
        *,
        version: int,
        weight: float = 1.0,
        timeout: float | None = None,
    ) -> Snapshot:
        flat = checked(grads, weight, self._layout)
        with self._changed:
            self._members.heard(worker, self._clock.time())
            self._push(worker, flat, version, weight)
            self._wait(worker, 0, timeout)
            return self._snapshot()

    @lpml.concurrent
    @lpml.idempotent
    def leave(self, worker: str) -> None:
        with self._changed:
            self._members.leave(worker)
            self._settle()

    @lpml.concurrent
    @lpml.idempotent
    def statistics(self) -> ParameterServerStatistics:
        with self._changed:
            now = self._clock.time()
            return ParameterServerStatistics(
                version=self._version,
                pushes=self._pushes,
                dropped=self._dropped,
                snapshots=self._snapshots,
                staleness=dict(sorted(self._staleness.items())),
                waited=dict(self._members.waited),
                members=self._members.present,
                departed=self._members.departed,
                seconds=0.0 if self._began is None else now - self._began,
            )

    def save(self) -> Params:
        """Parameters, optimiser state and version, as a pytree; members are not part of it."""
        with self._changed:
            opt_state = jax.tree.map(np.asarray, self._opt_state)
            params = self._params.to_numpy().tree
            return {"params": params, "opt_state": opt_state, "version": self._version}

    def restore(self, state: Params) -> None:
        """Puts back what `save` returned. Gradients that are held are dropped."""
        with self._changed:
            self._params = flat_params(state["params"])
            self._opt_state = jax.tree.map(jnp.asarray, state["opt_state"])
            self._version, self._published = int(state["version"]), None
            self._dropped += len(self._held)
            self._held.clear()
            self._rules.close()
            self._changed.notify_all()

    def redo(self, record: bytes) -> None:
        """Makes an update that was journaled once more: bit-equal, by what made it first."""
        grads = flat_of_bytes(record, self._params)
        with self._changed:
            self._update_by(grads)

    # All below is called with the lock held.

    @property
    def _final(self) -> bool:
        return self._version >= self._max_updates

    def _push(self, worker: str, grads: Flat, version: int, weight: float) -> Receipt:
        if self._began is None:
            self._began = self._clock.time()
        self._pushes += 1
        staleness = self._version - version
        # A version of the future is that of a server before it was restored.
        usable = staleness >= 0 and not self._final
        verdict = self._rules.push(worker, staleness) if usable else "drop"
        if verdict == "drop":
            self._dropped += 1
        else:
            self._staleness[staleness] += 1
        if verdict == "apply":
            self._apply(grads)
        elif verdict == "hold":
            self._held[worker] = grads, weight
        self._settle()
        return Receipt(verdict != "drop", self._version, staleness)

    def _settle(self) -> None:
        """Makes the update that is complete, if one is, and lets everyone look again."""
        if self._rules.complete():
            self._apply(weighted_mean([self._held[worker] for worker in sorted(self._held)]))
            self._held.clear()
            self._rules.close()
        self._changed.notify_all()

    def _apply(self, grads: Flat) -> None:
        if self._journal is not None:
            self._journal(bytes_of_flat(grads))  # first: what cannot be written is not applied
        self._update_by(grads)

    def _update_by(self, grads: Flat) -> None:
        self._params, self._opt_state = self._update(self._params, self._opt_state, grads)
        self._version += 1

    def _snapshot(self) -> Snapshot:
        if self._published is None or self._published.version != self._version:
            flat = self._params.to_numpy()
            large = sum(vector.nbytes for vector in flat.vectors) > _SMALL
            shared = lpml.Shared(flat) if large else Whole(flat)
            self._published = Snapshot(self._version, shared, self._final)
            self._snapshots += 1
        return self._published

    def _blockers(self, worker: str | None) -> tuple[str, ...]:
        """Whom `worker` waits for; a worker that was made to leave meanwhile waits no more."""
        return () if worker not in self._members.present else self._rules.waits_for(worker)

    def _wait(self, worker: str | None, at_least: int, timeout: float | None) -> None:
        def ready() -> bool:
            return self._final or (self._version >= at_least and not self._blockers(worker))

        self._expire()
        if ready():
            return
        begin = self._clock.time()
        with self._members.waiting(worker, self._clock.time):
            while not ready():
                left = None if timeout is None else begin + timeout - self._clock.time()
                if left is not None and left < 1e-6:
                    raise lpml.CallTimeout(self._why(worker, at_least, timeout))
                silence = self._members.until_next_expiry(self._clock.time())
                bounds = [bound for bound in (left, silence) if bound is not None]
                self._changed.wait_for(ready, min(bounds, default=None))
                self._expire()

    def _expire(self) -> None:
        if self._members.expire(self._clock.time()):
            self._settle()

    def _why(self, worker: str | None, at_least: int, timeout: float | None) -> str:
        blockers = self._blockers(worker)
        cause = f"it waits for {', '.join(blockers)}" if blockers else "no worker made an update"
        return (
            f"pull by {worker or 'a reader'} at version {self._version} (at_least={at_least}) "
            f"had no answer in timeout={timeout} s: {cause}; allow more time, or let workers "
            "that are gone `leave`"
        )
