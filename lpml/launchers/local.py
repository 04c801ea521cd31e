"""The door of a node for callers of its own process, who may come before it is built.

Callers of other processes wait in the backlog of the node's socket until it serves. Here the same
holds without a socket: a client exists at once, and its calls wait until the door is opened. The
door outlives the attempts of its node: after one that failed, calls wait for the next.
"""

from __future__ import annotations

import functools
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
      reopens: another attempt may follow one that has ended, until `give_up`.
    """

    def __init__(
        self,
        interface: Interface,
        context: Context,
        node: str,
        address: wire.Address = "",
        *,
        reopens: bool = False,
    ) -> None:
        self._node = node
        self._address = address
        self._reopens = reopens
        self._changed = context.clock.condition()
        self._service: Any = None
        self._closed = False
        self.methods: dict[str, Callable[..., Any]] = {}  # while the door is open
        self.dispatcher = wire.Dispatcher(_StandIn(self, interface), interface, context, node)

    @property
    def reopens(self) -> bool:
        """Whether another attempt may follow the one that ends."""
        return self._reopens

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

    def renew(self, context: Context) -> None:
        """An attempt has ended and another is to come, in `context`: calls wait for it."""
        before = self._changed
        with before:
            self._changed = context.clock.condition()
            self._service = None
            self.methods.clear()
            self.dispatcher.renew(context)
            before.notify_all()

    def close(self) -> None:
        """The attempt has ended: calls wait for the next, or raise NodeUnavailable."""
        with self._changed:
            self.methods.clear()
            if self._reopens:
                self._service = None
            else:
                self._closed = True
            self._changed.notify_all()

    def give_up(self) -> None:
        """No attempt will follow: from now on calls raise NodeUnavailable, waiting ones too."""
        self._reopens = False
        with self._changed:
            if self._service is None:
                self._closed = True
            self._changed.notify_all()

    def wait(self, name: str) -> Callable[..., Any]:
        """The method `name`, once it is there.

        Raises:
          NodeUnavailable: it will never be, or is no more.
        """
        while True:
            changed = self._changed
            with changed:
                changed.wait_for(functools.partial(self._settled, name, changed))
                if self._changed is not changed:
                    continue
                if self._closed:
                    raise NodeUnavailable(f"{self._node} has ended, or its constructor failed")
                return self.methods[name]

    def _settled(self, name: str, changed: object) -> bool:
        return self._closed or name in self.methods or self._changed is not changed


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
