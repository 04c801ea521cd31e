"""The clock: one set of promises, kept by real and by virtual time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

import lpml
from lpml import clock as clocks
from lpml.clock import Call, Clock, RealClock, current_call
from lpml.testing import VirtualClock, node

CLOCKS: list[Callable[[], Clock]] = [RealClock, VirtualClock]


@pytest.fixture(params=CLOCKS)
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


class Thread:
    """A thread whose result or exception is asked for."""

    def __init__(self, target: Callable[[], object]) -> None:
        self._target = target
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._result: object = None
        self._error: BaseException | None = None
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._target()
        except BaseException as error:
            self._error = error

    def result(self) -> object:
        self._thread.join(10.0)
        assert not self._thread.is_alive(), "the thread did not end"
        if self._error is not None:
            raise self._error
        return self._result


@pytest.fixture
def served() -> Iterator[Call]:
    """This thread serves a call."""
    call = Call(None)
    token = current_call.set(call)
    yield call
    current_call.reset(token)


def test_time_does_not_go_backwards(clock: Clock) -> None:
    first = clock.time()
    assert clock.time() >= first


def test_a_predicate_that_holds_needs_no_wait(clock: Clock) -> None:
    with clock.condition() as _, (condition := clock.condition()):
        assert condition.wait_for(lambda: True, timeout=0)


def test_a_predicate_that_fails_at_once_times_out(clock: Clock) -> None:
    condition = clock.condition()
    with condition:
        assert not condition.wait_for(lambda: False, timeout=0)


def test_a_notified_waiter_sees_the_change(clock: Clock) -> None:
    condition, items = clock.condition(), list[int]()

    def take() -> int:
        with condition:
            assert condition.wait_for(lambda: bool(items))
            return items.pop()

    thread = Thread(take)
    with condition:
        items.append(7)
        condition.notify_all()
    assert thread.result() == 7


def test_the_lock_is_reentrant_and_wholly_released_while_waiting(clock: Clock) -> None:
    condition, entered = clock.condition(), threading.Event()
    ready: list[bool] = []

    def wait() -> bool:
        with condition, condition:
            entered.set()
            found = condition.wait_for(lambda: bool(ready))
            condition.notify_all()  # both levels are held again
            return found

    thread = Thread(wait)
    assert entered.wait(10)
    with condition:
        ready.append(True)
        condition.notify_all()
    assert thread.result() is True


def test_a_stop_ends_a_wait_on_a_condition(clock: Clock) -> None:
    condition, entered = clock.condition(), threading.Event()

    def wait() -> None:
        with condition:
            entered.set()
            condition.wait_for(lambda: False)

    thread = Thread(wait)
    assert entered.wait(10)
    clock.stop()
    with pytest.raises(lpml.ProgramStopped):
        thread.result()


def test_a_stop_ends_a_plain_wait_which_says_so(clock: Clock) -> None:
    thread = Thread(lambda: clock.wait(None))
    clock.stop()
    assert thread.result() is True
    assert clock.stopping
    assert clock.wait(1000.0) is True


def test_what_holds_is_found_even_after_the_stop(clock: Clock) -> None:
    clock.stop()
    condition = clock.condition()
    with condition:
        assert condition.wait_for(lambda: True)
        with pytest.raises(lpml.ProgramStopped):
            condition.wait_for(lambda: False, timeout=0)


def test_a_wait_ends_at_the_deadline_of_the_call(clock: Clock, served: Call) -> None:
    served.deadline = clock.time()
    condition = clock.condition()
    with condition, pytest.raises(lpml.CallTimeout):
        condition.wait_for(lambda: False)
    with pytest.raises(TimeoutError):
        clock.wait(1000.0)


@pytest.mark.parametrize("wake", [lambda clock: clock.wake(), lambda clock: clocks.wake_all()])
def test_a_wait_ends_when_the_caller_cancels(clock: Clock, wake: Callable[[Clock], None]) -> None:
    call, condition, entered = Call(None), clock.condition(), threading.Event()

    def wait() -> None:
        current_call.set(call)
        with condition:
            entered.set()
            condition.wait_for(lambda: False)

    thread = Thread(wait)
    assert entered.wait(10)
    call.cancel()
    wake(clock)
    with pytest.raises(lpml.CallCancelled):
        thread.result()


def test_cancelling_a_call_cancels_what_was_bounded_within_it(clock: Clock, served: Call) -> None:
    with lpml.deadline(100.0):
        served.cancel()
        with pytest.raises(lpml.CallCancelled):
            clock.check()


def test_what_remains_is_the_lesser_of_timeout_and_deadline(served: Call) -> None:
    clock = VirtualClock(10.0)
    assert clock.remaining() is None
    assert clock.remaining(3.0) == 3.0
    served.deadline = 12.0
    assert clock.remaining() == 2.0
    assert clock.remaining(1.0) == 1.0
    assert clock.remaining(5.0) == 2.0
    clock.advance(7.0)
    assert clock.remaining(5.0) == 0.0


def test_a_deadline_bounds_the_calls_in_its_block() -> None:
    with node(clock=VirtualClock()):
        assert clocks.call_timeout() == clocks.DEFAULT_CALL_TIMEOUT
        with lpml.deadline(5.0):
            assert clocks.call_timeout() == 5.0
        with lpml.deadline(None):
            assert clocks.call_timeout() is None
        assert clocks.call_timeout() == clocks.DEFAULT_CALL_TIMEOUT


def test_an_inner_deadline_never_extends_an_outer_one() -> None:
    with node(clock=VirtualClock()), lpml.deadline(5.0):
        with lpml.deadline(50.0):
            assert clocks.call_timeout() == 5.0
        with lpml.deadline(None):
            assert clocks.call_timeout() == 5.0
        with lpml.deadline(2.0):
            assert clocks.call_timeout() == 2.0


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_deadline_in_the_past_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="at least 0"), lpml.deadline(seconds):
        pass


def test_two_threads_may_stop_a_clock_while_each_holds_a_condition() -> None:
    clock, both = RealClock(), threading.Barrier(2)

    def stop() -> None:
        with clock.condition():
            both.wait(10)
            clock.stop()

    threads = [Thread(stop), Thread(stop)]
    for thread in threads:
        thread.result()


def test_the_clock_outside_any_node_is_the_machines() -> None:
    assert isinstance(clocks.current_clock(), RealClock)
    virtual = VirtualClock()
    with node(clock=virtual):
        assert clocks.current_clock() is virtual


def test_a_process_that_holds_one_node_is_that_node_in_every_thread() -> None:
    context = lpml.Context("worker/1", "worker", 1)
    clocks.set_process_scope(context)
    try:
        assert Thread(lpml.context).result() is context
    finally:
        clocks.set_process_scope(None)
    assert Thread(lpml.context).result() is not context
