"""Workers train one network on the digits through a parameter server, in three modes.

References: Dean et al., Large Scale Distributed Deep Networks, NIPS 2012 (asynchronous: Downpour
SGD). Chen et al., Revisiting Distributed Synchronous SGD, 2016 (synchronous, with backup
workers). Ho et al., More Effective Distributed ML via a Stale Synchronous Parallel Parameter
Server, NIPS 2013 (bounded staleness).

Here the server applies plain SGD in every mode, so that they can be compared.
"""

from __future__ import annotations

from typing import Literal

import optax

import lpml
from lpml.nodes import (
    AbstractParameterServer,
    Asynchronous,
    BoundedStaleness,
    Consistency,
    ParameterServer,
    ShardedParameterServer,
    Synchronous,
    split_params,
)
from lpml.programs.supervised import digits

Mode = Literal["asynchronous", "synchronous", "bounded-staleness"]


def program(
    num_workers: int = 2,
    mode: Mode = "asynchronous",
    updates: int = 600,
    batch_size: int = 128,
    learning_rate: float = 0.2,
    bound: int = 3,
    backup_workers: int = 0,
    num_servers: int = 1,
    overlap: bool = True,
    slow_worker: float = 0.0,
    target: float | None = None,
    journal: bool = False,
    seed: int = 0,
) -> lpml.Program:
    """SGD on scikit-learn's digits with a parameter server: at least 97 % test accuracy.

    Args:
      num_workers: nodes that compute gradients, each on its own part of the data.
      mode: who waits for whom. asynchronous: nobody. synchronous: everybody for each update.
        bounded-staleness: who is ahead, for who is far behind.
      updates: of the parameters, before the program ends.
      batch_size: examples per gradient.
      learning_rate: of SGD.
      bound: by how many gradients a worker may be ahead (bounded-staleness only).
      backup_workers: how many slowest workers an update does not wait for (synchronous only).
      num_servers: nodes over which the parameters are spread.
      overlap: workers compute while their last gradient travels (asynchronous only).
      slow_worker: seconds by which each gradient of worker 0 takes longer.
      target: ends the program early at this test accuracy, such as 0.97.
      journal: a server that dies is started again, with every update that it has acknowledged.
      seed: of the parameters and of the order of the data.
    """
    consistency = _consistency(mode, num_workers, bound, backup_workers)
    params = digits.init_params(seed)
    p = lpml.Program("digits")
    with p.group("server", restart=lpml.Restart.on_failure(10) if journal else None):
        servers = [
            p.add_node(
                lpml.Node(
                    ParameterServer,
                    part,
                    optax.sgd(learning_rate),
                    mode=consistency,
                    max_updates=updates,
                    journal=journal,
                )
            )
            for part in (split_params(params, num_servers) if num_servers > 1 else [params])
        ]
    server: AbstractParameterServer = servers[0]
    if num_servers > 1:
        server = ShardedParameterServer(servers, params)
    with p.group("worker"):
        for shard in range(num_workers):
            p.add_node(
                lpml.Node(
                    digits.Worker,
                    server,
                    shard=shard,
                    num_shards=num_workers,
                    batch_size=batch_size,
                    overlap=overlap and mode == "asynchronous",
                    pause=slow_worker if shard == 0 else 0.0,
                    seed=seed,
                )
            )
    with p.group("evaluator"):
        p.add_node(lpml.Node(digits.Evaluator, server, updates=updates, target=target))
    return p


def _consistency(mode: Mode, num_workers: int, bound: int, backup_workers: int) -> Consistency:
    if backup_workers and mode != "synchronous":
        raise lpml.UsageError(
            f"backup_workers={backup_workers} with mode={mode}: there nobody waits for a whole "
            "update, so there is nothing to back up; give mode=synchronous or no backup workers"
        )
    if mode == "synchronous":
        return Synchronous(num_workers, backup_workers)
    if mode == "bounded-staleness":
        return BoundedStaleness(bound)
    return Asynchronous()
