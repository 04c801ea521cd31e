"""Pickling of what nodes are given: handles wherever they hide, and culprits by their path."""

from __future__ import annotations

import functools
import threading
import types
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lpml
from lpml.graph import dumps, loads


class Counter:
    def next(self) -> int:
        return 1


class Other:
    pass


@dataclass
class Config:
    counter: Any
    table: dict[str, Any] = field(default_factory=dict)


class Pair(NamedTuple):
    first: Any
    second: Any


class Slots:
    __slots__ = ("counter",)

    def __init__(self, counter: Any) -> None:
        self.counter = counter


class Holder:
    def __init__(self, counter: Any) -> None:
        self.counter = counter

    def method(self) -> Any:
        return self.counter


program = lpml.Program("p")
counter: Any = program.add_node(lpml.Node(Counter))
other: Any = program.add_node(lpml.Node(Other))


def closure(held: Any) -> Callable[[], Any]:
    def inner() -> Any:
        return held

    return inner


def nested_closure(held: Any) -> Callable[[], Any]:
    return lambda: closure(held)()


def default(held: Any) -> Callable[..., Any]:
    def inner(one: Any = held, *, two: Any = (held,)) -> Any:
        return one, two

    return inner


def class_around(held: Any) -> type:
    class Inner:
        attribute = held

    return Inner


def resolved(value: object) -> Any:
    """The value as a node gets it, with `client/<name>` in place of clients."""
    return loads(dumps(value).data, lambda name: f"client of {name}")


HIDING_PLACES: list[Callable[[Any], Any]] = [
    lambda held: held,
    lambda held: [[{"a": (held,)}]],
    lambda held: {"a": OrderedDict(b=deque([held]))},
    lambda held: {held},
    lambda held: {held: 1},
    lambda held: Config(held),
    lambda held: Config(None, {"deep": [Config(held)]}),
    lambda held: Pair(1, held),
    lambda held: Slots(held),
    lambda held: Holder(held),
    lambda held: Holder(held).method,
    lambda held: functools.partial(print, held),
    lambda held: functools.partial(dict, key=held),
    lambda held: functools.partial(closure(held)),
    closure,
    nested_closure,
    default,
    class_around,
    lambda held: types.SimpleNamespace(a=held),
    lambda held: held.next,
    lambda held: np.array([held, None], dtype=object),
]


@pytest.mark.parametrize("hide", HIDING_PLACES)
def test_a_handle_is_found_wherever_it_hides(hide: Callable[[Any], Any]) -> None:
    assert dumps([hide(counter), other, hide(counter)]).handles == ("counter/0", "other/0")


def test_a_handle_becomes_what_its_name_resolves_to() -> None:
    client = Counter()
    config: Any = loads(dumps(Config(counter, {"same": counter})).data, lambda name: client)
    assert config.counter is config.table["same"] is client
    assert resolved(closure(counter))() == "client of counter/0"
    assert resolved(Pair(counter, [other])) == ("client of counter/0", ["client of other/0"])


def test_each_name_is_resolved_once() -> None:
    names: list[str] = []

    def resolve(name: str) -> str:
        names.append(name)
        return name

    loads(dumps([counter, {"a": counter}, other]).data, resolve)
    assert names == ["counter/0", "other/0"]


def test_a_method_of_a_handle_becomes_the_method_of_the_client() -> None:
    client = Counter()
    method: Any = loads(dumps(counter.next).data, lambda name: client)
    assert method() == 1
    assert method.__self__ is client


def test_code_that_is_sent_keeps_the_name_of_its_file() -> None:
    assert resolved(uses_global_inside_none).__code__.co_filename == __file__


def uses_global_inside_none() -> None: ...


def test_each_reader_gets_its_own_copy_and_what_was_shared_stays_shared() -> None:
    inner: list[int] = []
    one, two = resolved((inner, inner))
    assert one is two is not inner


