"""The frame decoder: whole, cut, long, wrong and random input; no I/O."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpml.errors import ProtocolError
from lpml.wire import frames
from lpml.wire.frames import CALL, LONG, REPLY, SHORT, Decoder, Frame
from lpml.wire.messages import (
    INLINE,
    POOLED,
    VIEWED,
    Table,
    end_of,
    inline_offsets,
    offsets,
    read_table,
)
from lpml.wire.parts import Parts

_STATM = Path("/proc/self/statm")
messages = st.lists(
    st.tuples(
        st.integers(1, 11),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.binary(max_size=200),
    ),
    max_size=8,
)


def one(kind: int, extra: int, call: int, payload: bytes) -> bytes:
    return frames.header(len(payload), kind, extra=extra, call=call) + payload


def whole(found: list[Frame]) -> list[tuple[int, int, int, bytes]]:
    return [(kind, extra, call, bytes(payload)) for kind, _, extra, call, _, payload in found]


def feed(decoder: Decoder, data: bytes) -> list[Frame]:
    """As a connection does: in place where the decoder says so."""
    found: list[Frame] = []
    while data:
        target = decoder.target()
        if target is None:
            return found + decoder.feed(memoryview(data))
        count = min(len(target), len(data))
        target[:count] = data[:count]
        found += decoder.filled(count)
        data = data[count:]
    return found


@given(messages, st.lists(st.integers(1, 50), min_size=1))
def test_frames_arrive_whole_however_they_are_cut(
    sent: list[tuple[int, int, int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(one(*message) for message in sent)
    decoder, found, at, turn = Decoder(), [], 0, 0
    while at < len(data):
        step = cuts[turn % len(cuts)]
        found += feed(decoder, data[at : at + step])
        at, turn = at + step, turn + 1
    assert whole(found) == sent
    decoder.close()


@pytest.mark.parametrize("size", [0, 1, SHORT - 1, SHORT, SHORT + 1, 6 * SHORT + 17])
@pytest.mark.parametrize("piece", [23, 1 << 16, 700_001])
def test_a_message_of_any_size_arrives_whole_and_others_behind_it(size: int, piece: int) -> None:
    payload = (bytes(range(251)) * (size // 251 + 1))[:size]
    data = frames.beginning(size, (CALL, 4, 4, 9, 1.5)) + payload + one(REPLY, 0, 7, b"next")
    decoder, found, at = Decoder(), [], 0
    while at < len(data):
        step = piece if at < 100 else max(piece, 1 << 16)
        found += feed(decoder, data[at : at + step])
        at += step
    (kind, flags, extra, call, seconds, got), following = found
    assert (kind, flags, extra, call, seconds) == (CALL, 4, 4, 9, 1.5)
    assert bytes(got) == payload
    assert whole([following]) == [(REPLY, 0, 7, b"next")]
    decoder.close()


def long(size: int) -> bytes:
    return frames.header(0, CALL, LONG) + size.to_bytes(8, "little")


@pytest.mark.skipif(not _STATM.exists(), reason="this system does not say what it uses")
def test_memory_for_a_long_message_is_taken_as_it_arrives() -> None:
    decoders = [Decoder() for _ in range(10)]
    before = used()
    for decoder in decoders:
        decoder.feed(long(1 << 30) + b"x" * 100)
        target = decoder.target()
        assert target is not None
        assert len(target) == (1 << 30) - 100
    assert used() - before < 64 << 20  # at most a huge page each


def used() -> int:
    """Bytes of memory that this process has."""
    pages = _STATM.read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("size", [1 << 50, (1 << 64) - 1])
def test_a_message_larger_than_the_machine_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match="cannot be received"):
        Decoder().feed(long(size))


@pytest.mark.parametrize("size", [0, 1, SHORT])
def test_a_short_message_must_not_pretend_to_be_long(size: int) -> None:
    with pytest.raises(ProtocolError, match="a long message"):
        Decoder().feed(long(size))


@given(st.binary(max_size=400))
def test_random_bytes_are_frames_or_an_error_and_never_anything_else(data: bytes) -> None:
    decoder = Decoder()
    try:
        feed(decoder, data)
        decoder.close()
    except ProtocolError:
        pass


@given(
    st.lists(
        st.tuples(
            st.sampled_from((0, 3, SHORT, SHORT + 1)),
            st.integers(0, 13),
            st.sampled_from((0, LONG, LONG | 2)),
            st.sampled_from((0, SHORT, SHORT + 1, 1 << 62)),
            st.binary(max_size=9),
        ),
        max_size=6,
    ),
    st.integers(1, 40),
)
def test_plausible_bytes_are_frames_or_an_error_however_they_are_cut(
    given_frames: list[tuple[int, int, int, int, bytes]], step: int
) -> None:
    data = b"".join(
        frames.header(size, kind, flags) + long.to_bytes(8, "little") * bool(flags) + rest
        for size, kind, flags, long, rest in given_frames
    )
    decoder = Decoder()
    with contextlib.suppress(ProtocolError):
        for at in range(0, len(data), step):
            for frame in feed(decoder, data[at : at + step]):
                assert not frame[2] & LONG
        decoder.close()


def test_an_oversized_frame_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        Decoder().feed(frames.header(SHORT + 1, CALL))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ProtocolError, match="kind 99"):
        Decoder().feed(frames.header(0, 99))


def test_an_end_within_a_message_is_an_error() -> None:
    for cut in (one(CALL, 0, 1, b"abc")[:-1], long(SHORT + 1), long(SHORT + 1)[:-3]):
        decoder = Decoder()
        decoder.feed(cut)
        with pytest.raises(ProtocolError, match="in the middle"):
            decoder.close()


def test_the_short_way_takes_exactly_one_plain_frame() -> None:
    data = one(REPLY, 0, 7, b"abc")
    decoder = Decoder()
    head = decoder.single(memoryview(data), len(data))
    assert head is not None
    assert head[:5] == (3, REPLY, 0, 0, 7)
    for other in (data[:-1], data + b"x", frames.header(0, REPLY, LONG), b"abc"):
        assert decoder.single(memoryview(other), len(other)) is None
    decoder.feed(data[:5])
    assert decoder.single(memoryview(data), len(data)) is None


def test_a_hello_says_who_speaks() -> None:
    (frame,) = Decoder().feed(frames.hello("worker/3"))
    assert frames.read_hello(frame) == "worker/3"


def test_a_hello_of_another_version_says_what_to_do() -> None:
    (frame,) = Decoder().feed(frames.header(4, frames.HELLO, extra=99) + frames.MAGIC)
    with pytest.raises(ProtocolError, match="one release of lpml"):
        frames.read_hello(frame)


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=20))
def test_a_table_is_read_as_it_was_packed(lengths: list[int]) -> None:
    table = Table(POOLED, True, 3, end_of(lengths), lengths, [(b"i" * 16, 5)])
    packed = b"name" + table.pack()
    read, at = read_table(packed, 4)
    assert at == len(packed)
    assert read == table._replace(lengths=tuple(lengths))


@given(st.binary(max_size=120))
def test_random_bytes_are_a_table_or_an_error(data: bytes) -> None:
    try:
        table, at = read_table(data, 0)
    except ProtocolError:
        return
    assert at <= len(data)
    assert table.place != INLINE or inline_offsets(at, table.lengths)[1] == len(data)


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_pieces_of_a_segment_are_aligned_and_apart(lengths: list[int]) -> None:
    at = 0
    for start, length in zip(offsets(lengths), lengths, strict=True):
        assert start % 64 == 0
        assert start >= at
        at = start + length
    assert at <= end_of(lengths)


@given(st.integers(0, 500), st.lists(st.integers(0, 2 * VIEWED), max_size=20))
def test_large_pieces_of_a_payload_are_aligned_and_none_overlap(
    start: int, lengths: list[int]
) -> None:
    found, end = inline_offsets(start, lengths)
    at = start
    for begin, length in zip(found, lengths, strict=True):
        assert at <= begin < at + 64
        assert begin % 64 == 0 if length >= VIEWED else begin == at
        at = begin + length
    assert at == end


class Pipe:
    """Takes so many bytes at a time, and then says that it is full."""

    def __init__(self, takes: list[int]) -> None:
        self.takes = takes
        self.got = b""

    def send(self, part: memoryview) -> int:
        take = self.takes.pop(0) if self.takes else len(part)
        if take == 0:
            raise BlockingIOError
        self.got += part[:take]
        return min(take, len(part))


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.booleans()), max_size=8),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 50)), max_size=20),
)
def test_parts_are_sent_in_order_and_what_is_kept_may_change(
    given_parts: list[tuple[bytes, bool]], turns: list[tuple[int, int]]
) -> None:
    memory = [bytearray(part) for part, _ in given_parts]
    lent = [is_lent for _, is_lent in given_parts]
    parts = Parts((memoryview(each), is_lent) for each, is_lent in zip(memory, lent, strict=True))
    expected = bytes(parts)
    pipe = Pipe([])
    for takes, keeps in turns:
        pipe.takes = [takes, 0]
        with contextlib.suppress(BlockingIOError):
            parts.send(pipe.send)
        parts.keep(keeps)
        assert pipe.got + bytes(parts) == expected
    parts.keep(1000)
    assert parts.lent == 0
    for each, is_lent in zip(memory, lent, strict=True):
        if is_lent:
            each[:] = bytes(len(each))
    pipe.takes = []
    parts.send(pipe.send)
    assert pipe.got == expected
    assert len(parts) == 0
