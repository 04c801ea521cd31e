"""Checkpoints on the disk: trees exactly, cuts whole or not at all, old ones readable."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lpml
from lpml.record import trees
from lpml.record.checkpoints import Checkpoint, Checkpoints, Manifest, latest_of
from lpml.record.folder import RunFolder

STORED = Path(__file__).parent / "data" / "checkpoint-0.1.0"


class Moments(NamedTuple):
    """As an optimiser's state is."""

    steps: int
    mu: Any


@dataclasses.dataclass(frozen=True)
class Limit:
    """A plain value."""

    size: int
    name: str


class Colour(enum.Enum):
    """One of two."""

    RED = 1
    BLUE = 2


@pytest.fixture(autouse=True)
def _found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of this file are looked up by the name of its module, which nobody can import."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, _module()))


def _module() -> Any:
    import types

    module = types.ModuleType(__name__)
    vars(module).update(globals())
    return module


def saved_and_loaded(path: Path, tree: Any) -> Any:
    trees.save(path / "state", trees.copied(tree))
    return trees.load(path / "state")


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    tree = {
        "numbers": [1, 2.5, float("inf"), True, None, 10**30],
        "pair": (1, ("a", b"\x00\xff")),
        7: np.arange(6, dtype=np.int16).reshape(2, 3),
        ("key", 1): np.float32(0.1),
        "moments": Moments(3, {"w": np.zeros((0, 4))}),
        "limit": Limit(4, "x"),
        "colour": Colour.BLUE,
        "text": np.array(["ab", "c"]),
        "empty": {},
    }
    found = saved_and_loaded(tmp_path, tree)
    assert found.keys() == tree.keys()
    key: Any
    for key in ("numbers", "pair", "limit", "colour", "empty"):
        assert (found[key], type(found[key])) == (tree[key], type(tree[key]))
    assert isinstance(found["moments"], Moments)
    assert found["moments"].mu["w"].shape == (0, 4)
    for key in (7, ("key", 1), "text"):
        assert found[key].dtype == tree[key].dtype
        assert np.array_equal(found[key], tree[key])
    assert type(found[("key", 1)]) is np.float32


def test_arrays_and_keys_of_jax_come_back_as_such(tmp_path: Path) -> None:
    import jax
    import jax.numpy as jnp
    import optax

    params = {"w": jnp.ones((2, 2), jnp.bfloat16), "b": jnp.zeros(3)}
    tree = {"params": params, "opt": optax.adam(0.1).init(params), "key": jax.random.key(3)}
    found = saved_and_loaded(tmp_path, tree)
    structure: Any = jax.tree.structure(tree)
    assert structure == jax.tree.structure(found)
    assert found["params"]["w"].dtype == jnp.bfloat16
    assert jax.random.bits(found["key"]) == jax.random.bits(tree["key"])


_plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_any = st.recursive(
    _plain | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=8,
)


@given(_any)
def test_any_plain_tree_comes_back(tree: Any) -> None:
    copy = trees.copied(tree)
    assert trees._Reader({}).read(copy.node) == tree


def test_a_copy_is_not_changed_by_what_happens_later(tmp_path: Path) -> None:
    array = np.zeros(3)
    copy = trees.copied({"a": array})
    array += 1
    trees.save(tmp_path / "state", copy)
    assert trees.load(tmp_path / "state")["a"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"a": [1, object()]}, r"state\['a'\]\[1\] is a builtins.object"),
        ({"a": {1, 2}}, r"state\['a'\] is a builtins.set"),
        (np.array([object()]), "state is an array of objects"),
    ],
)
def test_what_cannot_be_saved_is_named_with_its_path(tree: Any, words: str) -> None:
    with pytest.raises(lpml.UsageError, match=words):
        trees.copied(tree)


def test_a_class_that_is_not_plain_is_never_made(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(
        '{"object": "subprocess:Popen", "fields": {"args": ["true"]}}'
    )
    with pytest.raises(trees.UnreadableTree, match="no class of plain values"):
        trees.load(tmp_path / "state")
    (tmp_path / "state.json").write_text('{"object": "no_such_module:X", "fields": {}}')
    with pytest.raises(trees.UnreadableTree, match="install the version"):
        trees.load(tmp_path / "state")


def test_a_damaged_file_is_noticed(tmp_path: Path) -> None:
    trees.save(tmp_path / "state", trees.copied({"a": np.arange(1000)}))
    data = bytearray((tmp_path / "state.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "state.npz").write_bytes(data)
    with pytest.raises(trees.UnreadableTree, match="resume an older checkpoint"):
        trees.load(tmp_path / "state")


def cut(checkpoints: Checkpoints, state: Any = 1) -> Checkpoint:
    number, part = checkpoints.begin()
    trees.save(part / "node-0", trees.copied(state))
    return checkpoints.commit(part, Manifest(number, "p", {"node/0": "Service"}, {"node/0": 0}))


def test_the_newest_cuts_are_kept_and_half_ones_do_not_count(tmp_path: Path) -> None:
    folder = RunFolder.create("p", tmp_path)
    checkpoints = Checkpoints(folder, keep=2)
    assert checkpoints.latest() is None
    for state in range(4):
        cut(checkpoints, state)
    _, part = checkpoints.begin()
    trees.save(part / "node-0", trees.copied("half"))
    assert [each.manifest.number for each in checkpoints.all()] == [3, 4]
    assert latest_of(folder).load("node/0") == 3
    number, _ = checkpoints.begin()  # the half one is gone, and its number is not given again
    assert number == 6
    assert sorted(path.name for path in (folder.path / "checkpoints").iterdir()) == [
        ".part-000006",
        "000003",
        "000004",
    ]


def test_a_checkpoint_of_a_later_format_is_left_alone(tmp_path: Path) -> None:
    folder = RunFolder.create("p", tmp_path)
    made = cut(Checkpoints(folder))
    content = folder.read_json(made.path / "manifest.json")
    folder.write_json(made.path / "manifest.json", {**content, "format": 999})
    with pytest.raises(lpml.LaunchError, match="has no checkpoint"):
        latest_of(folder)


def test_a_checkpoint_of_each_release_can_be_read(tmp_path: Path) -> None:
    folder = RunFolder(STORED)
    found = latest_of(folder)
    assert (found.manifest.lpml, found.manifest.format) == ("0.1.0", 1)
    state = found.load("server/0")
    assert state["version"] == 3
    assert state["params"]["w"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert state["history"] == [("a", 1), ("b", None)]
    assert found.load("counter/0") == {"steps": 12}
