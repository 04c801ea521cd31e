"""The frame decoder: whole, cut, chunked, wrong and random input; no I/O."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpml.errors import ProtocolError
from lpml.wire import frames
from lpml.wire.frames import CALL, CHUNK, REPLY, Decoder, Frame
from lpml.wire.messages import INLINE, POOLED, Table, end_of, offsets, read_table

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


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
@pytest.mark.parametrize("piece", [1 << 16, 700_001])
def test_a_long_message_is_chunked_and_put_together(size: int, piece: int) -> None:
    payload = bytes(range(251)) * (size // 251 + 1)
    views = [memoryview(b"name"), memoryview(payload)[:size]]
    data = b"".join(frames.chunked((CALL, 4, 4, 9, 1.5), views))
    decoder, found = Decoder(), []
    for at in range(0, len(data), piece):
        found += feed(decoder, data[at : at + piece])
    ((kind, flags, extra, call, seconds, got),) = found
    assert (kind, flags, extra, call, seconds) == (CALL, 4, 4, 9, 1.5)
    assert bytes(got) == b"name" + payload[:size]


def test_chunks_of_two_messages_may_be_mixed() -> None:
    decoder = Decoder()
    first = frames.header(2, REPLY, frames.MORE, call=1) + b"ab"
    second = frames.header(2, REPLY, frames.MORE, call=2) + b"xy"
    assert decoder.feed(first + second) == []
    found = decoder.feed(one(REPLY, 0, 2, b"z") + one(REPLY, 0, 1, b"c"))
    assert [(f[3], bytes(f[5])) for f in found] == [(2, b"xyz"), (1, b"abc")]


@given(st.binary(max_size=400))
def test_random_bytes_are_frames_or_an_error_and_never_anything_else(data: bytes) -> None:
    decoder = Decoder()
    try:
        feed(decoder, data)
        decoder.close()
    except ProtocolError:
        pass


def test_an_oversized_frame_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        Decoder().feed(frames.header(CHUNK + 1, CALL))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ProtocolError, match="kind 99"):
        Decoder().feed(frames.header(0, 99))


def test_an_end_within_a_message_is_an_error() -> None:
    for cut in (one(CALL, 0, 1, b"abc")[:-1], frames.header(0, CALL, frames.MORE)):
        decoder = Decoder()
        decoder.feed(cut)
        with pytest.raises(ProtocolError, match="in the middle"):
            decoder.close()


def test_a_peer_cannot_begin_messages_without_end() -> None:
    beginnings = [frames.header(0, CALL, frames.MORE, call=call) for call in range(10_000)]
    with pytest.raises(ProtocolError, match="begun and not ended"):
        Decoder().feed(b"".join(beginnings))


def test_the_short_way_takes_exactly_one_plain_frame() -> None:
    data = one(REPLY, 0, 7, b"abc")
    decoder = Decoder()
    head = decoder.single(memoryview(data), len(data))
    assert head is not None
    assert head[:5] == (3, REPLY, 0, 0, 7)
    for other in (data[:-1], data + b"x", frames.header(0, REPLY, frames.MORE), b"abc"):
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
    assert table.place != INLINE or sum(table.lengths) == len(data) - at


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_pieces_of_a_segment_are_aligned_and_apart(lengths: list[int]) -> None:
    at = 0
    for start, length in zip(offsets(lengths), lengths, strict=True):
        assert start % 64 == 0
        assert start >= at
        at = start + length
    assert at <= end_of(lengths)
