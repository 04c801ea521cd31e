"""Parts of the programs of agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lpml.agents import make_environment
from lpml.agents.saved import saved_return
from lpml.programs.agent_parts import BestPolicy
from tests.agents.tiny import TinyBuilder


def kept(folder: Path) -> float:
    with np.load(folder / "params.npz") as arrays:
        return float(arrays["0000"].flat[0])


def test_the_best_policy_is_kept_over_a_resume_too(tmp_path: Path) -> None:
    builder, spec, folder = TinyBuilder(), make_environment("Catch").spec, tmp_path / "best"
    algorithm = builder.algorithm(spec)
    params: Any = algorithm.variables(algorithm.init(jax.random.key(0)))

    def filled(number: float) -> Any:
        return jax.tree.map(lambda leaf: np.full(leaf.shape, number, leaf.dtype), params)

    best = BestPolicy(builder, spec, folder)
    best(filled(1), 0.5)
    best(filled(2), float("nan"))
    best(filled(3), 0.5)
    assert (kept(folder), saved_return(folder)) == (1, 0.5)
    again = BestPolicy(builder, spec, folder)
    again(filled(4), 0.4)
    assert kept(folder) == 1
    again(filled(5), 0.6)
    assert (kept(folder), saved_return(folder)) == (5, 0.6)


def test_what_learns_goes_on_where_its_best_policy_cannot_be_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder, spec = TinyBuilder(), make_environment("Catch").spec
    algorithm = builder.algorithm(spec)
    params = algorithm.variables(algorithm.init(jax.random.key(0)))
    (tmp_path / "taken").touch()
    BestPolicy(builder, spec, tmp_path / "taken")(params, 1.0)
    assert "could not be saved" in capsys.readouterr().out
