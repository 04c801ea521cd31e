"""What the process of a node is told when it is forked: plain values that travel pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from lpml.service import Interface
from lpml.wire.tls import Identity


@final
@dataclass(frozen=True)
class Peer:
    """Where a node finds another that it holds a handle of."""

    name: str
    address: str
    interface: Interface


@final
@dataclass(frozen=True)
class NodeSpec:
    """What a process needs to know of one of its nodes."""

    name: str
    group: str
    index: int
    interface: Interface
    payload: bytes
    address: str
    log: str
    attempt: int = 0
    """How many times it was started before."""
    state: str = ""
    """Where the state is that it begins with, or ""."""


@final
@dataclass(frozen=True)
class ProcessSpec:
    """What a process needs to know. `nodes[i]` gets the i-th listener."""

    program: str
    folder: str
    nodes: tuple[NodeSpec, ...]
    peers: Mapping[str, Peer]
    environment: Mapping[str, str]
    threads: int
    path: tuple[str, ...]
    cwd: str
    argv0: str
    stacks: str
    """The file that stacks are written to when the interpreter is stuck."""
    host: str = ""
    """Names the host of an engine of several; "" elsewhere.

    There the process was not forked for us, and `environment` goes on top of its own.
    """
    sockets: str = ""
    """The folder in which the relay of this host serves, if it is one of several."""
    identity: Identity | None = None
    """By which it calls nodes of other hosts. Where it has one, a node has two listeners."""
