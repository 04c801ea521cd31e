"""A parameter server with a journal: what redoes it is, to the bit, what it was."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
import optax
import pytest

import lpml
from lpml.context import Context, entered
from lpml.nodes import Asynchronous, BoundedStaleness, Consistency, ParameterServer, Synchronous

PARAMS = {
    "w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "b": np.ones(3, jax.numpy.bfloat16),
    "c": np.ones((), np.float32),
}
WORKERS = ("a", "b")


class Life:
    """One life of a server, from its start to its death; what a launcher would do to it."""

    def __init__(self, folder: Path, cut: int = 0, state: Any = None, **options: Any) -> None:
        self.context = Context("server/0", directory=folder)
        with entered(self.context):
            optimizer = optax.adam(0.1, mu_dtype=np.float32)
            self.server = ParameterServer(PARAMS, optimizer, journal=True, **options)
            if state is not None:
                self.server.restore(state)
            assert self.context.journal_file is not None
            self.journal = self.context.journal_file
            self.redone = self.journal.begin(cut, self.server.redo)

    def work(self, updates: int, seed: int) -> None:
        """Both workers push gradients, of their own weights; no push waits."""
        rng = np.random.default_rng(seed)
        for _ in range(updates):
            for worker in WORKERS:
                grads = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(p.dtype), PARAMS)
                version = self.server.pull().version
                self.server.push(worker, grads, version=version, weight=1 + rng.integers(9))

    def die(self) -> Any:
        """What its state was."""
        self.context.close()
        return self.server.save()


def assert_equal(found: Any, expected: Any) -> None:
    """To the bit."""
    structures: Any = jax.tree.structure(found), jax.tree.structure(expected)
    assert structures[0] == structures[1]
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("mode", [Asynchronous(), Synchronous(2), BoundedStaleness(1)], ids=str)
def test_what_redoes_its_journal_is_bit_equal(tmp_path: Path, mode: Consistency) -> None:
    life, lives = Life(tmp_path, mode=mode), 3
    for number in range(lives):
        for worker in WORKERS:
            life.server.pull(worker)
        life.work(5, seed=number)
        before = life.die()
        life = Life(tmp_path, mode=mode)
        assert_equal(life.server.save(), before)
        assert life.redone == before["version"] > 0
    life.die()


def test_a_life_begins_with_a_cut_and_redoes_what_came_after(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.work(3, seed=0)
    cut = life.server.save()
    assert life.journal.turn(1, life.journal.written)
    life.work(4, seed=1)
    before = life.die()
    life = Life(tmp_path, 1, cut)
    assert life.redone == 8
    assert_equal(life.server.save(), before)
    life.die()


def test_a_gradient_that_is_held_or_dropped_is_not_journaled(tmp_path: Path) -> None:
    life = Life(tmp_path, mode=Synchronous(2), max_updates=1)
    grads = jax.tree.map(np.ones_like, PARAMS)
    life.server.push("a", grads, version=0)
    assert life.journal.written == 0
    life.server.push("b", grads, version=0)
    assert life.journal.written == 1
    assert not life.server.push("a", grads, version=0).accepted
    assert not life.server.push("a", grads, version=1).accepted
    assert life.journal.written == 1
    life.die()


@pytest.mark.parametrize("mode", [Asynchronous(), Synchronous(2)], ids=str)
def test_a_gradient_that_cannot_be_journaled_is_not_applied(
    tmp_path: Path, mode: Consistency, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    life = Life(tmp_path, mode=mode)
    grads = jax.tree.map(np.ones_like, PARAMS)
    before = life.server.save()
    if isinstance(mode, Synchronous):
        life.server.push("a", grads, version=0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        with pytest.raises(lpml.LaunchError, match="No space left"):
            life.server.push("b", grads, version=0)
    assert_equal(life.server.save(), before)
    life.server.push("b", grads, version=0)  # as a worker does that was told so
    after = life.die()
    assert after["version"] == 1
    life = Life(tmp_path, mode=mode)
    assert_equal(life.server.save(), after)
    life.die()


def test_the_journal_of_a_server_with_other_parameters_is_refused() -> None:
    server = ParameterServer(PARAMS, optax.sgd(0.1), journal=True)
    with pytest.raises(ValueError, match=r"a record of 8 bytes .* have 58: .* server with others"):
        server.redo(bytes(8))
