"""Prints what the verbs other than `run` have found, for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lpml.cli import views
from lpml.cli.words import count, duration, memory

if TYPE_CHECKING:
    from lpml.cli.programs import Prebuilt
    from lpml.launchers import Plan, RunStatus

NO_ANSWER = "no answer"
"""The reason in the status of a run that does not say how it is."""


def print_plan(plan: Plan) -> None:
    """One row per node, then the environments, each once."""
    from rich.markup import escape

    console = views.console()
    processes = len({node.process for node in plan.nodes})
    where = plan.launch
    if where == "ray":
        where = f"Ray at {plan.cluster}" if plan.cluster else "a Ray of its own"
    console.print(
        f"[bold]{escape(plan.program)}[/] on {where}: {count(len(plan.nodes), 'node')} "
        f"in {processes} process{'es' if processes != 1 else ''}"
    )
    console.print(
        views.table(
            ("node", "service", "main loop", "process", ">cpu", ">gpu", ">memory", "holds"),
            [
                (
                    escape(node.name),
                    escape(node.service),
                    "run()" if node.interface.has_run else "",
                    escape(node.process),
                    f"{node.resources.cpu:g}",
                    f"{node.resources.gpu:g}",
                    memory(node.resources.memory or 0),
                    escape(", ".join(f"{edge.parameter}={edge.target}" for edge in node.edges)),
                )
                for node in plan.nodes
            ],
        )
    )
    if plan.launch == "ray":
        _print_demands(plan)
    environments: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for node in plan.nodes:
        key = tuple(sorted(node.environment.items()))
        environments.setdefault(key, []).append(node.name)
    for variables, names in environments.items():
        if variables:
            console.print(f"\nenvironment of {escape(', '.join(names))}:")
            for name, value in variables:
                console.print(f"  {escape(name)}={escape(value)}")


def _print_demands(plan: Plan) -> None:
    """What Ray is asked for: one actor per process, one placement group per group."""
    from rich.markup import escape

    from lpml.launchers import demands

    units = demands.units(plan.nodes, shared=plan.cluster is None)
    console = views.console()
    console.print("\nasked of Ray:")
    for scope, members in demands.groups(units).items():
        actors = count(len(members), "actor")
        needs = {demands.in_words(unit.needs) for unit in members}
        console.print(
            f"  {escape(scope)}: {members[0].spreading} {actors}, {escape(' or '.join(needs))} each"
        )


def print_programs(programs: list[Prebuilt]) -> None:
    """The prebuilt programs."""
    from rich.markup import escape

    views.console().print(
        views.table(
            ("name", "package", "what it does"),
            [(escape(p.name), escape(p.package), escape(p.summary)) for p in programs],
        )
    )


def print_runs(statuses: list[RunStatus]) -> None:
    """One row per run."""
    from rich.markup import escape

    if not statuses:
        print("no runs")
        return
    views.console().print(
        views.table(
            ("run", "launch", "state", ">time", "nodes", ">calls", ">errors", "folder"),
            [
                (
                    escape(status.run),
                    status.launch,
                    _state(status),
                    duration(status.seconds),
                    _nodes(status),
                    str(sum(node.calls for node in status.nodes)),
                    str(sum(node.errors for node in status.nodes)),
                    escape(status.folder),
                )
                for status in statuses
            ],
        )
    )


def _state(status: RunStatus) -> str:
    state = views.coloured(status.state)
    return f"{state}, {NO_ANSWER}" if status.reason == NO_ANSWER else state


def _nodes(status: RunStatus) -> str:
    states = Counter(node.state for node in status.nodes)
    restarts = sum(node.restarts for node in status.nodes)
    parts = [f"{number} {state}" for state, number in states.most_common()]
    return ", ".join([*parts, *([count(restarts, "restart")] if restarts else [])])
