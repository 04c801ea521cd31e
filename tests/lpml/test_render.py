"""`lpml render`: a run's policy becomes a GIF or a PNG strip, or the message says why not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from PIL import Image

import lpml
from lpml.agents import load_policy, make_environment, save_policy
from lpml.agents.builder import AbstractBuilder
from lpml.agents.dqn import DQNBuilder, DQNConfig
from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.agents.rendering import render
from lpml.agents.scenes import make_scene
from lpml.cli.main import main
from lpml.nodes.compiling import run_once
from lpml.programs.world_and_labels.program import WORLDS
from lpml.record.folder import RunFolder

DQN = DQNBuilder(DQNConfig(hidden_sizes=(4,)))
PPO = PPOBuilder(PPOConfig(hidden=(4,)))


class Corridor(gymnasium.Env[Any, Any]):
    """Three steps; draws itself, or is seen through a picture."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, **options: Any) -> None:
        self.render_mode = options.get("render_mode")
        self._seen = options.get("seen", False)
        box: Any = ((6, 8, 4), np.uint8) if self._seen else ((2,), np.float32)
        self.observation_space = gymnasium.spaces.Box(0, 255, *box)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self._steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return self._observe(), 1.0, self._steps == 3, False, {}

    def render(self) -> Any:
        return np.full((10, 12, 3), 20 * self._steps, np.uint8)

    def _observe(self) -> Any:
        space = self.observation_space
        return np.full(space.shape or (), (40 if self._seen else 1) * self._steps, space.dtype)


gymnasium.register("Corridor-v0", Corridor)
gymnasium.register("Seen-v0", Corridor, kwargs={"seen": True})


def leave(folder: Path, env: str, builder: AbstractBuilder = DQN) -> Path:
    """A policy that has learned nothing, as a run leaves it."""
    environment = make_environment(env, 1)
    spec = environment.spec
    environment.close()
    algorithm = builder.algorithm(spec)
    params = run_once(lambda key: algorithm.variables(algorithm.init(key)), jax.random.key(0))
    return save_policy(folder / "policy", builder, spec, params)


def frames(path: Path) -> list[np.ndarray[Any, Any]]:
    with Image.open(path) as picture:
        count = getattr(picture, "n_frames", 1)
        found = []
        for number in range(count):
            picture.seek(number)
            found.append(np.asarray(picture.convert("RGB")))
    return found


def duration(path: Path) -> int:
    """Milliseconds; frames that are the same are one that is shown longer."""
    total = 0
    with Image.open(path) as picture:
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            total += int(picture.info["duration"])
    return total


@pytest.mark.parametrize(
    ("env", "size", "builder"),
    [
        ("jax/Catch", (201, 101), DQN),
        ("Catch", (201, 101), DQN),
        ("CartPole-v1", (200, 300), DQN),
        ("jax/GridWorld", (145, 145), DQN),
        ("jax/Pendulum-v1", (200, 200), PPO),
        ("Corridor-v0", (10, 12), DQN),
        ("Seen-v0", (120, 160), DQN),
    ],
)
def test_every_step_of_an_episode_becomes_a_frame(
    tmp_path: Path, env: str, size: tuple[int, int], builder: AbstractBuilder
) -> None:
    policy = load_policy(leave(tmp_path, env, builder))
    made = render(policy, tmp_path / "policy.gif", max_steps=20, seed=3)
    shown = frames(made.file)
    assert duration(made.file) == 30 * (made.steps[0] + 1) > 100
    assert {frame.shape for frame in shown} == {(*size, 3)}
    assert any((frame != shown[0]).any() for frame in shown[1:])


