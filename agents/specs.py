"""An environment's spec as JSON, and back."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lpml.errors import UsageError
from lpml.nodes.environment import EnvironmentSpec


def spec_to_json(spec: EnvironmentSpec) -> dict[str, Any]:
    """Numbers, strings, lists and dicts that `spec_from_json` takes.

    Raises:
      UsageError: the tree of observations has containers other than dict, list and tuple.
    """
    return {
        "name": spec.name,
        "observation": _tree_to_json(spec.observation),
        "action": _tree_to_json(spec.action),
        "num_actions": spec.num_actions,
        "low": None if spec.low is None else np.asarray(spec.low).tolist(),
        "high": None if spec.high is None else np.asarray(spec.high).tolist(),
    }


def spec_from_json(values: Mapping[str, Any]) -> EnvironmentSpec:
    """What `spec_to_json` was given; named tuples are of a new class with the same fields."""
    action = _tree_from_json(values["action"])
    low, high = (
        None if values[bound] is None else np.asarray(values[bound], action.dtype)
        for bound in ("low", "high")
    )
    return EnvironmentSpec(
        _tree_from_json(values["observation"]),
        action,
        values["num_actions"],
        low,
        high,
        values["name"],
    )


def _tree_to_json(tree: Any) -> Any:
    if isinstance(tree, jax.ShapeDtypeStruct | np.ndarray | np.generic):
        return {"shape": list(tree.shape), "dtype": np.dtype(tree.dtype).name}
    if isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
        return {"dict": {key: _tree_to_json(value) for key, value in tree.items()}}
    fields = getattr(tree, "_fields", None)
    if isinstance(tree, tuple) and fields is not None:
        parts = {key: _tree_to_json(value) for key, value in zip(fields, tree, strict=True)}
        return {"named": type(tree).__name__, "fields": parts}
    if isinstance(tree, list | tuple):
        return {type(tree).__name__: [_tree_to_json(value) for value in tree]}
    raise UsageError(
        f"a spec with a {type(tree).__name__} in it cannot be saved; use dicts with names as keys, "
        "lists and tuples"
    )


def _tree_from_json(value: Any) -> Any:
    if "shape" in value:
        return jax.ShapeDtypeStruct(tuple(value["shape"]), jnp.dtype(value["dtype"]))
    if "dict" in value:
        return {key: _tree_from_json(part) for key, part in value["dict"].items()}
    if "named" in value:
        parts = {key: _tree_from_json(part) for key, part in value["fields"].items()}
        return namedtuple(value["named"], parts)(**parts)
    if "list" in value:
        return [_tree_from_json(part) for part in value["list"]]
    return tuple(_tree_from_json(part) for part in value["tuple"])
