"""The claims of the sources, small: real gradients, simulated time, no threads.

`simulate` lets each worker take its own time for a gradient and asks the server itself, by a pull
with no patience, whether a worker has to wait. So order, staleness and time are the same in every
run.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optax
import pytest

import lpml
from lpml.nodes import (
    Asynchronous,
    BoundedStaleness,
    Consistency,
    ParameterServer,
    ParameterServerStatistics,
    Snapshot,
    Synchronous,
)
from lpml.programs.supervised import digits, single_loop
from lpml.testing import VirtualClock, node

NOTHING = {"w": np.zeros((1,), np.float32)}  # parameters, and a gradient, of no interest
Duration = Callable[[int], float]


@dataclass(frozen=True)
class Result:
    accuracy: float
    seconds: float
    statistics: ParameterServerStatistics

    @property
    def gradients_per_second(self) -> float:
        return sum(self.statistics.staleness.values()) / self.seconds


def simulate(
    mode: Consistency,
    duration: Duration,
    *,
    workers: int = 4,
    updates: int = 400,
    seed: int = 0,
    lost: dict[int, float] | None = None,
    learn: bool = True,
) -> Result:
    """Trains in virtual time; `duration(worker)` is what its next gradient takes.

    Args:
      lost: `{worker: second}` of workers that vanish without a word.
      learn: trains on the digits; else nothing is learnt, and only time is of interest.
    """
    clock = VirtualClock()
    with node("server/0", clock=clock):
        params = digits.init_params(seed) if learn else NOTHING
        server = ParameterServer(params, optax.sgd(0.2), mode=mode, max_updates=updates, lease=50.0)
        streams = [
            digits.batches(digits.load()[0], 128, seed, worker, workers)
            for worker in range(workers)
        ]
        bases: dict[int, Snapshot] = {}
        events: list[tuple[float, int]] = []  # (when a gradient is ready, whose), a heap

        def start(worker: int) -> bool:
            try:
                bases[worker] = server.pull(f"worker/{worker}", timeout=0)
            except lpml.CallTimeout:
                return False
            heapq.heappush(events, (clock.time() + duration(worker), worker))
            return True

        idle = [worker for worker in range(workers) if not start(worker)]
        final = False
        while not final:
            if not events:  # all that are left wait for the lease of the lost
                clock.advance(1.0)
            else:
                when, worker = heapq.heappop(events)
                clock.advance(when - clock.time())
                if when < (lost or {}).get(worker, np.inf):
                    base = bases[worker]
                    grads = NOTHING
                    if learn:
                        _, grads = digits.loss_and_gradient(base.params, *next(streams[worker]))
                    server.push(f"worker/{worker}", grads, version=base.version)
                    idle.append(worker)
            idle = [worker for worker in idle if not start(worker)]
            final = server.statistics().version >= updates
        accuracy = single_loop.accuracy(server.pull().params) if learn else 0.0
        return Result(accuracy, clock.time(), server.statistics())


def straggler(worker: int) -> float:
    """Worker 0 is five times slower than the others, who differ a little."""
    return 5.0 if worker == 0 else 1.0 + worker / 100


def hiccups(seed: int = 0) -> Duration:
    """Everybody is sometimes slow."""
    rng = np.random.default_rng(seed)
    return lambda worker: float(rng.choice([1.0, 5.0], p=[0.9, 0.1]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "mode", [Asynchronous(), Synchronous(4), Synchronous(4, 1), BoundedStaleness(3)], ids=repr
)
def test_every_mode_reaches_97_percent_with_a_straggler(mode: Consistency, seed: int) -> None:
    assert simulate(mode, straggler, updates=600, seed=seed).accuracy >= 0.97


@pytest.mark.parametrize("mode", [Asynchronous(), Synchronous(2), BoundedStaleness(1)], ids=repr)
def test_every_mode_learns(mode: Consistency) -> None:
    assert simulate(mode, lambda worker: 1.0, workers=2, updates=60).accuracy >= 0.94


def test_an_asynchronous_straggler_delays_nobody_but_is_stale() -> None:
    asynchronous = simulate(Asynchronous(), straggler, learn=False)
    synchronous = simulate(Synchronous(4), straggler, updates=100, learn=False)
    assert asynchronous.gradients_per_second >= 3 * synchronous.gradients_per_second
    assert max(asynchronous.statistics.staleness) >= 12
    assert synchronous.statistics.staleness == {0: 400}


def test_a_backup_worker_hides_a_straggler() -> None:
    with_backup = simulate(Synchronous(4, backup_workers=1), straggler, learn=False)
    without = simulate(Synchronous(4), straggler, learn=False)
    assert without.seconds >= 4 * with_backup.seconds
    assert with_backup.statistics.dropped > 0
    assert with_backup.statistics.staleness == {0: 3 * 400}


def test_bounded_staleness_absorbs_hiccups_and_keeps_its_bound() -> None:
    bounded = simulate(BoundedStaleness(3), hiccups(), learn=False)
    synchronous = simulate(Synchronous(4), hiccups(), updates=100, learn=False)
    assert bounded.gradients_per_second >= 1.3 * synchronous.gradients_per_second
    assert max(bounded.statistics.staleness) <= (2 * 3 + 2) * 3  # all others, twice the lead


@pytest.mark.parametrize(
    "mode", [Asynchronous(), Synchronous(4), Synchronous(4, 1), BoundedStaleness(3)], ids=repr
)
def test_training_goes_on_when_workers_are_lost(mode: Consistency) -> None:
    result = simulate(mode, straggler, lost={1: 20.0, 2: 30.0}, learn=False, updates=100)
    assert result.statistics.version == 100
    if not isinstance(mode, Asynchronous):
        assert set(result.statistics.departed) == {"worker/1", "worker/2"}
