"""The pickler of values that are no plain numbers or strings: cloudpickle, arrays, `Carried`."""

from __future__ import annotations

import ctypes
import io
import pickle
import sys
import threading
from abc import ABCMeta
from types import FunctionType
from typing import Any, final

import cloudpickle

from lpml.wire.carried import Carried

_MOST_CARRIED = 200  # in one message; the kernel hands over 253 descriptors at once
_PLAIN = frozenset("biufc")  # kinds of numbers, of which the name says all
_NAMED = frozenset({type, ABCMeta, FunctionType})
_names: dict[Any, str] = {}  # {dtype: its name}: one string, written once in a message


class _OutOfBand(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Leaves buffers and `Carried` values out of its output, in two lists."""

    def __init__(self) -> None:
        self.file = io.BytesIO()
        self.buffers: list[pickle.PickleBuffer] = []
        self.carried: list[Carried] = []
        super().__init__(self.file, protocol=5, buffer_callback=self.buffers.append)

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        if cls.__module__ == "numpy":
            if cls.__name__ == "ndarray":
                return _reduce_array(obj)
            return NotImplemented
        if cls in _NAMED and _is_ours(obj):
            return NotImplemented
        if isinstance(obj, Carried):
            if obj.nbytes == 0 or len(self.carried) >= _MOST_CARRIED:
                return NotImplemented
            self.carried.append(obj)
            return obj.reference()
        jax = sys.modules.get("jax")
        if jax is not None and "jax" in cls.__module__ and isinstance(obj, jax.Array):
            return _reduce_jax(obj, jax)
        return super().reducer_override(obj)


def _is_ours(obj: Any) -> bool:
    """Whether a class or function is found by its name everywhere; cloudpickle asks for long."""
    module = obj.__module__
    if type(module) is not str or not module.startswith("lpml."):
        return False
    return getattr(sys.modules.get(module), obj.__qualname__, None) is obj


def _reduce_array(array: Any) -> Any:
    """Contiguous and writable, so that it travels out of band and arrives writable."""
    dtype = array.dtype
    if dtype.isbuiltin == 2:  # bfloat16 and its like: numpy would send them in band
        return _reduce_extension(array)
    if dtype.hasobject:
        return NotImplemented
    flags = array.flags
    if not (flags.c_contiguous or flags.f_contiguous):
        import numpy as np

        array = np.ascontiguousarray(array)
        flags = array.flags
    if dtype.isbuiltin != 1 or dtype.kind not in _PLAIN:
        return _writable(array).__reduce_ex__(5)
    name = _names.get(dtype)
    if name is None:
        name = _names[dtype] = dtype.str
    order = "C" if flags.c_contiguous else "F"
    return _array, (_memory(array), name, array.shape, order)


def _array(memory: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
    import numpy as np

    return np.ndarray(shape, dtype, memory, order=order)


def _memory(array: Any) -> pickle.PickleBuffer:
    """What is sent of an array; without its read-only mark, which its copy need not have."""
    if array.flags.writeable or array.nbytes == 0:
        return pickle.PickleBuffer(array)
    alias: Any = (ctypes.c_char * array.nbytes).from_address(array.__array_interface__["data"][0])
    alias.array = array  # lives as long as its memory is looked at; nobody writes to it here
    return pickle.PickleBuffer(alias)


def _reduce_extension(array: Any) -> Any:
    import numpy as np

    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return _array, (_memory(flat), array.dtype, array.shape, "C")


def _reduce_jax(array: Any, jax: Any) -> Any:
    import numpy as np

    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(array))
        return _make_key, (data, str(jax.random.key_impl(array)))
    if not array.is_fully_addressable:
        raise pickle.PicklingError(
            "a jax array that is spread over several processes cannot be sent; gather it first"
        )
    return _reduce_array(np.asarray(array))


def _make_key(data: Any, implementation: str) -> Any:
    import jax

    return jax.random.wrap_key_data(data, impl=implementation)


def _writable(array: Any) -> Any:
    """The same array without its read-only mark; nobody writes to it here."""
    if array.flags.writeable or array.nbytes == 0:
        return array
    import numpy as np

    memory: Any = _memory(array)
    order: Any = "C" if array.flags.c_contiguous else "F"
    return np.ndarray(array.shape, array.dtype, memory, order=order)


@final
class _Local(threading.local):
    pickler: _OutOfBand | None = None


_local = _Local()


def dumps(value: Any) -> tuple[bytes, list[memoryview], list[Carried]]:
    """The pickle, the buffers left out of it, and the `Carried` values left out of it."""
    pickler, _local.pickler = _local.pickler, None  # a pickler used inside a pickler is another
    if pickler is None:
        pickler = _OutOfBand()
    pickler.dump(value)
    body = pickler.file.getvalue()
    buffers = [buffer.raw() for buffer in pickler.buffers]
    carried = pickler.carried[:]
    pickler.file.seek(0)
    pickler.file.truncate()
    pickler.clear_memo()
    pickler.globals_ref.clear()
    pickler.buffers.clear()
    pickler.carried.clear()
    if len(body) < 1 << 20:
        _local.pickler = pickler  # kept: making one costs more than most dumps
    return body, buffers, carried
