"""The state of an algorithm on the device: one thread updates it, others see it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

from lpml.nodes.averaging import Average
from lpml.nodes.compiling import in_background
from lpml.nodes.learning import Algorithm, Update
from lpml.nodes.memory import check_program
from lpml.nodes.publication import Publication
from lpml.nodes.replay import Sample
from lpml.nodes.roles import Params, Readable
from lpml.nodes.updates import Functions, from_arrays, to_arrays


class Step(NamedTuple):
    """A call of the device that is under way or done."""

    update: Update
    """Metrics are means over the K updates; priorities `[K * B]`."""
    bad: Any
    """A jax array `[]` int32: the first update whose metrics were not finite, or -1."""
    keys: Any
    last: int
    """The number of its last update."""


@final
class Training:
    """Where a learner trains.

    Args:
      algorithm: how to learn.
      batch_size: B, items of one update.
      updates_per_step: K.
      average: this learner's part in the average of several; `None` = it is the only one.
      seed: of the algorithm's random key.
      flat: others see parameters as a `Flat`.
      share: `share((variables, bad))`: what readers get.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        batch_size: int,
        updates_per_step: int,
        average: Average | None,
        seed: int,
        flat: bool,
        share: Callable[[tuple[Any, jax.Array]], Readable],
    ) -> None:
        self._batch_size = batch_size
        self._updates_per_step = updates_per_step
        self._average = average
        self._functions = Functions.of(algorithm, updates_per_step, batch_size, flat=flat)
        self.publication = Publication(lambda: (self._agreed(), self.bad), share)
        self._changed = self.publication.changed
        self._state: Any = self._functions.init(jax.random.key(seed))
        self.bad = self._functions.no_bad(self._state)
        """A jax array `[]` int32: the first update whose metrics were not finite, or -1."""
        self.updates = 0
        self.is_mean = True
        """Or the state is still this learner's own, and `exchange` comes next."""

    def compile(self, example: Sample, what: str) -> None:
        """Makes a step whose outcome is thrown away, in the background.

        Raises:
          UsageError: it would take more memory than there is; `what` are too large.
        """
        function = self._functions.update
        args = self._arguments(jax.tree.map(jnp.copy, self._state), example)
        in_background(check_program, function, args, what, self._batch_size)
        in_background(function, *args)

    def update(self, sample: Sample) -> Step:
        """Hands a batch of `[K * B]` to the device; the outcome may be there later."""
        with self._changed:
            args = self._arguments(self._state, sample)
            self._state, update, self.bad = self._functions.update(*args)
            self.updates += self._updates_per_step
            self.is_mean = self._average is None
            if self.is_mean:
                self.publication.advance(self._updates_per_step)
            return Step(update, self.bad, sample.info.keys, self.updates)

    def join(self) -> None:
        """Begins where the other learners are, if there are any."""
        if self._average is not None and self._average.start() and self.is_mean:
            with self._changed:
                self._adopt(self._average)

    def exchange(self) -> None:
        """Goes on from the mean of all learners, if there are others; waits for them."""
        if self._average is None:
            return
        self._average.exchange(self._functions.state(self._state))
        with self._changed:
            self._adopt(self._average)
            self.is_mean = True
            self.publication.advance(self._updates_per_step)

    def leave(self) -> None:
        """No other learner waits for this one any more."""
        if self._average is not None:
            self._average.leave()

    def variables(self) -> Params:
        """A copy of the newest parameters that others may see; it stays on the device."""
        with self._changed:
            return self._agreed()

    def save(self) -> dict[str, Any]:
        """The whole state, random key included, and the count of updates."""
        with self._changed:
            state, updates, is_mean = self._functions.state(self._state), self.updates, self.is_mean
        return {"state": to_arrays(state), "updates": updates, "is_mean": is_mean}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts back what `save` returned.

        Raises:
          UsageError: the states differ in names or shapes; nothing was changed.
        """
        with self._changed:
            like = self._functions.state(self._state)
            self._state = self._functions.pack(from_arrays(state["state"], like))
            self.bad = self._functions.no_bad(self._state)
            self.updates, self.is_mean = int(state["updates"]), bool(state["is_mean"])
            own = 0 if self.is_mean else self._updates_per_step
            self.publication.restore(self.updates - own)

    def _arguments(self, state: Any, sample: Sample) -> tuple[Any, ...]:
        info = sample.info
        probabilities = np.asarray(info.probabilities, np.float32)
        size, updates = np.float32(info.size), np.int32(self.updates)
        return state, sample.data, probabilities, size, self.bad, updates

    # What follows is called with the lock held.

    def _adopt(self, average: Average) -> None:
        state = average.adopt(self._functions.state(self._state))
        self._state = self._functions.pack(state)

    def _agreed(self) -> Any:
        """The variables of the state that all learners had last."""
        packed = self._state
        if self._average is not None and not self.is_mean:
            packed = self._functions.pack(self._average.adopt(self._functions.state(packed)))
        return self._functions.variables(packed)
