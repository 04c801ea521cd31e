"""The file of a journal: what was appended comes back, up to where its process was killed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lpml
from lpml.record.journal import Journal, highest, prune


def written(folder: Path, *records: bytes, since: int = 0) -> Path:
    """The file of a process that has appended these."""
    journal = opened(folder, since)
    for record in records:
        journal.append(record)
    journal.close()
    return folder / f"node-0.{since}"


def opened(folder: Path, since: int = 0) -> Journal:
    """The journal of a process that has begun."""
    journal = Journal(folder, "node-0")
    journal.begin(since, bytes)
    return journal


def redone(folder: Path, since: int = 0) -> list[bytes]:
    """What another process redoes."""
    journal, records = Journal(folder, "node-0"), list[bytes]()
    assert journal.begin(since, records.append) == len(records)
    journal.close()
    return records


@given(st.lists(st.binary(max_size=40), max_size=5), st.data())
def test_what_is_left_of_a_write_is_cut_off_and_all_before_it_is_there(
    records: list[bytes], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = written(Path(name), *records)
        ends = [sum(16 + len(r) for r in records[:count]) for count in range(len(records) + 1)]
        size = data.draw(st.integers(0, ends[-1]))
        os.truncate(path, size)
        whole = [r for r, end in zip(records, ends[1:], strict=True) if end <= size]
        assert redone(Path(name)) == whole  # and cuts off the rest
        written(Path(name), b"and on")
        assert redone(Path(name)) == [*whole, b"and on"]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=3), st.data())
def test_a_byte_that_changed_is_noticed(records: list[bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = written(Path(name), *records)
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        with pytest.raises(lpml.LaunchError, match="wrong checksum"):
            redone(Path(name))


def test_a_record_may_come_in_parts(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append([b"ab", memoryview(b"cd"), bytearray(b"e"), b""])
    journal.append([b"x"] * 5000)  # more than one writev takes
    journal.append([])
    with pytest.raises(TypeError):
        journal.append("text")  # type: ignore[arg-type]
    journal.close()
    assert redone(tmp_path) == [b"abcde", b"x" * 5000, b""]


def test_it_begins_anew_with_a_cut_and_all_since_an_older_cut_are_redone_in_order(
    tmp_path: Path,
) -> None:
    journal = opened(tmp_path)
    for number in range(1, 12):  # numbers, not names, have an order
        journal.append(b"before %d" % number)
        assert journal.turn(number, journal.written)
    journal.close()
    assert redone(tmp_path, 8) == [b"before 9", b"before 10", b"before 11"]
    assert redone(tmp_path, 11) == []
    assert highest(tmp_path) == 11
    prune(tmp_path, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node-0.10", "node-0.11"]


def test_it_does_not_begin_anew_with_a_state_that_lacks_a_record(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    before = journal.written
    journal.append(b"while the state was taken")
    assert not journal.turn(1, before)
    journal.append(b"after")
    journal.close()
    assert redone(tmp_path) == [b"while the state was taken", b"after"]


def test_what_lacks_its_beginning_or_a_middle_is_refused(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(b"a")
    journal.turn(1, 1)
    journal.append(b"b")
    journal.close()
    os.truncate(tmp_path / "node-0.0", 16)
    with pytest.raises(lpml.LaunchError, match=r"node-0\.0 is damaged: its last record is not"):
        redone(tmp_path)
    (tmp_path / "node-0.0").unlink()
    with pytest.raises(lpml.LaunchError, match="it is missing, and there are later ones"):
        redone(tmp_path)


def nothing_more(file: int, left: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_on_a_full_disk_nothing_of_a_record_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)
    journal.append(b"fits")
    write: Callable[..., int] = os.write

    def first_then_full(file: int, parts: list[bytes]) -> int:
        done = write(file, b"".join(parts)[:20])
        monkeypatch.setattr(os, "write", nothing_more)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", first_then_full)
        with pytest.raises(lpml.LaunchError, match=r"No space left on device; free some space"):
            journal.append(b"does not fit")
        patch.setattr(os, "write", write)
    assert journal.written == 1
    journal.append(b"fits, too")
    journal.close()
    assert redone(tmp_path) == [b"fits", b"fits, too"]


def test_a_write_that_was_short_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", lambda file, parts: os.write(file, b"".join(parts)[:7]))
        journal.append([b"in two", b" goes"])
    journal.close()
    assert redone(tmp_path) == [b"in two goes"]


def test_what_has_ended_journals_no_more(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.close()
    journal.close()
    with pytest.raises(lpml.NodeUnavailable, match="its node ended"):
        journal.append(b"late")
    assert redone(tmp_path) == []


def test_a_number_is_not_used_twice(tmp_path: Path) -> None:
    written(tmp_path, b"of a cut", since=3)
    journal = opened(tmp_path, 3)
    with pytest.raises(lpml.LaunchError, match="File exists"):
        journal.turn(3, 0)
    journal.append(b"goes on")
    journal.close()
    assert redone(tmp_path, 3) == [b"of a cut", b"goes on"]
