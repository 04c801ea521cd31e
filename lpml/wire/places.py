"""Addresses of several ways: by the socket of a host from that host, else over the network."""

from __future__ import annotations

from typing import TypeAlias

Address: TypeAlias = str

_host = ""


def set_host(name: str) -> None:
    """This process is on the host of this name, from now on."""
    global _host
    _host = name


def everywhere(local: Address, host: str, remote: Address) -> Address:
    """The address of a node that is reached at `local` on `host`, and at `remote` from others."""
    return f"{local}@{host}|{remote}"


def nearest(address: Address) -> Address:
    """The way that is taken from here."""
    local, bar, remote = address.partition("|")
    if not bar:
        return address
    path, _, host = local.rpartition("@")
    return path if host == _host else remote