def test_the_handle_of_a_node_never_added_is_named_with_its_path() -> None:
    lost = lpml.Node(Counter).handle()
    with pytest.raises(lpml.GraphError) as caught:
        dumps({"a": [Config(lost)]})
    assert str(caught.value) == (
        "value['a'][0].counter: the handle of a node not yet added (Counter) is passed on, "
        "but its node was not added; add it to the program with add_node"
    )


# --- culprits ------------------------------------------------------------------------------------

LOCK = threading.Lock()


class Refusing:
    def __getstate__(self) -> object:
        raise RuntimeError("not today")


class WithState:
    def __getstate__(self) -> dict[str, object]:
        return {"kept": LOCK}


class Reducing:
    def __reduce__(self) -> tuple[object, ...]:
        return dict, ([("a", LOCK)],)


def uses_global() -> object:
    return LOCK


def uses_global_inside() -> object:
    return [LOCK for _ in range(3)]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (LOCK, "value cannot"),
        ({"a": [1, (2, LOCK)]}, "value['a'][1][1] cannot"),
        (Config(None, {"x": Holder(LOCK)}), "value.table['x'].counter cannot"),
        (Pair(1, LOCK), "value.second cannot"),
        (Slots(LOCK), "value.counter cannot"),
        (Holder(LOCK).method, "value.__self__.counter cannot"),
        (functools.partial(print, 1, LOCK), "value.args[1] cannot"),
        (functools.partial(dict, key=[LOCK]), "value.keywords['key'][0] cannot"),
        (closure(LOCK), "value (variable 'held' of the function around it) cannot"),
        (default([LOCK]), "value (default of 'one')[0] cannot"),
        (uses_global, "value (global variable 'LOCK') cannot"),
        (uses_global_inside, "value (global variable 'LOCK') cannot"),
        (class_around(LOCK), "value.attribute cannot"),
        (WithState(), "value.kept cannot"),
        (Reducing(), "value.__reduce__()[1][0][0][1] cannot"),
        ([Refusing()], "value[0] cannot"),
        (OrderedDict(a=LOCK), "value['a'] cannot"),
        (np.array([None, LOCK], dtype=object), "value"),
        ((number for number in range(3)), "value cannot"),
    ],
)
def test_what_cannot_be_pickled_is_named_with_the_path_to_it(value: object, path: str) -> None:
    with pytest.raises(lpml.GraphError) as caught:
        dumps(value)
    assert str(caught.value).startswith(path)
    assert "make it in the service's constructor" in str(caught.value)
    assert "cannot pickle" in str(caught.value) or "not today" in str(caught.value)


def test_nesting_without_end_is_told_from_a_culprit() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(lpml.GraphError, match=r"^value is nested too deeply"):
        dumps(Config(deep))


def test_values_that_refer_to_themselves_are_pickled() -> None:
    value: dict[str, Any] = {}
    value["self"] = value
    again = resolved(value)
    assert again["self"] is again
    value["lock"] = LOCK
    with pytest.raises(lpml.GraphError, match=r"value\['lock'\] cannot"):
        dumps(value)


# --- properties ----------------------------------------------------------------------------------

LEAVES = st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.booleans()


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(max_size=3), children, max_size=4)
        | st.tuples(children, children)
        | st.builds(Pair, children, children)
        | st.builds(Config, children)
    )


@settings(max_examples=40)
@given(st.recursive(LEAVES, containers, max_leaves=20))
def test_values_without_handles_come_back_equal(value: object) -> None:
    pickled = dumps(value)
    assert pickled.handles == ()
    assert repr(loads(pickled.data, str)) == repr(value)


@settings(max_examples=40)
@given(st.recursive(LEAVES, containers, max_leaves=10), st.sampled_from(HIDING_PLACES))
def test_handles_beside_any_value_are_found(value: object, hide: Callable[[Any], Any]) -> None:
    assert dumps((value, hide(counter))).handles == ("counter/0",)
