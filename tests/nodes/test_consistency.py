"""The state machines of the modes, without a server, without time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpml.nodes import Asynchronous, BoundedStaleness, Consistency, Synchronous
from lpml.nodes.consistency import AbstractRules
from lpml.nodes.membership import Membership


def joined(mode: Consistency, *workers: str) -> AbstractRules:
    rules = mode.rules()
    for worker in workers:
        rules.join(worker)
    return rules


def test_asynchronous_applies_every_gradient_and_lets_everyone_go_on() -> None:
    rules = joined(Asynchronous(), "a", "b")
    assert [rules.push("a", staleness) for staleness in (0, 9, 99)] == ["apply"] * 3
    assert rules.waits_for("a") == ()


def test_asynchronous_drops_what_is_staler_than_allowed() -> None:
    rules = joined(Asynchronous(max_staleness=2), "a")
    assert [rules.push("a", staleness) for staleness in (2, 3)] == ["apply", "drop"]


def test_a_synchronous_update_needs_every_member() -> None:
    rules = joined(Synchronous(2), "a", "b")
    assert rules.push("a", 0) == "hold"
    assert not rules.complete()
    assert rules.waits_for("a") == ("b",)
    assert rules.waits_for("b") == ()
    assert rules.push("b", 0) == "hold"
    assert rules.complete()
    rules.close()
    assert rules.waits_for("a") == ()


def test_the_first_synchronous_update_waits_for_the_last_worker_to_come() -> None:
    rules = joined(Synchronous(2), "a")
    rules.push("a", 0)
    assert not rules.complete()
    assert rules.waits_for("a") == ("a worker that has not come yet",)


def test_a_synchronous_update_takes_a_gradient_once() -> None:
    rules = joined(Synchronous(2), "a", "b")
    assert [rules.push("a", 0), rules.push("a", 0)] == ["hold", "drop"]


def test_an_update_does_not_wait_for_the_backup_workers_and_drops_what_comes_late() -> None:
    rules = joined(Synchronous(3, backup_workers=1), "a", "b", "slow")
    rules.push("a", 0)
    rules.push("b", 0)
    assert rules.complete()
    rules.close()
    assert rules.push("slow", 1) == "drop"
    assert rules.waits_for("slow") == ()


def test_nobody_waits_for_a_worker_that_left_a_synchronous_round() -> None:
    rules = joined(Synchronous(3), "a", "b", "gone")
    rules.push("a", 0)
    rules.push("b", 0)
    assert not rules.complete()
    rules.leave("gone")
    assert rules.complete()


def test_who_pushed_before_leaving_does_not_stand_in_for_another() -> None:
    rules = joined(Synchronous(3), "a", "b", "c")
    rules.push("a", 0)
    rules.leave("a")
    rules.push("b", 0)
    assert rules.waits_for("b") == ("c",)
    assert not rules.complete()


def test_a_late_joiner_is_waited_for_from_the_next_version_on() -> None:
    rules = joined(Synchronous(2), "a", "b", "late")
    rules.push("a", 0)
    rules.push("b", 0)
    assert rules.complete()
    rules.close()
    rules.push("a", 0)
    rules.push("b", 0)
    assert rules.waits_for("a") == ("late",)


def test_when_all_have_left_a_newcomer_trains_alone() -> None:
    rules = joined(Synchronous(2, backup_workers=1), "a", "b")
    rules.leave("a")
    rules.leave("b")
    assert not rules.complete()
    rules.join("new")
    rules.push("new", 0)
    assert rules.complete()


def test_a_fast_worker_runs_ahead_only_by_the_bound() -> None:
    rules = joined(BoundedStaleness(2), "fast", "slow")
    for _ in range(2):
        assert rules.push("fast", 0) == "apply"
        assert rules.waits_for("fast") == ()
    rules.push("fast", 0)
    assert rules.waits_for("fast") == ("slow",)
    rules.push("slow", 3)
    assert rules.waits_for("fast") == ()


def test_a_late_joiner_of_bounded_staleness_begins_with_the_slowest() -> None:
    rules = joined(BoundedStaleness(1), "a", "b")
    for _ in range(5):
        rules.push("a", 0)
        rules.push("b", 0)
    rules.join("late")
    assert rules.waits_for("a") == ()
    rules.push("a", 0)
    rules.push("a", 0)
    assert rules.waits_for("a") == ("b", "late")
    rules.leave("b")
    assert rules.waits_for("a") == ("late",)


@given(
    bound=st.integers(0, 3),
    order=st.lists(st.sampled_from(["a", "b", "c"]), max_size=60),
)
def test_bounded_staleness_holds_in_any_order(bound: int, order: list[str]) -> None:
    rules = joined(BoundedStaleness(bound), "a", "b", "c")
    counts = dict.fromkeys("abc", 0)
    for worker in order:
        if not rules.waits_for(worker):
            rules.push(worker, 0)
            counts[worker] += 1
        assert max(counts.values()) - min(counts.values()) <= bound + 1
        assert any(not rules.waits_for(name) for name in counts)  # somebody can always go on


def test_modes_refuse_numbers_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="max_staleness=-1"):
        Asynchronous(max_staleness=-1)
    with pytest.raises(ValueError, match="num_workers=0"):
        Synchronous(0)
    with pytest.raises(ValueError, match="backup_workers=2 of num_workers=2"):
        Synchronous(2, backup_workers=2)
    with pytest.raises(ValueError, match="bound=-1"):
        BoundedStaleness(-1)


def test_a_silent_member_leaves_when_its_lease_passes_unless_it_waits() -> None:
    members = Membership(Asynchronous().rules(), lease=10.0)
    members.heard("silent", 0.0)
    members.heard("patient", 0.0)
    with members.waiting("patient", lambda: 30.0):
        assert not members.expire(9.0)
        assert members.until_next_expiry(9.0) == 1.0
        assert members.expire(10.0) == ("silent",)
        assert members.present == ("patient",)
        assert members.departed == ("silent",)
        assert members.until_next_expiry(10.0) == 10.0
    assert not members.expire(39.0)
    members.heard("silent", 39.0)
    assert not members.departed
    assert members.expire(40.0) == ("patient",)


def test_without_a_lease_nobody_is_given_up() -> None:
    members = Membership(Asynchronous().rules(), lease=None)
    members.heard("a", 0.0)
    assert members.expire(1e9) == ()
    assert members.until_next_expiry(0.0) is None
