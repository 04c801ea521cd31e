"""The exceptions: what they say, what they are, and that they cross processes."""

from __future__ import annotations

import json
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lpml
from lpml import errors


class Odd(Exception):
    """Has attributes of its own."""

    def __init__(self, code: int, hint: str) -> None:
        super().__init__(code, hint)
        self.code = code
        self.hint = hint


def test_every_exception_is_an_lpml_error() -> None:
    found = [value for value in vars(lpml).values() if isinstance(value, type)]
    raised = [value for value in found if issubclass(value, BaseException)]
    assert len(raised) >= 11
    assert all(issubclass(value, lpml.Error) for value in raised)


def test_a_timeout_is_caught_as_the_builtin_one() -> None:
    with pytest.raises(TimeoutError):
        raise lpml.CallTimeout("late")


def test_a_graph_error_shows_every_fault() -> None:
    error = lpml.GraphError("first fault", "second fault")
    assert str(error) == "first fault\nsecond fault"
    assert error.faults == ("first fault", "second fault")


def test_a_node_error_ends_with_the_node_and_its_log() -> None:
    error = lpml.NodeError("worker/3", "it raised", "Traceback ...\nValueError: x\n", "/logs/w")
    assert str(error).splitlines() == [
        "Traceback ...",
        "ValueError: x",
        "node worker/3 failed: it raised",
        "its log: /logs/w",
    ]
    assert str(lpml.NodeError("a/0", "killed")) == "node a/0 failed: killed"


@pytest.mark.parametrize(
    "error",
    [
        lpml.GraphError("one", "two"),
        lpml.NodeError("worker/3", "it raised", "tb", "log"),
        lpml.CallTimeout("late"),
        errors.remote_error(KeyError("k"), "a called b", "the traceback"),
        errors.remote_error(Odd(3, "h"), "a called b", ""),
    ],
)
def test_an_error_survives_pickling(error: lpml.Error) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy).keys() == vars(error).keys()


def test_a_remote_error_is_also_what_was_raised() -> None:
    error = errors.remote_error(Odd(3, "try 4"), "a called b", "the traceback")
    assert isinstance(error, lpml.RemoteError)
    assert isinstance(error, Odd)
    assert (error.code, error.hint) == (3, "try 4")
    assert str(error) == "a called b"
    assert "the traceback" in str(error.__cause__)


def test_what_another_node_raised_is_caught_by_its_class() -> None:
    with pytest.raises(KeyError, match="a called b"):
        raise errors.remote_error(KeyError("k"), "a called b", "")


def raised(function: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as info:
        function()
    return info.value


@pytest.mark.parametrize(
    ("error", "attribute"),
    [
        (raised(Path("/no/such/file").read_text), "filename"),
        (raised(lambda: b"\xff".decode()), "start"),
        (raised(lambda: json.loads("{")), "lineno"),
        (raised(lambda: __import__("no_such_module")), "name"),
        (raised(lambda: np.zeros(2**62)), "args"),
        (MemoryError("all of it"), "args"),
        (StopIteration(3), "value"),
        (SyntaxError("bad", ("file", 1, 2, "text")), "lineno"),
        (subprocess.CalledProcessError(1, ["a"]), "returncode"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_what_an_exception_knows_arrives(error: BaseException, attribute: str) -> None:
    sent = errors.remote_error(error, "a called b", "")
    assert isinstance(sent, type(error))
    assert getattr(sent, attribute) == getattr(error, attribute)
    again = pickle.loads(pickle.dumps(sent))
    assert getattr(again, attribute) == getattr(error, attribute)


def test_a_remote_error_is_wrapped_once() -> None:
    inner = errors.remote_error(ValueError("v"), "b called c", "")
    outer = errors.remote_error(inner, "a called b", "")
    assert isinstance(outer, ValueError)
    assert outer.cause is inner


def test_an_interrupt_of_another_node_is_no_interrupt_here() -> None:
    error = errors.remote_error(KeyboardInterrupt(), "a called b", "")
    assert isinstance(error, lpml.RemoteError)
    assert not isinstance(error, KeyboardInterrupt)


def test_the_nearest_name_is_suggested() -> None:
    assert errors.closest("smaple", ["sample", "insert"]) == "; did you mean 'sample'?"
    assert errors.closest("zzz", ["sample", "insert"]) == "; there is insert, sample"
    assert errors.closest("zzz", []) == ""
