"""Shared memory: whose segment is whose, reuse, release, and lies about it."""

from __future__ import annotations

import gc
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpml.errors import ProtocolError
from lpml.wire import memory, segments
from lpml.wire.book import Book, rounded
from lpml.wire.codec import Encoded, encode
from lpml.wire.frames import FOREVER, REPLY, Decoder
from lpml.wire.messages import PRIVATE, Table
from lpml.wire.parcel import Content, Packed, opened, pack
from lpml.wire.segments import Receiver, Sender

pytestmark = pytest.mark.skipif(not memory.supported, reason="no memfd on this system")


@given(st.integers(1, 1 << 40))
def test_sizes_are_rounded_up_by_an_eighth_at_most(size: int) -> None:
    assert size <= rounded(size) <= size * 1.125 + 4096  # whole pages
    assert rounded(rounded(size)) == rounded(size)


def test_a_segment_is_reused_when_it_came_back_and_not_before() -> None:
    book = Book()
    first, new = book.take(1 << 20)
    assert new
    second, new = book.take(1 << 20)
    assert new
    assert second != first
    assert book.give_back(first) == []
    assert book.take(1 << 20) == (first, False)
    book.close()


def test_a_much_larger_segment_is_not_spent_on_a_small_message() -> None:
    book = Book()
    large, _ = book.take(1 << 24)
    book.give_back(large)
    small, new = book.take(1 << 18)
    assert new
    assert small != large
    book.close()


def test_what_was_not_lent_cannot_be_given_back() -> None:
    book = Book()
    with pytest.raises(ProtocolError, match="had not been lent"):
        book.give_back(7)
    segment, _ = book.take(1)
    book.give_back(segment)
    with pytest.raises(ProtocolError, match="had not been lent"):
        book.give_back(segment)
    book.close()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 1 << 30)), max_size=60))
def test_no_segment_is_lent_twice_and_the_free_ones_are_bounded(
    steps: list[tuple[int, int]],
) -> None:
    before, book = Book.kept, Book()
    lent: list[int] = []
    for what, size in steps:
        if what and lent:
            dropped = book.give_back(lent.pop(size % len(lent)))
            assert not set(dropped) & set(lent)
        else:
            segment, _ = book.take(size)
            assert segment not in lent
            assert book.capacity[segment] >= size
            lent.append(segment)
        assert Book.kept - before <= 5 << 30
    book.close()
    assert Book.kept == before


def arrive(message: bytes | Packed, receiver: Receiver) -> Content:
    assert isinstance(message, Packed)
    receiver.files.extend(message.files)
    (frame,) = Decoder().feed(bytes(message.data))
    content = opened(frame[1], frame[5], 0, receiver)
    assert isinstance(content, Content)
    return content


def send(value: object, sender: Sender) -> bytes | Packed:
    return pack((REPLY, 0, 0, 1, FOREVER), b"", encode(value), sender)


def test_memory_is_given_back_when_the_last_array_is_gone() -> None:
    released: list[int] = []
    sender, receiver = Sender(lambda _: None), Receiver(released.append)
    content = arrive(send([np.zeros(1 << 17), np.ones(5)], sender), receiver)
    arrays = content.value()
    del content
    row = arrays[0][3:5]
    del arrays
    gc.collect()
    assert released == []
    del row
    gc.collect()
    assert len(released) == 1
    sender.given_back(released.pop())
    again = send([np.zeros(1 << 17), np.ones(5)], sender)
    assert isinstance(again, Packed)
    assert again.files == ()  # the receiver has the segment mapped
    np.testing.assert_array_equal(arrive(again, receiver).value()[1], np.ones(5))
    sender.close()
    receiver.close()


def test_a_message_that_nobody_unpickles_gives_its_memory_back() -> None:
    released: list[int] = []
    sender, receiver = Sender(lambda _: None), Receiver(released.append)
    content = arrive(send(np.zeros(1 << 17), sender), receiver)
    del content
    gc.collect()
    assert len(released) == 1


