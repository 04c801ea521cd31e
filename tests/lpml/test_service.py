"""What a service declares about its methods, and the interface that follows."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from typing_extensions import Self

import lpml
from lpml import trees
from lpml.service import MethodSpec, call_batch, interface_of, service_class

T = TypeVar("T")
Array = npt.NDArray[np.float64]


class Plain:
    """Knows nothing of lpml."""

    limit = 3

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def add(self, item: int) -> int:
        return item + self.size

    def count(self) -> Iterator[int]:
        yield from range(self.size)

    @property
    def full(self) -> bool:
        return False

    @staticmethod
    def version() -> str:
        return "1"

    @classmethod
    def make(cls) -> Plain:
        return cls()

    def _secret(self) -> None: ...

    def run(self) -> None: ...


class Marked(Plain):
    """Says how it is served."""

    @lpml.concurrent
    @lpml.idempotent
    def get(self) -> int:
        return self.size

    @lpml.concurrent
    def watch(self) -> Iterator[int]:
        yield self.size

    @lpml.batched(max_size=4, timeout=0.5)
    def act(self, observation: Array, scale: Array) -> tuple[Array, dict[str, Array]]:
        """Scales."""
        assert observation.ndim == 2
        return observation * scale[:, None], {"sum": observation.sum(axis=1)}

    @lpml.batched(max_size=4, pad=True)
    def padded(self, x: Array) -> Array:
        assert x.shape == (4,)
        return x + 1

    @lpml.batched(max_size=4)
    def forgetful(self, x: Array) -> Array:
        return np.asarray(x.sum())


def test_public_methods_are_the_interface() -> None:
    interface = interface_of(Plain)
    assert set(interface.methods) == {"add", "count", "version", "make"}
    assert interface.service == "Plain"
    assert interface.has_run
    assert interface.methods["add"] == MethodSpec()
    assert interface.methods["count"] == MethodSpec(stream=True)


def test_marks_are_read_in_any_order_and_inherited() -> None:
    methods = interface_of(Marked).methods
    assert methods["get"] == MethodSpec("concurrent", idempotent=True)
    assert methods["watch"] == MethodSpec("concurrent", stream=True)
    assert methods["act"] == MethodSpec("batched", max_size=4, timeout=0.5)
    assert methods["add"].kind == "serial"


def test_a_service_may_be_made_by_a_function() -> None:
    def make(size: int) -> Plain:
        return Plain(size)

    def untyped(size):  # type: ignore[no-untyped-def]
        return Plain(size)

    make.__annotations__["return"] = Plain
    assert service_class(make) is Plain
    assert interface_of(make) == interface_of(Plain)
    assert service_class(untyped) is None
    assert interface_of(untyped).methods == {}


class Box(Generic[T]):
    @classmethod
    def empty(cls) -> Self:
        return cls()

    @functools.lru_cache(None)  # noqa: B019  # stands for jax.jit: callable, but no function
    def cached(self) -> int:
        return 1

    class Inner: ...


def test_the_class_is_found_behind_what_makes_it() -> None:
    assert service_class(Box[int]) is Box
    assert service_class(functools.partial(Plain, size=3)) is Plain
    assert service_class(Plain.make) is Plain
    assert service_class(Box[int].empty) is Box
    assert interface_of(functools.partial(Plain, size=3)).service == "Plain"


def test_a_wrapped_method_is_a_method_and_an_inner_class_is_none() -> None:
    assert set(interface_of(Box).methods) == {"empty", "cached"}


def test_marked_methods_work_on_a_plain_object() -> None:
    assert Marked(3).get() == 3
    assert list(Marked(3).watch()) == [3]


def test_a_batched_method_of_a_plain_object_takes_one_example() -> None:
    out, extra = Marked().act(np.ones(3), scale=np.asarray(2.0))
    np.testing.assert_array_equal(out, [2.0, 2.0, 2.0])
    assert extra["sum"] == 3.0
    assert Marked.act.__doc__ == "Scales."


def test_a_batch_gives_each_caller_its_row() -> None:
    spec = interface_of(Marked).methods["act"]
    method = Marked.act.__wrapped__.__get__(Marked())  # type: ignore[attr-defined]
    rows = [((np.full(3, i),), {"scale": np.asarray(10.0)}) for i in range(3)]
    results = call_batch(method, rows, spec)
    assert len(results) == 3
    np.testing.assert_array_equal(results[2][0], [20.0, 20.0, 20.0])
    assert results[1][1]["sum"] == 3


def test_a_padded_batch_always_has_the_same_size() -> None:
    assert Marked().padded(np.asarray(1.0)) == 2.0


def test_a_batched_method_must_return_the_batch() -> None:
    with pytest.raises(ValueError, match=r"1 examples.*shape \(\)"):
        Marked().forgetful(np.asarray(1.0))


@pytest.mark.parametrize(("size", "timeout"), [(0, 0.1), (1, -1.0)])
def test_an_impossible_batch_is_refused(size: int, timeout: float) -> None:
    with pytest.raises(ValueError, match="at least"):
        lpml.batched(size, timeout)


def test_checkpointable_is_recognised_by_its_methods() -> None:
    class Saved:
        def save(self) -> int:
            return 1

        def restore(self, state: int) -> None: ...

    assert isinstance(Saved(), lpml.Checkpointable)
    assert not isinstance(Plain(), lpml.Checkpointable)


def test_trees_map_over_nested_containers() -> None:
    from typing import NamedTuple

    class Point(NamedTuple):
        x: int
        y: tuple[int, ...]

    tree = {"a": [1, None], "b": Point(2, (3,))}
    assert trees.map_structure(lambda leaf: leaf * 2, tree) == {"a": [2, None], "b": (4, (6,))}
    assert sorted(trees.leaves(tree)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"cpu": -1}, "cpu=-1"),
        ({"gpu": float("nan")}, "gpu=nan"),
        ({"gpu_memory": 0}, "gpu_memory=0"),
        ({"gpu_memory": 1.5}, "gpu_memory=1.5"),
        ({"custom": {"tpu": -2}}, "tpu=-2"),
        ({"env": {"A": 1}}, "give a string"),
    ],
)
def test_impossible_resources_are_refused(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(lpml.GraphError, match=match):
        lpml.Resources(**arguments)  # type: ignore[arg-type]


def test_restart_policies_say_when_and_how_often() -> None:
    assert lpml.Restart.never() == lpml.Restart()
    assert lpml.Restart.on_failure(2, backoff=0.5) == lpml.Restart("on_failure", 2, 0.5)
    assert lpml.Restart.always().max_restarts is None


def test_importing_lpml_starts_nothing_and_loads_no_array_library() -> None:
    import subprocess
    import sys

    code = "import sys, lpml, lpml.testing; print(sorted({'jax', 'numpy'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
