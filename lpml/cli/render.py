"""The verb `render`: a picture of the policy that a run has left."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lpml.cli.guard import verb
from lpml.cli.options import AnyRun, Directory, Json
from lpml.errors import LaunchError, UsageError

_RENDERER = "lpml.agents.rendering:render_run"  # the core knows no wing: a name, imported late


@verb
def render(
    run: AnyRun = "latest",
    env: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Another environment than the run's.", show_default=False
        ),
    ] = "",
    episodes: Annotated[int, typer.Option(min=1, help="How many are played.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            "-o",
            metavar="FILE",
            help="A .gif, or a .png with some frames side by side; else policy.gif in the run "
            "folder.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first episode.")] = 0,
    last: Annotated[
        bool,
        typer.Option(
            "--last", help="The policy as it was at the end, not the best that was evaluated."
        ),
    ] = False,
    fps: Annotated[float, typer.Option(min=1, max=50, help="Frames a second of a GIF.")] = 30.0,
    directory: Directory = None,
    json_: Json = False,
) -> None:
    """Let the policy of a run play, and write it as a GIF or a PNG."""
    from lpml.record.folder import RunFolder

    folder = RunFolder.find(run, directory)
    kept = ["policy"] if last else ["best", "policy"]
    if not any((folder.path / name / "policy.json").is_file() for name in kept):
        raise UsageError(
            f"{folder.name}: no saved policy in {folder.path}; a run of an agent (dqn, ppo, "
            "impala, anakin, sebulba, world_and_labels) leaves one, if its learner had begun"
        )
    made = _renderer()(
        folder.path, output, last=last, env=env, episodes=episodes, seed=seed, frames_per_second=fps
    )
    if json_:
        print(json.dumps(made))
        return
    for number, (total, steps) in enumerate(zip(made["returns"], made["steps"], strict=True)):
        print(f"episode {number} of {made['environment']}: return {total:.4g} in {steps} steps")
    print(made["file"])


def _renderer() -> Any:
    module, _, function = _RENDERER.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise LaunchError(
            f"lpml render needs {error.name}, which is not installed: pip install 'lpml[jax]'"
        ) from error
