"""Addresses of several ways: by the socket of a host from that host, else over the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

Address: TypeAlias = str

_host = ""
_moved: dict[Address, Address] = {}  # {where a node was: where it is}
_away: set[Address] = set()  # of nodes whose host is gone, and which will be on another soon
_ended: set[Address] = set()  # of nodes that will never answer again
_GRACE = 15.0  # seconds until whoever lost a host knows that, and says so


def set_host(name: str) -> None:
    """This process is on the host of this name, from now on."""
    global _host
    _host = name


def everywhere(local: Address, host: str, remote: Address) -> Address:
    """The address of a node that is reached at `local` on `host`, and at `remote` from others."""
    return f"{local}@{host}|{remote}"


def move(moved: Mapping[Address, Address]) -> None:
    """Nodes are elsewhere now: `{old address: new address}`."""
    for old, new in moved.items():
        _moved.pop(new, None)  # it has come back
        _moved[old] = new
        _away.discard(old)


def expect(addresses: Iterable[Address], *, back: bool) -> None:
    """Whether nodes that do not answer will be back, so that it is worth waiting for them."""
    for address in addresses:
        _away.discard(address)
        _ended.discard(address)
        (_away if back else _ended).add(address)


def is_expected(address: Address, waited: float) -> bool:
    """Whether a node that has not answered for so many seconds may be back."""
    address = _current(address)
    if address in _away:
        return True
    return waited < _GRACE and "|" in address and address not in _ended


def nearest(address: Address) -> Address:
    """The way that is taken from here."""
    address = _current(address)
    local, bar, remote = address.partition("|")
    if not bar:
        return address
    path, _, host = local.rpartition("@")
    return path if host == _host else remote


def _current(address: Address) -> Address:
    while address in _moved:
        address = _moved[address]
    return address
