"""Every launcher, one row each: what is listed here goes through every general test."""

from __future__ import annotations

LAUNCHERS = ("local_mt", "local_mp", "test")
