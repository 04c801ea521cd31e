"""The door of a node for callers of its own process, who may come before it is built.

Callers of other processes wait in the backlog of the node's socket until it serves. Here the same
holds without a socket: a client exists at once, and its calls wait until the door is opened. The
door outlives the attempts of its node: after one that failed, calls wait for the next.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from threading import get_ident
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

    The door of a stateful node, one with `save` and `restore`, knows who is inside, and can be
    shut for a checkpoint.
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
        self._clock = context.clock
        self._changed = context.clock.condition()
        self._service: Any = None
        self._closed = False
        self._shut: dict[str, Callable[..., Any]] | None = None  # what `methods` will be again
        self.methods: dict[str, Callable[..., Any]] = {}  # while the door is open
        self.inside: list[tuple[int, str]] = []  # (thread, method) of each call; if stateful
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
            if self._shut is None:
                self.methods.update(methods)
            else:
                self._shut = methods
            self._changed.notify_all()
        return self.dispatcher

    def let_nobody_in(self) -> None:
        """Calls wait at the door until `let_in`; those inside go on."""
        with self._changed:
            if self._shut is None:
                self._shut = dict(self.methods)
                self.methods.clear()

    def let_in(self) -> None:
        """Ends `let_nobody_in`. Idempotent."""
        with self._changed:
            shut, self._shut = self._shut, None
            if shut is not None and self._service is not None:
                self.methods.update(shut)
                self._changed.notify_all()

    def busy_calls(self) -> list[str]:
        """The methods that run now, without the calls that wait on the clock of the node."""
        waiting = self._clock.waiting_threads
        return [name for thread, name in list(self.inside) if thread not in waiting]

    def renew(self, context: Context) -> None:
        """An attempt has ended and another is to come, in `context`: calls wait for it."""
        before = self._changed
        with before:
            self._changed = context.clock.condition()
            self._clock = context.clock
            self._service = self._shut = None
            self.methods.clear()
            self.dispatcher.renew(context)
            before.notify_all()

    def close(self) -> None:
        """The attempt has ended: calls wait for the next, or raise NodeUnavailable."""
        with self._changed:
            self.methods.clear()
            self._shut = None
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
        for name, spec in interface.methods.items():
            if not interface.stateful:
                method = _waiting_method(door, name)
            else:
                method = _counted_items(door, name) if spec.stream else _counted_method(door, name)
            setattr(self, name, method)


def _waiting_method(door: Door, name: str) -> Callable[..., Any]:
    methods = door.methods

    def call(*args: Any, **kwargs: Any) -> Any:
        method = methods.get(name)
        return (door.wait(name) if method is None else method)(*args, **kwargs)

    return call


def _counted_method(door: Door, name: str) -> Callable[..., Any]:
    methods, inside = door.methods, door.inside

    def call(*args: Any, **kwargs: Any) -> Any:
        me = get_ident(), name
        while True:
            inside.append(me)  # before the method is looked up: who shuts the door sees us, or we
            try:
                method = methods.get(name)
                if method is not None:
                    return method(*args, **kwargs)
            finally:
                inside.remove(me)
            door.wait(name)

    return call


def _counted_items(door: Door, name: str) -> Callable[..., Any]:
    step = _counted_method(door, name)

    def items(*args: Any, **kwargs: Any) -> Any:
        made = iter(step(*args, **kwargs))
        me = get_ident(), name
        while True:
            if name not in door.methods:
                door.wait(name)
            door.inside.append(me)
            try:
                item = next(made)
            except StopIteration:
                return
            finally:
                door.inside.remove(me)
            yield item

    return items


def _served(service: Any, name: str, spec: MethodSpec) -> Callable[..., Any]:
    method: Callable[..., Any] = getattr(service, name)
    if spec.kind == "batched":  # the batch is gathered before the door
        inner: Callable[..., Any] = inspect.unwrap(method.__func__).__get__(service)  # type: ignore[attr-defined]
        return inner
    return method
