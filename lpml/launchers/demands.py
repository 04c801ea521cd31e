"""What a program asks of a cluster, in Ray's words, and what a cluster can never give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from lpml.launchers.plan import NodePlan

SHARE = 0.001  # of a core, for what asks for none: Ray reserves nothing at all for nothing


@final
@dataclass(frozen=True)
class Unit:
    """A process, and what Ray is asked for."""

    process: str
    needs: Mapping[str, float]
    spreading: str
    scope: str


def units(nodes: Iterable[NodePlan], *, shared: bool = False) -> list[Unit]:
    """Processes with what their nodes need.

    Args:
      shared: cores and memory are not reserved: there is one machine, and it is ours.
    """
    processes: dict[str, list[NodePlan]] = defaultdict(list)
    for node in nodes:
        processes[node.process].append(node)
    found = []
    for process, members in processes.items():
        needs: dict[str, float] = defaultdict(float)
        for resources in (node.resources for node in members):
            needs["CPU"] += 0 if shared else resources.cpu
            needs["GPU"] += resources.gpu
            needs["memory"] += 0 if shared else resources.memory or 0
            for name, amount in resources.custom.items():
                needs[name] += amount
        asked = {name: amount for name, amount in needs.items() if amount}
        placement = members[0].placement
        found.append(Unit(process, asked or {"CPU": SHARE}, placement.spreading, placement.scope))
    return found


def groups(found: Iterable[Unit]) -> dict[str, list[Unit]]:
    """Those that are placed together."""
    scopes: dict[str, list[Unit]] = defaultdict(list)
    for unit in found:
        scopes[unit.scope].append(unit)
    return scopes


def together(amounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sum."""
    total: dict[str, float] = defaultdict(float)
    for each in amounts:
        for name, amount in each.items():
            total[name] += amount
    return total


def fits(needs: Mapping[str, float], host: Mapping[str, float]) -> bool:
    """Whether a host has as much of everything."""
    return all(host.get(name, 0.0) + 1e-6 >= amount for name, amount in needs.items())


def in_words(amounts: Mapping[str, float]) -> str:
    """`2 CPU, 1 GPU, 8.0 GiB`."""
    shown = {k: v for k, v in amounts.items() if ":" not in k and k != "object_store_memory"}
    memory = shown.pop("memory", 0.0)
    words = [f"{v:g} {k}" for k, v in sorted(shown.items())]
    return ", ".join([*words, *([f"{memory / 2**30:.1f} GiB"] if memory else [])]) or "nothing"


def refusals(asked: Sequence[Unit], hosts: Sequence[Mapping[str, float]]) -> list[str]:
    """What these hosts can never give, even if nobody else used them; one line each."""
    found = []
    for unit in asked:
        if not any(fits(unit.needs, host) for host in hosts):
            have = "; ".join(sorted({in_words(host) for host in hosts}))
            found.append(
                f"{unit.process}: asks for {in_words(unit.needs)}, and no host of the cluster "
                f"has that ({have}); lower its Resources or add a larger host"
            )
    total, there = together(unit.needs for unit in asked), together(hosts)
    if not found and not fits(total, there):
        found.append(
            f"the program asks for {in_words(total)} together, and the cluster has "
            f"{in_words(there)}; start fewer nodes, lower their Resources (cpu=0.5 shares a "
            "core), or add hosts"
        )
    for scope, members in groups(asked).items():
        spreading = members[0].spreading
        needs = together(unit.needs for unit in members)
        if spreading == "strict_spread" and len(members) > len(hosts):
            found.append(
                f"{scope}: placement='strict_spread' wants {len(members)} hosts, and the cluster "
                f"has {len(hosts)}; use 'spread'"
            )
        if spreading == "strict_pack" and not any(fits(needs, host) for host in hosts):
            found.append(
                f"{scope}: placement='strict_pack' wants {in_words(needs)} on one host, and none "
                "has that; use 'pack'"
            )
    return found
