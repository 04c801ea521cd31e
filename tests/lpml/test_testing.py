"""The public test kit: virtual time, fakes, faults, leaks, programs in tests."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import lpml
from lpml import testing
from lpml.graph import edges
from lpml.testing import Leak, VirtualClock, calls, failing, fake, no_leaks, running, service, slow


class Store:
    """A collaborator."""

    def put(self, key: str, value: int = 0) -> None:
        raise AssertionError("the real one was called")

    def get(self, key: str) -> int:
        raise AssertionError("the real one was called")

    def keys(self) -> Iterator[str]:
        yield from ()

    @staticmethod
    def version(part: int) -> str:
        return str(part)


class Dict(Store):
    """One that works."""

    def __init__(self) -> None:
        self._items: dict[str, int] = {}

    def put(self, key: str, value: int = 0) -> None:
        self._items[key] = value

    def get(self, key: str) -> int:
        return self._items[key]


class Reader:
    """Reads a key each second, until told to stop."""

    def __init__(self, store: Store, key: str = "a") -> None:
        self._store = store
        self._key = key
        self.seen: list[int] = []

    def last(self) -> int:
        return self.seen[-1]

    def run(self) -> None:
        while not lpml.context().wait(1.0):
            try:
                self.seen.append(self._store.get(self._key))
            except lpml.NodeUnavailable:
                self.seen.append(-1)


class Once:
    """Reads once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self) -> None:
        self._store.get("a")


def start(target: object, *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


# Virtual time.


def test_time_passes_only_when_told() -> None:
    clock = VirtualClock(5.0)
    clock.advance(2.5)
    assert clock.time() == 7.5
    assert clock.wall_time() - VirtualClock().wall_time() == 7.5
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1.0)


def test_a_waiter_sleeps_until_its_moment_comes() -> None:
    clock, ends = VirtualClock(), list[tuple[bool, float]]()
    thread = start(lambda: ends.append((clock.wait(10.0), clock.time())))
    clock.until_waiting(1)
    clock.advance(9.0)
    clock.until_waiting(1)
    assert ends == []
    clock.advance(1.0)
    thread.join(10)
    assert ends == [(False, 10.0)]


def test_time_jumps_from_one_waited_moment_to_the_next() -> None:
    clock, seen = VirtualClock(jump_when_waiting=3), list[tuple[float, float]]()

    def tick(period: float) -> None:
        for _ in range(3):
            clock.wait(period)
            seen.append((clock.time(), period))
        clock.wait(100.0 - clock.time())

    threads = [start(tick, period) for period in (1.0, 2.5, 10.0)]
    for thread in threads:
        thread.join(10)
    moments = [1.0, 2.0, 2.5, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0]
    assert [time for time, _ in seen] == moments
    assert clock.time() == 100.0


def test_a_deadline_passes_in_virtual_time() -> None:
    clock = VirtualClock(jump_when_waiting=1)
    with testing.node(clock=clock), lpml.deadline(30.0):
        condition = clock.condition()
        with condition, pytest.raises(lpml.CallTimeout):
            condition.wait_for(lambda: False)
        assert clock.time() == 30.0


def test_a_wait_that_nobody_enters_is_reported() -> None:
    with pytest.raises(TimeoutError, match="0 threads wait on the clock"):
        VirtualClock().until_waiting(1, timeout=0.01)


def test_a_condition_must_be_held() -> None:
    with pytest.raises(RuntimeError, match="hold the condition"):
        VirtualClock().condition().notify_all()


def test_a_loop_runs_through_its_waits_without_real_time() -> None:
    store = Dict()
    store.put("a", 3)
    with testing.node(clock=VirtualClock(jump_when_waiting=1)) as context:
        reader = Reader(failing(store, "get", SystemExit(), after=5))
        with pytest.raises(SystemExit):
            reader.run()
        assert context.clock.time() == 6.0
    assert reader.seen == [3] * 5


# Fakes.


def test_a_fake_answers_for_its_service() -> None:
    store = fake(Store, get=lambda key: len(key))
    assert isinstance(store, Store)
    assert store.get("abc") == 3
    assert store.get(key="ab") == 2


def test_a_fake_keeps_what_it_was_asked() -> None:
    store = fake(Store, get=lambda key: 0, put=lambda key, value=0: None)
    store.put("a", value=1)
    store.get("a")
    assert [(made.method, made.args, made.kwargs) for made in calls(store)] == [
        ("put", ("a",), {"value": 1}),
        ("get", ("a",), {}),
    ]
    assert len(calls(store, "get")) == 1


def test_a_fake_refuses_arguments_that_the_real_method_would_refuse() -> None:
    store = fake(Store, put=lambda *a, **k: None, version=lambda *a: "x")
    with pytest.raises(TypeError, match=r"Store\.put: missing a required argument: 'key'"):
        store.put()  # type: ignore[call-arg]  # pyright: ignore
    assert store.version(1) == "x"
    with pytest.raises(TypeError, match=r"Store\.version"):
        store.version()  # type: ignore[call-arg]  # pyright: ignore


def test_a_method_that_was_not_faked_says_so() -> None:
    with pytest.raises(NotImplementedError, match=r"Store\.get was called and is not faked"):
        fake(Store).get("a")


def test_a_fake_of_a_method_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="did you mean 'get'"):
        fake(Store, gett=lambda key: 0)
    with pytest.raises(TypeError, match="give a function"):
        fake(Store, get=3)  # type: ignore[arg-type]  # pyright: ignore
    with pytest.raises(AttributeError, match="did you mean 'keys'"):
        fake(Store).key  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore


def test_calls_are_those_of_a_fake() -> None:
    with pytest.raises(TypeError, match="what lpml\\.testing\\.fake returned"):
        calls(Dict())