def test_arrays_outlive_their_connection() -> None:
    sender, receiver = Sender(lambda _: None), Receiver(lambda _: None)
    array = arrive(send(np.arange(1 << 17), sender), receiver).value()
    sender.close()
    receiver.close()
    del sender, receiver
    gc.collect()
    assert array.sum() == np.arange(1 << 17).sum()


def test_beyond_so_many_mappings_arrays_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_MAPPED", 2)
    released: list[int] = []
    sender, receiver = Sender(lambda _: None), Receiver(released.append)
    held = [arrive(send(np.full(1 << 17, n), sender), receiver).value() for n in range(4)]
    assert len(released) == 2
    assert [array[0] for array in held] == [0, 1, 2, 3]


def test_a_segment_that_was_not_announced_is_refused() -> None:
    receiver = Receiver(lambda _: None)
    with pytest.raises(ProtocolError, match="not ours to read"):
        receiver.find(Table(1, False, 5, 4096, [10]))


def test_a_descriptor_that_did_not_come_is_an_error_with_a_remedy() -> None:
    receiver = Receiver(lambda _: None)
    with pytest.raises(ProtocolError, match="ulimit"):
        receiver.find(Table(1, True, 5, 4096, [10]))


def test_a_file_smaller_than_announced_is_refused_rather_than_mapped() -> None:
    receiver = Receiver(lambda _: None)
    for place in (1, PRIVATE):
        receiver.files.append(memory.create(100))
        with pytest.raises(ProtocolError, match="announced as one of 8192"):
            receiver.find(Table(place, True, 5, 8192, [10]))


def test_what_is_no_memory_is_refused() -> None:
    receiver = Receiver(lambda _: None)
    read, write = os.pipe()
    os.close(write)
    receiver.files.append(memory.File(read))
    with pytest.raises(ProtocolError):
        receiver.find(Table(1, True, 5, 8192, [10]))


def test_messages_below_the_limit_go_inline() -> None:
    sender = Sender(lambda _: None)
    message = pack((REPLY, 0, 0, 1, FOREVER), b"", encode(np.ones(100)), sender)
    assert isinstance(message, bytes)
    assert isinstance(encode(np.ones(100)), Encoded)


def reserve(sender: Sender, fill: int) -> Any:
    memory = np.frombuffer(sender.reserve(1 << 20), np.uint8)
    memory[:] = fill
    return memory


def test_a_result_that_was_made_in_its_segment_is_not_copied() -> None:
    released: list[int] = []
    sender, receiver = Sender(lambda _: None), Receiver(released.append)
    made = reserve(sender, 7)
    arrived = arrive(send({"made": made}, sender), receiver).value()["made"]
    np.testing.assert_array_equal(arrived, made)
    made[0] = 8  # the very same memory
    assert arrived[0] == 8
    del arrived
    gc.collect()
    (segment,) = released
    sender.given_back(segment)
    other = reserve(sender, 9)
    assert made[0] == 8  # kept here, so its segment was not used again
    del made
    again = reserve(sender, 10)
    message = send(again, sender)
    assert isinstance(message, Packed)
    assert message.segment == segment
    np.testing.assert_array_equal(arrive(message, receiver).value(), again)
    assert (other == 9).all()
    sender.close()
    receiver.close()


def test_memory_that_was_reserved_in_vain_is_used_again() -> None:
    sender, receiver = Sender(lambda _: None), Receiver(lambda _: None)
    arrived = []
    for fill in range(4):
        reserve(sender, fill)
        made = reserve(sender, 10 + fill)
        both = arrive(send([made, np.full(1 << 20, 20 + fill, np.uint8)], sender), receiver)
        arrived.append(both.value())  # two buffers: copied
        del made
    for fill, (first, second) in enumerate(arrived):
        assert (first == 10 + fill).all()
        assert (second == 20 + fill).all()
    reserve(sender, 0)
    assert len(sender._reserved) <= 1
    sender.close()
    receiver.close()
