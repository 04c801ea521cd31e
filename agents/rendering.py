"""Pictures of a policy: it plays episodes, and they are written as a GIF or a PNG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from lpml.agents import pictures
from lpml.agents.jax_environments.drawing import Picture
from lpml.agents.policies import SavedPolicy
from lpml.agents.saved import load_policy
from lpml.agents.scenes import AbstractScene, make_scene
from lpml.errors import UsageError


@dataclass(frozen=True)
class Rendering:
    """What `render` made."""

    file: Path
    environment: str
    returns: tuple[float, ...]
    """Of each episode, undiscounted."""
    steps: tuple[int, ...]
    """Of each; as many as were allowed where it had not ended by then."""


def render(
    policy: SavedPolicy,
    out: Path | str,
    *,
    env: str = "",
    episodes: int = 1,
    seed: int = 0,
    frames_per_second: float = 30.0,
    max_steps: int = 2000,
) -> Rendering:
    """Plays episodes and writes what they look like.

    Args:
      policy: as `load_policy` returns it.
      out: a file that ends in .gif: all frames, or in .png: eight of each episode in a row.
      env: an environment by name; "" = that of the policy.
      episodes: how many.
      seed: of the first episode; the next has the next one.
      frames_per_second: of a GIF.
      max_steps: of an episode that does not end by itself.

    Raises:
      UsageError: a number is out of range, the environment cannot be drawn, or does not fit the
        policy.
      LaunchError: Pillow is missing, or the file cannot be written.
    """
    path = Path(out)
    if episodes < 1 or max_steps < 1 or not frames_per_second > 0:
        raise UsageError(
            f"render(episodes={episodes}, max_steps={max_steps}, "
            f"frames_per_second={frames_per_second}): give numbers above 0"
        )
    pictures.check_format(path)
    name = env or policy.spec.name
    if not name:
        raise UsageError("render: the policy does not know its environment's name; give it as env")
    scene = make_scene(name)
    try:
        _check(policy, scene, name)
        played = [_play(policy, scene, seed + number, max_steps) for number in range(episodes)]
    finally:
        scene.close()
    pictures.save(path, [frames for frames, _ in played], frames_per_second)
    returns = tuple(total for _, total in played)
    return Rendering(path, name, returns, tuple(len(frames) - 1 for frames, _ in played))


def render_run(
    folder: Path, out: Path | None, *, last: bool = False, **options: Any
) -> dict[str, Any]:
    """`lpml render`: the policy that a run has left, in its environment.

    Args:
      folder: of the run.
      out: as in `render`; `None` = `policy.gif` in the folder.
      last: the policy as it was at the end, even if there is the best one that was evaluated.
      options: of `render`.

    Returns:
      What was made, as plain data.
    """
    has_best = (folder / "best" / "policy.json").is_file()
    source = folder / ("best" if has_best and not last else "policy")
    made = render(load_policy(source), out or folder / "policy.gif", **options)
    return {
        "policy": str(source),
        "file": str(made.file),
        "environment": made.environment,
        "returns": list(made.returns),
        "steps": list(made.steps),
    }


def _check(policy: SavedPolicy, scene: AbstractScene, name: str) -> None:
    """Raises UsageError where shapes or actions of the scene are not the policy's."""
    mine, theirs = policy.spec, scene.spec
    shapes = [
        [leaf.shape for leaf in jax.tree.leaves(spec.observation)] + [spec.action.shape]
        for spec in (mine, theirs)
    ]
    if shapes[0] != shapes[1] or mine.num_actions != theirs.num_actions:
        raise UsageError(
            f"environment {name!r} has observations and actions {shapes[1]} ({theirs.num_actions} "
            f"actions), the policy was trained in {mine.name!r} for {shapes[0]} "
            f"({mine.num_actions}); give an environment like that"
        )


def _play(
    policy: SavedPolicy, scene: AbstractScene, seed: int, max_steps: int
) -> tuple[list[Picture], float]:
    """The frames of one episode, and its return."""
    policy.reset()
    observation = scene.reset(seed)
    frames, total = [scene.draw()], 0.0
    for _ in range(max_steps):
        outcome = scene.step(policy(observation))
        observation, total = outcome.observation, total + outcome.reward
        frames.append(scene.draw())
        if outcome.last:
            break
    return frames, total
