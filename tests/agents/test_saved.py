"""Saved policies: they act again without a program, and what cannot be read says why."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import lpml
from lpml.agents.catch import Catch
from lpml.agents.saved import load_policy, save_policy
from lpml.agents.specs import spec_from_json, spec_to_json
from lpml.nodes.environment import EnvironmentSpec
from tests.agents.tiny import TinyBuilder, TinyConfig

SPEC = Catch(1).spec
CONFIG = TinyConfig(rate=0.25, shape=(25, 3))


def follower() -> dict[str, np.ndarray[Any, Any]]:
    """Parameters that move the paddle below the ball."""
    w = np.zeros((25, 3), np.float32)
    for ball in range(5):
        for paddle in range(5):
            w[5 * ball + paddle, np.sign(ball - paddle) + 1] = 1
    return {"w": w}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_policy(tmp_path / "policy", TinyBuilder(CONFIG), SPEC, follower())


def test_a_loaded_policy_plays_as_the_saved_one(saved: Path) -> None:
    policy = load_policy(saved, builder=TinyBuilder)
    assert policy.builder == TinyBuilder(CONFIG)
    assert policy.spec == SPEC
    environment = Catch(1, seed=3)
    observation, total = environment.reset(3), 0.0
    for _ in range(90):
        step = environment.step(policy(observation))
        observation, total = step.observation, total + float(step.reward[0])
    assert total == 10


def test_one_observation_or_several(saved: Path) -> None:
    policy = load_policy(saved, builder=TinyBuilder)
    several = Catch(3, seed=1).reset(1)
    actions = policy(several)
    assert actions.shape == (3,)
    assert actions.dtype == np.int32
    for observation, action in zip(several, actions, strict=True):
        assert policy(observation).shape == ()
        assert policy(observation.tolist()) == action, "a list, of numbers of another type"


def test_a_policy_remembers_until_it_is_reset(tmp_path: Path) -> None:
    builder = TinyBuilder(TinyConfig(remember=True))
    policy = load_policy(
        save_policy(tmp_path / "policy", builder, SPEC, follower()), builder=TinyBuilder
    )
    board = Catch(2).reset(0)
    counts = [policy(board, begins).tolist() for begins in (None, None, [False, True], None)]
    assert counts == [[0, 0], [1, 1], [2, 0], [0, 1]]
    policy.reset()
    assert policy(board).tolist() == [0, 0]


def test_observations_that_do_not_fit_are_refused(saved: Path) -> None:
    policy = load_policy(saved, builder=TinyBuilder)
    with pytest.raises(lpml.UsageError, match=r"shapes \[\(10, 4\)\] does not fit Catch"):
        policy(np.zeros((10, 4), np.float32))


def test_the_files_hold_no_code(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["params.npz", "policy.json"]
    with np.load(saved / "params.npz", allow_pickle=False) as file:
        assert set(file) == {"key", "0000"}


def test_another_policy_may_be_saved_in_the_same_place(saved: Path) -> None:
    params = {"w": np.full((25, 3), 7, np.float32)}
    save_policy(saved, TinyBuilder(CONFIG), SPEC, params)
    np.testing.assert_array_equal(load_policy(saved, builder=TinyBuilder).params["w"], params["w"])


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "policy.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_that_is_no_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(lpml.UsageError, match=r"no saved policy, which is a folder"):
        load_policy(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy.json").write_text(text)
    with pytest.raises(lpml.UsageError, match=r"policy.json: no saved policy"):
        load_policy(tmp_path)


def test_another_version_is_refused(saved: Path) -> None:
    edit(saved, version=99)
    with pytest.raises(lpml.UsageError, match="version 99, and this lpml reads version 1"):
        load_policy(saved, builder=TinyBuilder)


def test_an_agent_that_lpml_does_not_have_needs_its_builder(saved: Path) -> None:
    with pytest.raises(lpml.UsageError, match="agent 'tiny', which lpml does not have"):
        load_policy(saved)
    edit(saved, agent="dpn")
    with pytest.raises(lpml.UsageError, match="did you mean 'dqn'"):
        load_policy(saved)
    with pytest.raises(lpml.UsageError, match="of agent 'dpn', the builder makes 'tiny'"):
        load_policy(saved, builder=TinyBuilder)


def test_an_option_that_is_not_known_is_named(saved: Path) -> None:
    edit(saved, config={"rate": 0.1, "temperature": 2.0})
    with pytest.raises(lpml.UsageError, match=r"TinyConfig of this lpml has no \['temperature'\]"):
        load_policy(saved, builder=TinyBuilder)


def test_arrays_that_do_not_fit_the_config_are_refused(saved: Path) -> None:
    config = json.loads((saved / "policy.json").read_text())["config"]
    edit(saved, config={**config, "shape": [25, 4]})
    with pytest.raises(lpml.UsageError, match=r"\['w'\] has shape \(25, 3\), not \(25, 4\)"):
        load_policy(saved, builder=TinyBuilder)


def test_a_damaged_file_and_one_of_another_policy_are_refused(saved: Path, tmp_path: Path) -> None:
    other = save_policy(tmp_path / "other", TinyBuilder(CONFIG), SPEC, follower())
    content = (saved / "params.npz").read_bytes()
    (saved / "params.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(lpml.UsageError, match=r"params.npz: cannot be read"):
        load_policy(saved, builder=TinyBuilder)
    (saved / "params.npz").write_bytes((other / "params.npz").read_bytes())
    with pytest.raises(lpml.UsageError, match="of different policies"):
        load_policy(saved, builder=TinyBuilder)


def test_parameters_of_something_else_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(lpml.UsageError, match=r"the policy of tiny takes"):
        save_policy(tmp_path, TinyBuilder(CONFIG), SPEC, {"w": np.zeros((2, 2), np.float32)})
    assert not list(tmp_path.iterdir())


def test_a_config_that_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    number: Any = np.float32(0.5)
    config = TinyConfig(rate=number)
    with pytest.raises(lpml.UsageError, match=r"TinyConfig.rate=.*cannot be written"):
        save_policy(tmp_path, TinyBuilder(config), SPEC, follower())


def test_specs_of_every_kind_come_back() -> None:
    pair = namedtuple("pair", ["eye", "nose"])
    leaf = jax.ShapeDtypeStruct((2,), np.dtype(np.float32))
    spec = EnvironmentSpec(
        {"a": [leaf, (leaf,)], "b": pair(leaf, leaf)},
        leaf,
        low=np.array([-1, -np.inf], np.float32),
        high=np.array([1, np.inf], np.float32),
        name="x",
    )
    back = spec_from_json(json.loads(json.dumps(spec_to_json(spec))))
    assert back.observation["a"] == spec.observation["a"]
    assert back.observation["b"]._asdict() == spec.observation["b"]._asdict()
    assert (back.action, back.name, back.num_actions) == (leaf, "x", None)
    for bound in ("low", "high"):
        np.testing.assert_array_equal(getattr(back, bound), getattr(spec, bound))
    with pytest.raises(lpml.UsageError, match="a spec with a set in it"):
        spec_to_json(EnvironmentSpec({1, 2}, leaf))


def test_a_policy_of_dqn_loads_in_three_lines_without_a_program(tmp_path: Path) -> None:
    from lpml.agents.dqn import DQNBuilder

    builder = DQNBuilder()
    algorithm = builder.algorithm(SPEC)
    params = algorithm.variables(jax.jit(algorithm.init)(jax.random.key(0)))
    save_policy(tmp_path / "policy", builder, SPEC, params)
    script = (
        "import numpy as np; import lpml.agents\n"
        f"policy = lpml.agents.load_policy({str(tmp_path / 'policy')!r})\n"
        "print(int(policy(np.zeros((10, 5), np.float32))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        timeout=100,
    )
    assert done.stdout.strip() in ("0", "1", "2"), done.stderr
