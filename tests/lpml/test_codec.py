"""Values to messages and back: inline, through shared memory, and what cannot be sent."""

from __future__ import annotations

import dataclasses
import gc
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpml.wire import frames, memory
from lpml.wire import shared as shared_values
from lpml.wire.codec import Encoded, culprit, encode, encode_arguments
from lpml.wire.frames import FOREVER, REPLY, Decoder
from lpml.wire.parcel import Packed, opened, pack, publish, unpack
from lpml.wire.segments import LARGE, Receiver, Sender
from lpml.wire.shared import Shared


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass
class Own:
    """A class of a module that no other process can import: it travels by value."""

    x: Any


class Wire:
    """Two ends of a connection without a socket."""

    def __init__(self) -> None:
        self.released: list[int] = []
        self.forgotten: list[int] = []
        self.sender = Sender(self.forgotten.append)
        self.receiver = Receiver(self.released.append)

    def carry(self, value: Any) -> Any:
        return self.carry_encoded(encode(value))

    def carry_encoded(self, value: Any) -> Any:
        message = pack((REPLY, 0, 0, 1, FOREVER), b"", value, self.sender)
        data = message.data if isinstance(message, Packed) else message
        if isinstance(message, Packed):
            self.receiver.files.extend(message.files)
        (frame,) = _frames(bytes(data))
        return unpack(opened(frame[1], frame[5], 0, self.receiver))

    def give_back(self) -> None:
        gc.collect()
        for segment in self.released:
            self.sender.given_back(segment)
        self.released.clear()

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()


def _frames(data: bytes) -> list[frames.Frame]:
    decoder, found = Decoder(), []
    while data:
        target = decoder.target()
        if target is None:
            found += decoder.feed(data[: 1 << 16])
            data = data[1 << 16 :]
        else:
            count = min(len(target), len(data))
            target[:count] = data[:count]
            found += decoder.filled(count)
            data = data[count:]
    return found


@pytest.fixture(params=["shared memory", "plain copies"])
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "plain copies":
        monkeypatch.setattr(memory, "supported", False)
    elif not memory.supported:
        pytest.skip("no memfd here")
    wire = Wire()
    yield wire
    wire.close()


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    leaves | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@given(values)
def test_a_value_arrives_equal(value: Any) -> None:
    wire = Wire()
    assert wire.carry(value) == value


