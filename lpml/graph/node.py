"""Node: the declaration of one service, with the arguments of its constructor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, cast, final

from lpml.errors import GraphError
from lpml.graph.handle import Handle, Origin, is_handle

P = ParamSpec("P")
S = TypeVar("S")
# of `declare`, which in pyright does not infer those of the class
Q = ParamSpec("Q")
T = TypeVar("T")


@final
class Node(Generic[P, S]):
    """Declares a node that will hold `service(*args, **kwargs)`. Nothing is constructed yet.

    Args:
      service: a class, or a function annotated to return one.
      *args: for the constructor. A handle anywhere in them becomes a client in the node.
      **kwargs: for the constructor.

    Example:
      >>> class Greeter:
      ...     def __init__(self, greeting: str) -> None:
      ...         self._greeting = greeting
      >>> node = Node(Greeter, "hello")

    Raises:
      GraphError: `service` is no class, and no function that says what it makes. Arguments are
        checked by `add_node`.
    """

    def __init__(self, service: Callable[P, S], /, *args: P.args, **kwargs: P.kwargs) -> None:
        _check_service(service)
        self._service = service
        self._origin = Origin(service)
        self._handle = Handle(self._origin)
        self._arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = (args, kwargs)
        self._when_configured: Callable[[], None] | None = None

    @staticmethod
    def declare(service: Callable[Q, T], /) -> Node[Q, T]:
        """A node whose arguments come later, through `configure`: for cycles.

        Example:
          >>> class Ping:
          ...     def __init__(self, other: "Ping") -> None:
          ...         self._other = other
          >>> first = Node.declare(Ping)
          >>> second = Node(Ping, first.handle())
          >>> first.configure(second.handle())
        """
        node = cast("Callable[..., Node[Q, T]]", Node)(service)
        node._arguments = None
        return node

    def configure(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Gives a declared node its arguments, once.

        Raises:
          GraphError: the node has arguments; or it was added already and these do not fit.
        """
        if self._arguments is not None:
            raise GraphError(
                f"configure() of {self._origin}: its arguments were given before; "
                "declare the node with Node.declare to give them later"
            )
        self._arguments = (args, kwargs)
        if self._when_configured is not None:
            try:
                self._when_configured()
            except GraphError:
                self._arguments = None
                raise

    def handle(self) -> S:
        """The promise of this node's service, before or after the node was added."""
        return cast(S, self._handle)

    @property
    def service(self) -> Callable[P, S]:
        """The class, or the function that makes the object."""
        return self._service

    @property
    def configured(self) -> bool:
        """Whether the arguments are known."""
        return self._arguments is not None

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments.

        Raises:
          GraphError: `configure` was not called.
        """
        return self._given()[0]

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """The keyword arguments.

        Raises:
          GraphError: `configure` was not called.
        """
        return self._given()[1]

    def __repr__(self) -> str:
        return f"<Node {self._origin}>"

    def _given(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._arguments is None:
            raise GraphError(not_configured(self._origin))
        return self._arguments

    def _added(self, program: object, name: str, when_configured: Callable[[], None]) -> None:
        self._origin.program = program
        self._origin.name = name
        self._when_configured = when_configured


def not_configured(origin: Origin) -> str:
    """The fault of a declared node that was never given its arguments."""
    return (
        f"{origin}: declared without arguments and never given any; "
        "call configure() on the node before the program is used"
    )


def _check_service(service: object) -> None:
    if is_handle(service):
        instead = "this is the handle of a node that exists; pass it as an argument instead"
    elif not callable(service):
        instead = f"pass {type(service).__name__} itself, and its arguments after it"
    else:
        return
    raise GraphError(
        f"Node({service!r}): a service is a class, or a function that makes an object; {instead}"
    )
