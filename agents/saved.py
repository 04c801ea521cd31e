"""Saved policies: a folder from which an agent acts again, without a program or a replay.

::

    policy/
      policy.json     which agent, its config, the environment's spec, what the arrays are
      params.npz      the arrays
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lpml.agents.builder import AbstractBuilder
from lpml.agents.configs import config_from_json, config_to_json
from lpml.agents.policies import SavedPolicy
from lpml.agents.specs import spec_from_json, spec_to_json
from lpml.errors import UsageError, closest
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.roles import Params

AGENTS: Mapping[str, str] = {
    "dqn": "lpml.agents.dqn:DQNBuilder",
    "encoded_ppo": "lpml.programs.world_and_labels.agent:EncodedPPOBuilder",
    "impala": "lpml.agents.impala:ImpalaBuilder",
    "ppo": "lpml.agents.ppo:PPOBuilder",
}
"""Where the builder of each agent is; imported when a policy of it is loaded."""

_FORMAT, _VERSION = "lpml policy", 1


def save_policy(
    path: Path | str,
    builder: AbstractBuilder,
    spec: EnvironmentSpec,
    params: Params,
    *,
    mean_return: float | None = None,
) -> Path:
    """Writes what is needed to act: the agent's config and its parameters. No pickle.

    Args:
      path: of a folder, which is made; a policy that is there is replaced.
      builder: of the agent.
      spec: of its environment.
      params: as its policy takes them, such as `Result.params` or `Snapshot.params`.
      mean_return: what an evaluation found, if there was one.

    Returns:
      The folder.

    Raises:
      UsageError: the params are not those of the agent's policy, or the config is no dataclass of
        numbers, strings, booleans and tuples of them.
    """
    folder = Path(path)
    leaves = _leaves(builder, spec)
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    given = [(array.shape, array.dtype.name) for array in arrays]
    wanted = [(shape, dtype) for _, shape, dtype in leaves]
    if given != wanted:
        raise UsageError(
            f"save_policy: the params are arrays {given}, the policy of {builder.name} takes "
            f"{wanted}; give what the learner's pull returned"
        )
    key = secrets.token_hex(8)  # in both files: they belong together
    description = {
        "format": _FORMAT,
        "version": _VERSION,
        "key": key,
        "agent": builder.name,
        "mean_return": mean_return,
        "config": config_to_json(builder.config),
        "spec": spec_to_json(spec),
        "arrays": leaves,
    }
    folder.mkdir(parents=True, exist_ok=True)
    named: dict[str, Any] = {f"{index:04}": array for index, array in enumerate(arrays)}
    _write(folder / "params.npz", lambda file: np.savez(file, key=np.array(key), **named))
    text = json.dumps(description, indent=1) + "\n"
    _write(folder / "policy.json", lambda file: file.write(text.encode()))
    return folder


def load_policy(
    path: Path | str, *, builder: type[AbstractBuilder] | None = None, seed: int = 0
) -> SavedPolicy:
    """A policy that `save_policy` wrote, ready to act.

    ::

        policy = lpml.agents.load_policy("runs/latest/policy")
        action = policy(observation)

    Args:
      path: of the folder.
      builder: of an agent that is not lpml's own; a class that is called with its config.
      seed: of a policy that draws its actions.

    Raises:
      UsageError: it is no such folder, or of another version, or of an unknown agent.
    """
    folder = Path(path)
    description = _read_description(folder)
    name = description["agent"]
    make = _builder_class(name, folder) if builder is None else builder
    if make.name != name:
        raise UsageError(f"{folder}: a policy of agent {name!r}, the builder makes {make.name!r}")
    made = make(config_from_json(make, description["config"], folder))  # type: ignore[call-arg]
    spec = spec_from_json(description["spec"])
    params = _read_params(folder, description, made, spec)
    return SavedPolicy(made, spec, params, seed)


def saved_return(path: Path | str) -> float | None:
    """What an evaluation found of a saved policy; `None` where there was none, or no policy."""
    folder = Path(path)
    if not (folder / "policy.json").is_file():
        return None
    found: float | None = _read_description(folder).get("mean_return")
    return found


def _write(path: Path, write: Callable[[Any], object]) -> None:
    """Writes a file as a whole: a reader sees the old content or the new."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with open(draft, "wb") as file:
            write(file)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "policy.json"
    if not path.is_file():
        raise UsageError(f"{folder}: no saved policy, which is a folder with a policy.json in it")
    try:
        description = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path}: no saved policy: {error}") from error
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        raise UsageError(f"{path}: no saved policy: its format is not {_FORMAT!r}")
    if description.get("version") != _VERSION:
        raise UsageError(
            f"{path}: version {description.get('version')}, and this lpml reads version "
            f"{_VERSION}; load it with the lpml that wrote it, and save it anew"
        )
    return description


def _read_params(
    folder: Path, description: Mapping[str, Any], builder: AbstractBuilder, spec: EnvironmentSpec
) -> Params:
    path = folder / "params.npz"
    wanted = _leaves(builder, spec)
    if [list(leaf[:1]) for leaf in wanted] != [leaf[:1] for leaf in description["arrays"]]:
        raise UsageError(
            f"{folder}: its arrays are {[leaf[0] for leaf in description['arrays']]}, agent "
            f"{builder.name!r} of this lpml has {[leaf[0] for leaf in wanted]}; load it with the "
            "lpml that wrote it"
        )
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            key = str(file["key"])
            arrays = [file[f"{index:04}"] for index in range(len(wanted))]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: cannot be read: {error}; save the policy anew") from error
    if key != description["key"]:
        raise UsageError(f"{folder}: its two files are of different policies; save it anew")
    for (name, shape, dtype), array in zip(wanted, arrays, strict=True):
        if array.shape != tuple(shape):
            raise UsageError(f"{path}: {name} has shape {array.shape}, not {tuple(shape)}")
        del dtype
    # numpy writes types that it does not know, such as bfloat16, as raw bytes
    restored = [
        array.view(_dtype(dtype)) if array.dtype.kind == "V" else array
        for (_, _, dtype), array in zip(wanted, arrays, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(_shapes(builder, spec)), restored)


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(jax.numpy.dtype(name))


def _shapes(builder: AbstractBuilder, spec: EnvironmentSpec) -> Any:
    """The tree of `jax.ShapeDtypeStruct` of what the policy takes."""
    algorithm = builder.algorithm(spec)
    return jax.eval_shape(lambda: algorithm.variables(algorithm.init(jax.random.key(0))))


def _leaves(builder: AbstractBuilder, spec: EnvironmentSpec) -> list[tuple[str, Any, str]]:
    """Path, shape and dtype of each array."""
    found = jax.tree_util.tree_leaves_with_path(_shapes(builder, spec))
    return [
        (jax.tree_util.keystr(path), leaf.shape, np.dtype(leaf.dtype).name) for path, leaf in found
    ]


def _builder_class(name: str, folder: Path) -> type[AbstractBuilder]:
    if name not in AGENTS:
        raise UsageError(
            f"{folder}: a policy of agent {name!r}, which lpml does not have"
            f"{closest(name, list(AGENTS))}; give load_policy its builder"
        )
    module, _, attribute = AGENTS[name].partition(":")
    found: type[AbstractBuilder] = getattr(importlib.import_module(module), attribute)
    return found
