"""Random numbers whose state is saved as arrays: a counter-based generator per table."""

from __future__ import annotations

from typing import Any

import numpy as np


def save_generator(rng: np.random.Generator) -> dict[str, Any]:
    """The state of a Philox generator, as arrays and integers."""
    state: dict[str, Any] = dict(rng.bit_generator.state)
    return {
        "counter": np.array(state["state"]["counter"]),
        "key": np.array(state["state"]["key"]),
        "buffer": np.array(state["buffer"]),
        "buffer_pos": int(state["buffer_pos"]),
        "has_uint32": int(state["has_uint32"]),
        "uinteger": int(state["uinteger"]),
    }


def restore_generator(rng: np.random.Generator, saved: dict[str, Any]) -> None:
    """Puts back what `save_generator` returned."""
    names = ("buffer_pos", "has_uint32", "uinteger")
    rng.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.asarray(saved["counter"], np.uint64),
            "key": np.asarray(saved["key"], np.uint64),
        },
        "buffer": np.asarray(saved["buffer"], np.uint64),
        **{name: int(saved[name]) for name in names},
    }
