"""How much memory a family of processes uses, each shared page counted once."""

from __future__ import annotations

import psutil


def descendants_pss(ancestor: int, without: int = 0) -> int:
    """Proportional set size, in bytes, of all descendants of a process but one."""
    total = 0
    for process in psutil.Process(ancestor).children(recursive=True):
        if process.pid != without:
            total += pss(process.pid)
    return total


def pss(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
