"""The door of a node for callers of its own process, who may come before it is built.

Callers of other processes wait in the backlog of the node's socket until it serves. Here the same
holds without a socket: a client exists at once, and its calls wait until the door is opened.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, final

from lpml import wire
from lpml.context import Context
from lpml.errors import NodeUnavailable
from lpml.service import Interface, MethodSpec


@final
class Door:
    """Gives out clients of one node, from before it is built until after it has ended.

    Args:
      interface: its methods.
      context: its surroundings.
      node: its name.
      address: where callers of other processes find it; "" = nowhere.
    """

    def __init__(
        self, interface: Interface, context: Context, node: str, address: wire.Address = ""
    ) -> None:
        self._node = node
        self._address = address
        self._changed = context.clock.condition()
        self._service: Any = None
        self._closed = False
        self.methods: dict[str, Callable[..., Any]] = {}  # while the door is open
        self.dispatcher = wire.Dispatcher(_StandIn(self, interface), interface, context, node)

    @property
    def service(self) -> Any:
        """The object behind the door, or `None` before it is built."""
        return self._service

    def client(self, caller: str) -> Any:
        """A client; its calls wait until the door is open."""
        return wire.local(self.dispatcher, caller=caller, address=self._address)

    def open(self, service: Any) -> wire.Dispatcher:
        """From now on calls reach `service`."""
        methods = {
            name: _served(service, name, handler.spec)
            for name, handler in self.dispatcher.handlers.items()
        }
        with self._changed:
            self._service = service
            self.methods.update(methods)
            self._changed.notify_all()
        return self.dispatcher

    def close(self) -> None:
        """From now on calls raise NodeUnavailable, waiting ones too."""
        with self._changed:
            self._closed = True
            self.methods.clear()
            self._changed.notify_all()

    def wait(self, name: str) -> Callable[..., Any]:
        """The method `name`, once it is there.

        Raises:
          NodeUnavailable: it will never be, or is no more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._service is not None)
            if self._closed:
                raise NodeUnavailable(f"{self._node} has ended, or its constructor failed")
            return self.methods[name]


@final
class _StandIn:
    """Has the methods of a service that is not built yet."""

    def __init__(self, door: Door, interface: Interface) -> None:
        for name in interface.methods:
            setattr(self, name, _waiting_method(door, name))


def _waiting_method(door: Door, name: str) -> Callable[..., Any]:
    methods = door.methods

    def call(*args: Any, **kwargs: Any) -> Any:
        method = methods.get(name)
        return (door.wait(name) if method is None else method)(*args, **kwargs)

    return call


def _served(service: Any, name: str, spec: MethodSpec) -> Callable[..., Any]:
    method: Callable[..., Any] = getattr(service, name)
    if spec.kind == "batched":  # the batch is gathered before the door
        inner: Callable[..., Any] = inspect.unwrap(method.__func__).__get__(service)  # type: ignore[attr-defined]
        return inner
    return method
