"""A small parameter server, and gradients for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import optax

from lpml.nodes import (
    AbstractParameterServer,
    Consistency,
    ParameterServer,
)

ONE = {"w": np.ones((2,), np.float32)}


def server(mode: Consistency, **options: Any) -> ParameterServer:
    return ParameterServer({"w": np.zeros((2,), np.float32)}, optax.sgd(1.0), mode=mode, **options)


def grads(value: float) -> dict[str, np.ndarray[Any, Any]]:
    return {"w": np.full((2,), value, np.float32)}


def value(server: AbstractParameterServer) -> float:
    return float(server.pull().params["w"][0])
