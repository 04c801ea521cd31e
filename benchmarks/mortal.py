"""Programs all of whose nodes may die, as `benchmarks.kills` lets them, and are started again."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

import optax

import lpml
from lpml.nodes import AbstractParameterServer, ParameterServer, Snapshot
from lpml.programs import dqn
from lpml.programs.supervised import digits

POLICY = lpml.Restart.on_failure(None, backoff=0.01, max_backoff=0.1)


def digits_program(
    path: str, updates: int, pause: float, journal: bool, workers: int = 2
) -> lpml.Program:
    """The digits, with nodes that can be asked to wait, all of which are restarted."""
    p = lpml.Program("digits")
    with p.group("server", restart=POLICY):
        params = digits.init_params()
        node = lpml.Node(Server, params, optax.sgd(0.2), max_updates=updates, journal=journal)
        server = p.add_node(node)
    with p.group("worker", restart=POLICY):
        for shard in range(workers):
            p.add_node(lpml.Node(Worker, server, path, shard=shard, shards=workers, pause=pause))
    with p.group("evaluator", restart=POLICY):
        p.add_node(lpml.Node(Evaluator, server, updates))
    return p


def dqn_program(steps: int) -> lpml.Program:
    """`lpml run dqn`, all of whose nodes are restarted."""
    p = dqn.program("lpml/CartPole-v1", target_return=1e9, max_actor_steps=steps)
    p._nodes[:] = [dataclasses.replace(node, restart=POLICY) for node in p.nodes]
    return p


class Told:
    """A parameter server that writes down what it told; a worker holds it in the server's place."""

    def __init__(self, server: AbstractParameterServer, path: str) -> None:
        self._server = server
        self._path = path
        self._file = -1
        self.pull = server.pull
        self.leave = server.leave

    def exchange(self, worker: str, grads: Any, *, version: int) -> Snapshot:
        snapshot = self._server.exchange(worker, grads, version=version)
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if not snapshot.final:  # else this gradient came too late
            os.write(self._file, f"{time.monotonic()} {snapshot.version} {worker}\n".encode())
        return snapshot


class Waits:
    """What this benchmark calls to have a call under way."""

    @lpml.concurrent
    def block(self) -> None:
        lpml.context().wait(600.0)

    @lpml.concurrent
    @lpml.idempotent
    def pid(self) -> int:
        return os.getpid()


class Server(Waits, ParameterServer):  # type: ignore[misc]  # final: for programs, not for tests
    """A parameter server that can be asked to wait."""


class Worker(Waits):
    """A worker of the digits that writes down what it was told."""

    def __init__(
        self, server: AbstractParameterServer, path: str, *, shard: int, shards: int, pause: float
    ) -> None:
        told: Any = Told(server, path)
        self._worker = digits.Worker(told, shard=shard, num_shards=shards, pause=pause)

    def run(self) -> None:
        self._worker.run()


class Evaluator(Waits):
    """The evaluator of the digits."""

    def __init__(self, server: AbstractParameterServer, updates: int) -> None:
        self._evaluator = digits.Evaluator(server, updates=updates)

    def run(self) -> None:
        self._evaluator.run()