@pytest.mark.parametrize("count", [0, 3, 1000, LARGE // 4 - 1, LARGE // 4, 1_000_000])
@pytest.mark.parametrize("dtype", ["float32", ">f4", "bool", "complex64", "datetime64[s]", "<U7"])
def test_an_array_arrives_equal_writable_and_private(wire: Wire, count: int, dtype: str) -> None:
    array = np.arange(count).astype(dtype)
    got = wire.carry({"a": array})["a"]
    np.testing.assert_array_equal(got, array)
    assert got.dtype == array.dtype
    assert got.flags.writeable
    if count:
        got[0] = got[-1]
        assert array[0] == np.arange(count).astype(dtype)[0]


@pytest.mark.parametrize("size", [4, 400])
def test_views_that_are_not_contiguous_or_not_writable_arrive_as_plain_arrays(
    wire: Wire, size: int
) -> None:
    base = np.random.default_rng(0).normal(size=(size, size))
    frozen = base.copy()
    frozen.flags.writeable = False
    scalar = np.array(3.0)
    scalar.flags.writeable = False
    swapped = frozen.astype(">f8")
    swapped.flags.writeable = False
    for array in (base.T, base[::2, ::-1], base[:, :0], frozen, frozen.T, scalar, swapped):
        got = wire.carry(array)
        np.testing.assert_array_equal(got, array)
        assert got.dtype == array.dtype
        assert got.flags.writeable


def test_memory_is_held_while_its_copy_is_under_way() -> None:
    array = np.arange(1000.0)
    array.flags.writeable = False
    encoded = encode([array])
    assert isinstance(encoded, Encoded)
    del array
    gc.collect()
    others = [np.zeros(1000) for _ in range(10)]
    np.testing.assert_array_equal(np.frombuffer(encoded.buffers[0]), np.arange(1000.0))
    assert len(others) == 10


def test_a_subclass_a_record_and_an_object_array_arrive(wire: Wire) -> None:
    record = np.array([(1, 2.0)], dtype=[("n", "i4"), ("x", "f8")])
    objects = np.array(["a", None], dtype=object)
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    got = wire.carry([record, objects, masked])
    np.testing.assert_array_equal(got[0], record)
    assert got[1].tolist() == ["a", None]
    assert got[2].mask.tolist() == [True, False]


def test_jax_arrays_arrive_as_numpy_arrays(wire: Wire) -> None:
    jax = pytest.importorskip("jax")
    for size in (8, 400):
        tree = {
            "f": jax.numpy.ones((size, size)),
            "b": jax.numpy.full((size, size), 1.5, jax.numpy.bfloat16),
            "s": jax.numpy.float32(3),
        }
        got = wire.carry(tree)
        for name, array in tree.items():
            assert type(got[name]) is np.ndarray
            assert got[name].dtype == array.dtype
            assert got[name].shape == array.shape
            assert got[name].flags.writeable
            assert (got[name] == np.asarray(array)).all()


def test_a_random_key_of_jax_stays_a_key(wire: Wire) -> None:
    jax = pytest.importorskip("jax")
    key = jax.random.key(3)
    got = wire.carry(key)
    assert jax.random.key_data(got).tolist() == jax.random.key_data(key).tolist()


def test_containers_classes_and_functions_arrive(wire: Wire) -> None:
    offset = 3
    value = [OrderedDict(a=1), Pair(1, np.zeros(3)), Own(5), lambda x: x + offset]
    got = wire.carry(value)
    assert got[0] == OrderedDict(a=1)
    assert got[1].left == 1
    assert got[2].x == 5
    assert got[3](1) == 4


def test_long_bytes_arrive(wire: Wire) -> None:
    value = bytes(range(256)) * 10_000
    assert wire.carry(value) == value


def test_a_message_of_many_arrays_arrives(wire: Wire) -> None:
    arrays = [np.full(n % 700 + 1, n) for n in range(900)]
    for got, array in zip(wire.carry(arrays), arrays, strict=True):
        np.testing.assert_array_equal(got, array)


def test_the_arguments_of_a_call_may_have_keywords() -> None:
    wire = Wire()
    args, kwargs = wire.carry_encoded(encode_arguments((1, "b"), {"c": np.ones(3)}))
    assert args == (1, "b")
    np.testing.assert_array_equal(kwargs["c"], np.ones(3))


def test_a_published_value_reaches_several_peers_each_with_a_copy_of_its_own(wire: Wire) -> None:
    array = np.arange(200_000.0)
    prepared = publish(encode_arguments((array, 1), {}))
    other = Wire()
    first, _ = wire.carry_encoded(prepared)
    second, one = other.carry_encoded(prepared)
    first[:] = 0
    np.testing.assert_array_equal(second, array)
    assert one == 1
    other.close()


def test_the_culprit_among_arguments_is_named() -> None:
    lock = threading.Lock()
    assert culprit(((1, lock), {})) == "argument 2, a lock,"
    assert culprit(((1,), {"mutex": lock})) == "argument 'mutex', a lock,"
    assert culprit(lock) == "a lock"


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_shared_value_arrives_once_read_only_and_equal(wire: Wire, size: int) -> None:
    array = np.arange(float(size))
    shared = Shared({"w": array, "n": 3})
    identity = shared.id
    array[:] = -1  # what was published stays
    got = wire.carry((shared, [shared]))
    assert got[0] is got[1][0] is shared  # one process holds it once
    del shared, got
    gc.collect()
    other = wire.carry(_published(size, identity))
    assert other.value["n"] == 3
    assert not other.value["w"].flags.writeable
    assert other.value["w"][1] == 1
    assert other.value is other.value


def _published(size: int, _: bytes) -> Shared[Any]:
    return Shared({"w": np.arange(float(size)), "n": 3})


def test_more_shared_values_than_descriptors_fit_one_message_arrive(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_values, "_SMALL", 100)
    many = [Shared(np.full(20, n)) for n in range(230)]
    got = wire.carry(many)
    assert [each.value[0] for each in got] == list(range(230))


def test_a_shared_value_can_be_pickled_by_anyone() -> None:
    import pickle

    for size in (10, 200_000):
        shared = Shared(np.arange(size))
        data = pickle.dumps(shared)
        del shared
        gc.collect()
        np.testing.assert_array_equal(pickle.loads(data).value, np.arange(size))


def test_a_shared_value_cannot_hold_another() -> None:
    with pytest.raises(TypeError, match="put its value in"):
        Shared([Shared(np.zeros(200_000))])


def test_small_builtin_values_need_no_more_than_bytes() -> None:
    assert isinstance(encode(3), bytes)
    assert isinstance(encode_arguments((1, "a", None), {}), bytes)
    assert isinstance(encode(np.ones(3)), Encoded)
