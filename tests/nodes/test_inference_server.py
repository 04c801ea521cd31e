"""The inference server: batches of many actors, whose states stay apart."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.errors import NotFinite
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.host_policy import HostPolicy
from lpml.nodes.inference_server import InferenceServer, RemotePolicy
from lpml.nodes.roles import Snapshot
from lpml.testing import running

E = 2


class Memory:
    """A policy that sums what it sees in an episode."""

    def __init__(self) -> None:
        self.traces = 0
        self.policy = Policy(
            lambda num_envs: (jnp.zeros((num_envs, 1)),),
            self.act,
            {"sum": jax.ShapeDtypeStruct((), np.dtype(np.float32))},
        )

    def act(self, params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
        self.traces += 1
        total = state[0] + observation["x"] * params
        return PolicyOutput(total[:, 0] * 10, (total,), {"sum": total[:, 0]}, total)


class Source:
    def __init__(self, value: float = 1.0) -> None:
        self.value = value
        self.version = 0

    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        self.version += 1
        return Snapshot(self.version, lpml.Shared(np.float32(self.value)))


def seen(value: float) -> dict[str, Any]:
    return {"x": np.array([[value], [value + 0.5]], np.float32)}


def none() -> np.ndarray[Any, Any]:
    return np.zeros(E, bool)


def test_it_acts_as_the_policy_on_the_host_does() -> None:
    host = HostPolicy(Memory().policy, E)
    host.update(np.float32(1))
    remote = RemotePolicy(InferenceServer(Memory().policy, Source()))
    for value, begins in ((1, none()), (2, none()), (3, np.array([True, False])), (4, none())):
        ours, theirs = host(seen(value), begins), remote(seen(value), begins)
        assert theirs[0].tolist() == ours[0].tolist()
        assert theirs[1]["sum"].tolist() == ours[1]["sum"].tolist()
    assert theirs[0].tolist() == [70, 120]


def test_each_actor_has_its_own_state() -> None:
    server = InferenceServer(Memory().policy, Source())
    one, two = RemotePolicy(server), RemotePolicy(server)
    assert one(seen(1), none())[0].tolist() == [10, 15]
    assert two(seen(5), none())[0].tolist() == [50, 55]
    assert one(seen(1), none())[0].tolist() == [20, 30]


def test_requests_that_come_together_are_one_padded_batch() -> None:
    memory = Memory()
    server = InferenceServer(memory.policy, Source())
    together = inspect.unwrap(InferenceServer.act)
    for count in (3, 4, 3, 2):
        x = np.arange(count * E, dtype=np.float32).reshape(count, E, 1)
        state = (np.ones((count, E, 1), np.float32),)
        action, extras, after = together(server, {"x": x}, np.zeros((count, E), bool), state)
        assert action.tolist() == (10 * (x[..., 0] + 1)).tolist()
        assert extras["sum"].shape == (count, E)
        assert after[0].tolist() == (x + 1).tolist()
    assert memory.traces == 2  # of sizes 4 and 2
    statistics = server.statistics()
    assert (statistics.requests, statistics.batches, statistics.mean_batch) == (12, 4, 3.0)


def test_newer_parameters_are_used() -> None:
    source = Source(1)
    remote = RemotePolicy(InferenceServer(Memory().policy, source, max_age=0))
    assert remote(seen(1), none())[0].tolist() == [10, 15]
    source.value = 2
    assert remote(seen(1), none())[0].tolist() == [30, 45]


def test_a_score_that_is_not_finite_is_an_error_of_those_who_asked() -> None:
    remote = RemotePolicy(InferenceServer(Memory().policy, Source(np.nan)))
    with pytest.raises(NotFinite, match=r"step 1 in environments \[0, 1\]"):
        remote(seen(1), none())


def make_server(value: float) -> InferenceServer:
    return InferenceServer(Memory().policy, Source(value))


class Asking:
    """An actor of its own number, which asks many times at once with the others."""

    def __init__(self, server: InferenceServer, number: int, times: int) -> None:
        self._server, self._number, self._times = server, number, times

    def run(self) -> None:
        remote = RemotePolicy(self._server)
        for step in range(1, self._times + 1):
            action, _ = remote(seen(self._number), np.zeros(E, bool))
            wanted = [step * 10 * self._number, step * 10 * (self._number + 0.5)]
            assert action.tolist() == wanted
        self._server.statistics()


@pytest.mark.parametrize("launch", ["local_mt", "local_mp"])
def test_actors_of_a_program_share_a_server(launch: str) -> None:
    program = lpml.Program("served")
    with program.group("server"):
        server = program.add_node(lpml.Node(make_server, 1.0))
    with program.group("actor"):
        for number in range(3):
            program.add_node(lpml.Node(Asking, server, number, 20))
    with running(program, launch=launch) as run:
        run.wait(60)
