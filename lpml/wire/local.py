"""A client in the process of its service: calls are plain calls in the caller's thread."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, final

from lpml.clock import (
    DEFAULT_CALL_TIMEOUT,
    Call,
    check_call,
    current_call,
    current_scope,
    find_scope,
)
from lpml.errors import CallError, CallTimeout, NodeUnavailable, ProgramStopped, RemoteError
from lpml.wire.batching import Batcher, Place
from lpml.wire.client import Method, connect, missing, remote
from lpml.wire.dispatch import Dispatcher, Handler
from lpml.wire.futures import Future
from lpml.wire.sockets import Address
from lpml.wire.streams import Stream
from lpml.wire.threads import future_in_thread


def local(dispatcher: Dispatcher, *, caller: str = "", address: Address = "") -> Any:
    """A client of a service of this process.

    Arguments and results are handed over as they are, without a copy. Turns, deadlines and
    errors are those of a call over a connection.

    Args:
      dispatcher: of the service.
      caller: the name of who calls, for messages; "" = the node whose code is running.
      address: where the service is also served, if the client is to be sent to other processes.
    """
    return LocalClient(dispatcher, caller, address)


@final
class LocalClient:
    """Has the methods of a service of this process. Made by `local`."""

    def __init__(self, dispatcher: Dispatcher, caller: str, address: Address) -> None:
        self._lpml_dispatcher = dispatcher
        self._lpml_caller = caller
        self._lpml_address = address

    def __getattr__(self, name: str) -> Any:
        dispatcher = self.__dict__.get("_lpml_dispatcher")
        if dispatcher is None or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        handler = dispatcher.handlers.get(name)
        if handler is None:
            raise AttributeError(missing(dispatcher.node, dispatcher.interface, name))
        method = LocalMethod(dispatcher, handler, self._lpml_caller, self._lpml_address)
        self.__dict__[name] = method
        return method

    def __dir__(self) -> list[str]:
        return sorted(self._lpml_dispatcher.handlers)

    def __repr__(self) -> str:
        dispatcher = self._lpml_dispatcher
        return f"<client of {dispatcher.node}, a {dispatcher.interface.service}, in this process>"

    def __reduce__(self) -> Any:
        dispatcher, address = self._lpml_dispatcher, self._lpml_address
        if not address:
            raise CallError(
                f"the client of {dispatcher.node} works only in its own process; "
                "its service is not served at any address"
            )
        return partial(connect, node=dispatcher.node), (address, dispatcher.interface)


@final
class LocalMethod(Method):
    """A method of a local client, bound."""

    __slots__ = ("_address", "_caller", "_dispatcher", "_function", "_handler", "_serial")

    def __init__(
        self, dispatcher: Dispatcher, handler: Handler, caller: str, address: Address
    ) -> None:
        self._dispatcher = dispatcher
        self._handler = handler
        self._function = handler.method
        self._serial = handler.spec.kind == "serial"
        self._caller = caller
        self._address = address

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._handler.stream:
            return self.open(args, kwargs)
        if self._handler.batcher is not None:
            return self._in_batch(self._handler.batcher, args, kwargs)
        if not self._handler.spec.idempotent:
            return self.run(self._function, args, kwargs)
        while True:
            try:
                return self.run(self._function, args, kwargs)
            except RemoteError:
                raise
            except NodeUnavailable:  # the node is being restarted, so this call waits for it
                continue

    def run(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Calls a function as code of the node, in its turn if the method is serial."""
        call = current_call.get()
        dispatcher = self._dispatcher
        node = dispatcher.scope
        if call is None:
            call = Call(node.clock.time() + DEFAULT_CALL_TIMEOUT)
            bounded = current_call.set(call)
        else:
            bounded = None
        scope = current_scope.set(node)
        error = True
        ours = True  # the scope is still to be put back
        try:
            if call.deadline is not None or call.cancelled:
                check_call(node.clock.time())
            if not self._serial:
                result = function(*args, **kwargs)
            else:
                turn = dispatcher.turn
                if not turn.acquire(False):
                    turn = dispatcher.take_turn()
                try:
                    dispatcher.holder = threading.get_ident()
                    result = function(*args, **kwargs)
                finally:
                    dispatcher.end_turn(turn)
            error = False
            return result
        except StopIteration:
            error = False
            raise
        except Exception as cause:
            current_scope.reset(scope)
            ours = False
            if dispatcher.scope is not node and isinstance(cause, ProgramStopped):
                raise NodeUnavailable(f"{self} was called, and its node ended meanwhile") from None
            error_there = self.failed(cause)
            raise error_there from error_there.__cause__
        finally:
            if ours:
                current_scope.reset(scope)
            if bounded is not None:
                current_call.reset(bounded)
            dispatcher.count(error)

    def start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        return future_in_thread(self, args, kwargs)

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Stream[Any]:
        return Stream(LocalItems(self, args, kwargs))

    @property
    def streams(self) -> bool:
        return self._handler.stream

    def failed(self, cause: BaseException) -> BaseException:
        """What the caller sees."""
        caller = self._caller or str(getattr(find_scope(), "name", ""))
        trace = cause.__traceback__
        if trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        text = "".join(traceback.format_exception(type(cause), cause, trace))
        return remote(caller, str(self), cause, text, "")

    def _in_batch(self, batcher: Batcher, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        node = self._dispatcher.scope
        now = node.clock.time()
        call = current_call.get() or Call(now + DEFAULT_CALL_TIMEOUT)
        latch = threading.Lock()
        latch.acquire()
        leading: list[bool] = []

        def lead() -> None:
            leading.append(True)
            latch.release()

        place = Place(args, kwargs, call, lead, lambda _: latch.release())
        batcher.add(place)
        left = None if call.deadline is None else max(0.0, call.deadline - now)
        if not latch.acquire(timeout=-1 if left is None else left):
            own = Call(call.deadline, call)
            own.cancel()
            place.call = own
            place.lead = lambda: _lead_in_thread(self._dispatcher, batcher)
            raise CallTimeout(f"{self} was not served in its batch until the deadline")
        if leading:
            scope = current_scope.set(node)
            try:
                batcher.lead(self._dispatcher.take_turn, self._dispatcher.end_turn)
            finally:
                current_scope.reset(scope)
        self._dispatcher.count(place.error is not None)
        if place.error is not None:
            raise self.failed(place.error)
        return place.result

    def __str__(self) -> str:
        return f"{self._dispatcher.node}.{self._handler.name}"

    def __repr__(self) -> str:
        return f"<method {self} of a client>"

    def __reduce__(self) -> Any:
        client = LocalClient(self._dispatcher, self._caller, self._address)
        return getattr, (client, self._handler.name)


def _lead_in_thread(dispatcher: Dispatcher, batcher: Batcher) -> None:
    def lead() -> None:
        current_scope.set(dispatcher.scope)
        batcher.lead(dispatcher.take_turn, dispatcher.end_turn)

    threading.Thread(target=lead, name=f"lpml-{dispatcher.node}", daemon=True).start()


@final
class LocalItems:
    """The items of a generator of this process; each is made when it is taken."""

    def __init__(self, method: LocalMethod, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._method = method
        self._begin = (args, kwargs)
        self._generator: Any = None
        self._ended = False

    def take(self) -> Any:
        if self._ended:
            raise StopIteration
        try:
            return self._method.run(self._next, (), {})
        except BaseException:
            self._ended = True
            raise

    def take_soon(self) -> Awaitable[Any]:
        from lpml.wire.threads import take_in_thread

        return take_in_thread(self.take)

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            if self._generator is not None:
                self._generator.close()

    def _next(self) -> Any:
        if self._generator is None:
            args, kwargs = self._begin
            self._generator = iter(self._method._function(*args, **kwargs))
        return next(self._generator)
