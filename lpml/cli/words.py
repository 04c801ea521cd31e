"""Numbers in words, as short as they can be read."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """no faults, 1 node, 3 edges."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def number(value: float) -> str:
    """Four significant digits, large ones whole: 0.0123, 1.5, 12345."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """8.3 s, 2:05, 1:00:09."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def memory(size: int) -> str:
    """712 MiB, 3.1 GiB; "" for 0 (unknown)."""
    if not size:
        return ""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
