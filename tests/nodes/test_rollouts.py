"""Actor threads beside a learner: how they end."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import lpml
from lpml.nodes.data_parallel import Divided
from lpml.nodes.rollouts import Rollouts
from lpml.testing import node


class Source:
    """Makes no rollout: the program stops, or something breaks."""

    num_envs = 1

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.closed = threading.Event()

    def roll(self, params: Any) -> Any:
        if isinstance(self.error, lpml.ProgramStopped):
            lpml.context().stop_program("enough")
        raise self.error

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("error", [lpml.ProgramStopped("it stops"), ValueError("it broke")])
def test_a_learner_hears_why_an_actor_ended(error: Exception) -> None:
    source = Source(error)
    with node("learner/0"):
        rollouts = Rollouts([source], [None], Divided(None))
        rollouts.start(dict)
        assert source.closed.wait(10)
        with pytest.raises(type(error)):
            next(rollouts)
        rollouts.close()