def test_a_world_in_snow_is_drawn_beside_what_the_agent_sees_of_it(tmp_path: Path) -> None:
    shown = {}
    for world in ("snowy/Catch", "snowy/GridWorld"):
        (folder := tmp_path / world).mkdir(parents=True)
        policy = load_policy(leave(folder, WORLDS[world], DQN))
        made = render(policy, folder / "policy.png", max_steps=3, seed=3)
        shown[world] = *frames(made.file)[0].shape, made.steps[0]
    height, width, _, steps = shown["snowy/Catch"]
    assert (height, width) == (201, (steps + 1) * (2 * 101 + 20) + steps * 4)
    height, width, _, steps = shown["snowy/GridWorld"]
    assert (height, width) == (145, (steps + 1) * (3 * 145 + 2 * 24) + steps * 4)
    scene = make_scene(WORLDS["snowy/Catch"])
    seen = scene.reset(3)
    first = scene.draw()
    plain = make_scene("jax/Catch")
    plain.reset(3)
    np.testing.assert_array_equal(first[:, :101], plain.draw())
    middles = first[10:200:20, 101 + 20 + 10 :: 20, 0]  # of the cells
    np.testing.assert_array_equal(middles == middles.min(), seen == 1)
    assert len(np.unique(middles)) > 20, "snow is as grey as it is bright"


def test_a_strip_has_a_row_for_each_episode_and_the_seed_decides(tmp_path: Path) -> None:
    policy = load_policy(leave(tmp_path, "jax/Catch"))
    made = [
        render(policy, tmp_path / f"{number}.png", episodes=2, seed=seed)
        for number, seed in enumerate((1, 1, 7))
    ]
    first, same, other = (frames(rendering.file)[0] for rendering in made)
    assert first.shape == (2 * 201 + 4, 8 * 101 + 7 * 4, 3)
    assert (made[0].steps, made[0].environment) == ((9, 9), "jax/Catch")
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    second = render(policy, tmp_path / "second.png", seed=2)
    np.testing.assert_array_equal(frames(second.file)[0], first[205:])  # the seed of the second


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create("anakin", tmp_path)
    folder.program_json.write_text("{}")
    leave(folder.path, "jax/Catch")
    return folder


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["render", *arguments])
    return int(caught.value.code or 0)


def test_the_verb_writes_into_the_run_folder_and_says_how_it_went(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = str(run.path.parent)
    assert command("latest", "--directory", directory) == 0
    assert duration(run.path / "policy.gif") == 300
    text = capsys.readouterr().out
    assert "episode 0 of jax/Catch: return" in text
    assert str(run.path / "policy.gif") in text
    out = run.path / "strip.png"
    assert command("anakin", "--out", str(out), "--directory", directory, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["file"], made["steps"], out.is_file()) == (str(out), [9], True)


def test_the_best_policy_is_shown_unless_the_last_one_is_asked_for(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    os.rename(leave(run.path / "other", "jax/GridWorld"), run.path / "best")

    def shown(*options: str) -> str:
        assert command("latest", "--directory", str(run.path.parent), "--json", *options) == 0
        made = json.loads(capsys.readouterr().out)
        return f"{made['environment']} {Path(made['policy']).name}"

    assert (shown(), shown("--last")) == ("jax/GridWorld best", "jax/Catch policy")


def test_what_is_missing_is_named(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = "--directory", str(run.path.parent)

    def said(code: int, *arguments: str) -> str:
        assert command(*arguments, *directory) == code
        return capsys.readouterr().err

    assert f"did you mean {run.name!r}" in said(2, run.name[:-1] + "x")
    assert "end in .gif" in said(2, "latest", "-o", "movie.mp4")
    assert "trained in 'jax/Catch'" in said(2, "latest", "--env", "CartPole-v1")
    assert "did you mean" in said(2, "latest", "--env", "jax/Cach")
    assert "no way to draw it" in said(2, "latest", "--env", "tests.agents.tiny:host_catch")
    assert "there is no folder /nowhere/at; make it" in said(2, "latest", "-o", "/nowhere/at/a.gif")
    (run.path / "taken.gif").mkdir()
    taken = said(1, "latest", "-o", str(run.path / "taken.gif"))
    assert "taken.gif cannot be written: Is a directory" in taken
    assert "LPML_RUNS" not in taken
    empty = RunFolder.create("digits", run.path.parent)
    empty.program_json.write_text("{}")
    assert "no saved policy" in said(2, "digits")
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "pip install 'lpml[render]'" in said(1, "anakin")


def test_numbers_below_one_are_refused(tmp_path: Path) -> None:
    policy = load_policy(leave(tmp_path, "jax/Catch"))
    with pytest.raises(lpml.UsageError, match="episodes=0"):
        render(policy, tmp_path / "x.gif", episodes=0)
