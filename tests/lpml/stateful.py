"""Programs with state, for tests of checkpoints and resumption."""

from __future__ import annotations

import lpml
from lpml.record.checkpoints import Checkpoint


class FailsWhenTold:
    """Its loop raises once it is told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = lpml.context().clock.condition()
        self._failing = False

    @lpml.concurrent
    def fail(self) -> None:
        with self._changed:
            self._failing = True
            self._changed.notify_all()

    def run(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failing)
        raise ValueError("told to")


class Account:
    """A sum, and who has put how much in."""

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}

    def add(self, amount: int) -> int:
        self._add(lpml.context().name, amount)
        return self._parts[lpml.context().name]

    def add_for(self, who: str, amount: int) -> int:
        self._add(who, amount)
        return self._parts[who]

    @lpml.idempotent
    def total(self) -> int:
        return sum(self._parts.values())

    @lpml.idempotent
    def parts(self) -> dict[str, int]:
        return dict(self._parts)

    def save(self) -> dict[str, int]:
        return self._parts

    def restore(self, state: dict[str, int]) -> None:
        self._parts = state

    def _add(self, who: str, amount: int) -> None:
        self._parts[who] = self._parts.get(who, 0) + amount


class Through:
    """Passes on to an account what it was given, within the call: a stateful caller in between."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._passed = 0

    def pass_on(self, who: str, amount: int) -> None:
        self._passed += amount
        self._account.add_for(f"through {who}", amount)

    @lpml.idempotent
    def passed(self) -> int:
        return self._passed

    def save(self) -> int:
        return self._passed

    def restore(self, state: int) -> None:
        self._passed = state


class Mover:
    """Takes from one account and gives to another, again and again. Has no state."""

    def __init__(self, giver: Account, taker: Account, through: Through) -> None:
        self._giver, self._taker, self._through = giver, taker, through

    def run(self) -> None:
        context = lpml.context()
        while not context.should_stop:
            self._giver.add_for(context.name, -1)
            self._taker.add_for(context.name, 1)
            self._through.pass_on(context.name, 1)


class Saver:
    """Counts how often an account has taken something of its. Has state."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._saved = 0

    def run(self) -> None:
        context = lpml.context()
        while not context.wait(0.0):
            if self._account.add_for("saver", 1) != self._saved + 1:
                raise AssertionError("an update was lost, or made twice")
            self._saved += 1

    def save(self) -> int:
        return self._saved

    def restore(self, state: int) -> None:
        self._saved = state


def bank(movers: int = 2, **policies: lpml.Restart) -> lpml.Program:
    program = lpml.Program("bank")
    with program.group("account", restart=policies.get("account")):
        giver, taker = (program.add_node(lpml.Node(Account)) for _ in range(2))
        through = program.add_node(lpml.Node(Through, taker), label="through")
        program.add_node(lpml.Node(Saver, giver), label="saver")
    with program.group("mover", restart=policies.get("mover")):
        for _ in range(movers):
            program.add_node(lpml.Node(Mover, giver, taker, through))
    return program


def check(cut: Checkpoint) -> int:
    """That the states of a cut agree; returns how often something was moved."""
    giver, taker = cut.load("account/0"), cut.load("account/1")
    saved = giver.pop("saver", 0)
    assert cut.load("saver/0") == saved
    through = {name: taker.pop(name) for name in list(taker) if name.startswith("through")}
    assert {name: -amount for name, amount in giver.items()} == taker
    assert {f"through {name}": amount for name, amount in taker.items()} == through
    assert cut.load("through/0") == sum(through.values())
    return sum(taker.values())


class Logger:
    """Logs a row for each count; has state."""

    def __init__(self) -> None:
        self._count = 0

    def count(self, upto: int) -> None:
        while self._count < upto:
            self._count += 1
            lpml.context().log({"count": self._count}, step=self._count)

    @lpml.idempotent
    def get(self) -> int:
        return self._count

    def save(self) -> int:
        return self._count

    def restore(self, state: int) -> None:
        self._count = state


def one_node(service: type, restart: lpml.Restart | None = None) -> lpml.Program:
    program = lpml.Program("one")
    with program.group("node", restart=restart):
        program.add_node(lpml.Node(service))
    return program


class Stateless:
    """Serves nothing."""

    def nothing(self) -> None:
        """Nothing."""
