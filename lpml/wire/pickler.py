"""The pickler of values that are no plain numbers or strings: cloudpickle, arrays, `Carried`."""

from __future__ import annotations

import io
import pickle
import sys
import threading
from typing import Any, final

import cloudpickle

from lpml.wire.carried import Carried

_MOST_CARRIED = 200  # in one message; the kernel hands over 253 descriptors at once


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
        if isinstance(obj, Carried):
            if obj.nbytes == 0 or len(self.carried) >= _MOST_CARRIED:
                return NotImplemented
            self.carried.append(obj)
            return obj.reference()
        jax = sys.modules.get("jax")
        if jax is not None and "jax" in cls.__module__ and isinstance(obj, jax.Array):
            return _reduce_jax(obj, jax)
        return super().reducer_override(obj)


def _reduce_array(array: Any) -> Any:
    """Contiguous and writable, so that it travels out of band and arrives writable."""
    if array.dtype.isbuiltin == 2:  # bfloat16 and its like: numpy would send them in band
        return _reduce_extension(array)
    flags = array.flags
    if (flags.writeable and (flags.c_contiguous or flags.f_contiguous)) or array.dtype.hasobject:
        return NotImplemented
    import numpy as np

    if not (flags.c_contiguous or flags.f_contiguous):
        return np.ascontiguousarray(array).__reduce_ex__(5)
    return _writable(array, np).__reduce_ex__(5)


def _reduce_extension(array: Any) -> Any:
    import numpy as np

    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return _from_bytes, (_writable(flat, np), array.dtype, array.shape)


def _from_bytes(flat: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    return flat.view(dtype).reshape(shape)


def _reduce_jax(array: Any, jax: Any) -> Any:
    import numpy as np

    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = _writable(np.asarray(jax.random.key_data(array)), np)
        return _make_key, (data, str(jax.random.key_impl(array)))
    if not array.is_fully_addressable:
        raise pickle.PicklingError(
            "a jax array that is spread over several processes cannot be sent; gather it first"
        )
    plain = np.ascontiguousarray(np.asarray(array)).reshape(array.shape)
    if plain.dtype.isbuiltin == 2:
        return _reduce_extension(plain)
    return _writable(plain, np).__reduce_ex__(5)


def _make_key(data: Any, implementation: str) -> Any:
    import jax

    return jax.random.wrap_key_data(data, impl=implementation)


class _Alias:
    """Memory that is read-only for us and whose copy at the receiver need not be."""

    def __init__(self, array: Any) -> None:
        interface = dict(array.__array_interface__)
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}
        self.array = array


def _writable(array: Any, np: Any) -> Any:
    """The same array without its read-only mark; nobody writes to it here."""
    if array.flags.writeable or array.nbytes == 0:
        return array
    order = "C" if array.flags.c_contiguous else "F"
    flat = array.reshape(-1, order=order)
    alias = np.asarray(_Alias(flat.view(np.uint8)))
    return alias.view(array.dtype).reshape(array.shape, order=order)


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
