"""What a forkserver imports before it forks the nodes of a program."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import numpy as np
import pytest

from lpml.graph.pickling import dumps
from lpml.launchers.preloading import needed


def payload(value: Any) -> bytes:
    return dumps(value).data


def test_a_package_in_a_payload_is_imported() -> None:
    assert "numpy" in needed([payload(3), payload(np.zeros(2))])


def test_what_no_payload_names_is_not_imported_though_the_launcher_has_it() -> None:
    assert needed([payload((json.JSONDecoder, 3))]) == []


def test_packages_that_a_named_module_uses_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_program")
    module.zeros = np.zeros  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_program", module)
    found = needed([b"cmy_program\nWorker\n"])
    assert "numpy" in found
    assert "my_program" not in found
