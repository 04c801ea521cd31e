"""A bank of which nothing may be lost, and faults for it: who is killed is waited for."""

from __future__ import annotations

import functools
import os
import random
import threading
from pathlib import Path

import lpml
from lpml.launchers import NodeStatus, Run
from lpml.record.checkpoints import Checkpoint, Checkpoints
from tests.waiting import until

GOES_ON_WITHIN = 60.0
"""Seconds after a fault until every node serves again; less than one on an idle machine."""


def nodes_of(run: Run) -> dict[str, NodeStatus]:
    """Every node as the launcher knows it, without asking the node."""
    return {node.name: node for node in run._describe({}).nodes}


def socket_of(run: Run) -> Path:
    """Where the first node is called from its own host."""
    return Path(run.status().nodes[0].address.partition("@")[0].removeprefix("unix:"))


def pid_of(run: Run, node: str) -> int:
    """The process of a node, of which a launcher on several hosts knows only what it is told."""
    pid = next(each.pid for each in run.status().nodes if each.name == node)
    assert pid > 0
    return pid


def all_run(run: Run) -> bool:
    return all(node.state == "running" for node in nodes_of(run).values())


class Account:
    """A sum for each who adds to it. Has state."""

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}

    def add_for(self, who: str, amount: int) -> int:
        self._parts[who] = self._parts.get(who, 0) + amount
        return self._parts[who]

    @lpml.idempotent
    def parts(self) -> dict[str, int]:
        return dict(self._parts)

    @lpml.concurrent
    def block(self) -> None:
        lpml.context().wait(60.0)

    def save(self) -> dict[str, int]:
        return self._parts

    def restore(self, state: dict[str, int]) -> None:
        self._parts = state


class Saver:
    """Counts for itself what an account counts for it, and compares. Has state."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._saved = 0

    def run(self) -> None:
        name = lpml.context().name
        while not lpml.context().wait(0.001):
            counted = self._account.add_for(name, 1)
            if counted != self._saved + 1:
                print(f"WRONG: {counted} after {self._saved}", flush=True)
                lpml.context().stop_program("an update was lost, or made twice")
            self._saved += 1

    def save(self) -> int:
        return self._saved

    def restore(self, state: int) -> None:
        self._saved = state


class Mover:
    """Takes from one account and gives to another. Has no state."""

    def __init__(self, giver: Account, taker: Account) -> None:
        self._giver, self._taker = giver, taker

    def run(self) -> None:
        me = f"{lpml.context().name}, attempt {lpml.context().attempt}"
        while not lpml.context().wait(0.001):
            self._giver.add_for(me, -1)
            self._taker.add_for(me, 1)


class Reader:
    """Reads, by calls that may be repeated. Has no state."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def run(self) -> None:
        while not lpml.context().wait(0.001):
            self._account.parts()


def bank(restart: lpml.Restart) -> lpml.Program:
    program = lpml.Program("bank")
    with program.group("all", restart=restart):
        giver, taker = (program.add_node(lpml.Node(Account), label="account") for _ in range(2))
        program.add_node(lpml.Node(Saver, giver), label="saver")
        for _ in range(2):
            program.add_node(lpml.Node(Mover, giver, taker), label="mover")
        program.add_node(lpml.Node(Reader, taker), label="reader")
    return program


def check(cut: Checkpoint, cautious: bool = True) -> None:
    """That nothing acknowledged is missing from a cut, and nothing is in it twice."""
    giver, taker = cut.load("account/0"), cut.load("account/1")
    assert giver.pop("saver/0", 0) == cut.load("saver/0")
    for who, amount in taker.items():  # a mover that was killed may have taken and not given
        assert amount <= -giver[who] <= amount + 1
    if cautious:
        assert all(amount <= 0 for amount in giver.values())


def kill_some(
    run: Run,
    kills: int,
    seed: int,
    numbers: tuple[int, ...],
    patience: float = GOES_ON_WITHIN,
) -> None:
    """Kills random nodes at random times, each time waiting until all run again."""
    dice, pause = random.Random(seed), threading.Event()
    checkpoints = Checkpoints(run.folder)
    assert until(lambda: checkpoints.latest() is not None, patience)
    for _ in range(kills):
        pause.wait(dice.uniform(0.0, 0.4))
        assert until(lambda: all_run(run), patience), nodes_of(run)
        victim = dice.choice(list(nodes_of(run).values()))
        pid = pid_of(run, victim.name)
        for number in numbers:
            os.kill(pid, number)
        assert until(functools.partial(was_replaced, run, victim), patience), nodes_of(run)
    assert until(lambda: all_run(run), patience), nodes_of(run)


def was_replaced(run: Run, victim: NodeStatus) -> bool:
    return nodes_of(run)[victim.name].restarts > victim.restarts