def test_a_fake_can_be_sent_to_a_node() -> None:
    store = fake(Store, get=len)
    copy = pickle.loads(pickle.dumps(store))
    assert copy.get("abc") == 3
    assert isinstance(copy, Store)


# Faults.


def test_a_failing_call_fails_as_often_as_it_should() -> None:
    store = failing(Dict(), "get", lpml.NodeUnavailable("gone"), times=2, after=1)
    store.put("a", 4)
    assert store.get("a") == 4
    for _ in range(2):
        with pytest.raises(lpml.NodeUnavailable, match="gone"):
            store.get("a")
    assert store.get("a") == 4
    assert isinstance(store, Dict)


def test_a_slow_call_waits_on_the_clock_of_its_caller() -> None:
    store = slow(Dict(), "put", 60.0)
    with testing.node(clock=VirtualClock(jump_when_waiting=1)) as context:
        store.put("a", 4)
        assert context.clock.time() == 60.0
        assert store.get("a") == 4
        with lpml.deadline(10.0), pytest.raises(lpml.CallTimeout):
            store.put("a", 5)
        context.clock.stop()
        with pytest.raises(lpml.ProgramStopped):
            store.put("a", 5)


def test_faults_combine_and_travel() -> None:
    store = slow(failing(Dict(), "get", KeyError("k")), "put", 1.0)
    copy = pickle.loads(pickle.dumps(store))
    with pytest.raises(KeyError):
        copy.get("a")
    assert isinstance(copy, Dict)


def test_a_fault_of_a_method_that_does_not_exist_is_refused() -> None:
    with pytest.raises(AttributeError):
        failing(Dict(), "gett", KeyError("k"))
    with pytest.raises(ValueError, match="times=-1"):
        failing(Dict(), "get", KeyError("k"), times=-1)
    with pytest.raises(ValueError, match="seconds=-1"):
        slow(Dict(), "get", -1)


# Programs.


def reading(store: Store | None = None) -> lpml.Program:
    p = lpml.Program("reading")
    handle = p.add_node(lpml.Node(Dict), "store")
    p.add_node(lpml.Node(Reader, handle if store is None else store), "reader")
    return p


def test_a_program_runs_for_the_length_of_a_block() -> None:
    with running(reading(), timeout=20) as run:
        run.client("store/0").put("a", 3)
        store = service(run, "store/0", Dict)
        assert store.get("a") == 3
        store.put("a", 4)
        assert run.client("store/0").get("a") == 4
    assert run.wait().state == "stopped"


def test_a_fault_given_to_a_handle_is_met_in_the_node() -> None:
    p = lpml.Program("faulty")
    store = p.add_node(lpml.Node(Dict), "store")
    p.add_node(lpml.Node(Once, failing(store, "get", ValueError("no such luck"))), "once")
    with pytest.raises(lpml.NodeError, match="no such luck") as info, running(p) as run:
        run.wait()
    assert info.value.node == "once/0"
    assert [(edge.source, edge.target) for edge in edges(p)] == [("once/0", "store/0")]


def test_a_fake_may_be_the_argument_of_a_node() -> None:
    p = lpml.Program("faked")
    p.add_node(lpml.Node(Once, fake(Store, get=lambda key: 7)), "once")
    with running(p, timeout=20) as run:
        assert run.wait().state == "finished"


def test_a_block_that_takes_too_long_fails() -> None:
    with pytest.raises(lpml.NodeError, match="time_limit"), running(reading(), timeout=0.2) as run:
        run.wait()


def test_an_object_of_another_process_cannot_be_reached() -> None:
    p = lpml.Program("apart")
    p.add_node(lpml.Node(Dict), "store")
    with running(p, "local_mp") as run:
        run.client("store/0").put("a", 3)
        with pytest.raises(lpml.UsageError, match="process of its own"):
            service(run, "store/0", Dict)


def test_the_object_of_a_node_is_of_the_class_that_is_asked_for() -> None:
    with running(reading()) as run:
        with pytest.raises(lpml.UsageError, match="a Dict, not a Reader"):
            service(run, "store/0", Reader)
        with pytest.raises(lpml.UsageError, match="stroe"):
            service(run, "stroe/0", Dict)


# Leaks.


def test_a_block_that_cleans_up_leaks_nothing() -> None:
    with no_leaks():
        start(lambda: None)
        left, right = socket.socketpair()
        left.close()
        right.close()


def test_a_thread_left_behind_is_found() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    with pytest.raises(Leak, match=r"thread forgotten at .*wait"), no_leaks(patience=0.05):
        thread.start()
    end.set()
    thread.join()


def test_a_descriptor_left_behind_is_found() -> None:
    ends = list[int]()
    with pytest.raises(Leak, match=r"descriptor \d+: pipe"), no_leaks(patience=0.05):
        ends += os.pipe()
    for end in ends:
        os.close(end)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are read from /proc")
def test_a_process_left_behind_is_found() -> None:
    processes = list[subprocess.Popen[bytes]]()
    with pytest.raises(Leak, match=r"process \d+ .*cat"), no_leaks(patience=0.05):
        processes.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
    processes[0].communicate()


def test_a_socket_folder_left_behind_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LPML_SOCKETS", str(tmp_path))
    folder = tmp_path / "run-1"
    with pytest.raises(Leak, match=r"socket folder .*run-1"), no_leaks(patience=0.05):
        folder.mkdir()
    folder.rmdir()


def test_an_error_in_the_block_is_the_one_that_is_shown() -> None:
    ends = list[int]()

    def leak_and_raise() -> None:
        ends.extend(os.pipe())
        raise KeyError("k")

    with pytest.raises(KeyError), no_leaks(patience=0.05):
        leak_and_raise()
    for end in ends:
        os.close(end)
