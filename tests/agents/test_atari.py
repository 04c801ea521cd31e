"""Atari: the frames are those of gymnasium's own preprocessing."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import numpy as np
import pytest

from lpml.agents import make_environment
from lpml.errors import UsageError

pytest.importorskip("ale_py", reason="needs ale-py: pip install 'lpml[atari]'")


def test_games_have_84_by_84_frames_with_their_channels_last() -> None:
    environment = make_environment("ale/Pong", 2, 1)
    assert environment.spec.name == "ALE/Pong-v5"
    assert environment.spec.num_actions == 6
    assert environment.spec.observation == jax.ShapeDtypeStruct((84, 84, 4), np.dtype(np.uint8))
    frames = environment.reset()
    step = environment.step(np.zeros(2, np.int32))
    assert step.observation.shape == frames.shape == (2, 84, 84, 4)
    assert (step.observation[..., :3] == frames[..., 1:]).all()
    assert step.valid.all()
    environment.close()


def test_a_game_that_is_lost_ends_for_good_and_begins_in_a_step_of_its_own() -> None:
    environment = make_environment("ALE/Pong-v5", 2, 1)
    environment.reset()
    total = np.zeros(2)
    step = environment.step(np.zeros(2, np.int32))
    for _ in range(1500):
        step = environment.step(np.zeros(2, np.int32))
        total += step.reward
        if step.last.any():
            break
    lane = int(np.flatnonzero(step.last)[0])
    assert total[lane] <= -19  # rewards are the game's
    assert step.discount[lane] == 0
    after = environment.step(np.zeros(2, np.int32))
    assert after.begins[lane]
    assert not after.valid[lane]
    environment.close()


def test_a_seed_gives_the_same_game_again() -> None:
    def play(seed: int) -> Any:
        environment = make_environment("ALE/Breakout-v5", 2, seed)
        environment.reset()
        frames = [environment.step(np.ones(2, np.int32)).observation for _ in range(20)]
        environment.close()
        return np.stack(frames)

    assert (play(1) == play(1)).all()
    assert not (play(1) == play(2)).all()


def test_frames_are_those_of_gymnasiums_preprocessing() -> None:
    pytest.importorskip("cv2", reason="gymnasium's preprocessing needs opencv-python")
    from lpml.agents.gym import make_gym

    options = {"noop_max": 0, "use_fire_reset": False, "repeat_action_probability": 0.0}
    ours = make_gym("ALE/Pong-v5", 1, 0, vectorisation="native", frames_last=True, options=options)
    single = gymnasium.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
    single = gymnasium.wrappers.AtariPreprocessing(single, noop_max=0)
    theirs = gymnasium.wrappers.FrameStackObservation(single, 4, padding_type="zero")
    ours.reset()
    theirs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        action = int(rng.integers(6))
        step = ours.step(np.array([action], np.int32))
        seen, reward, *_ = theirs.step(action)
        difference = step.observation[0].astype(int) - np.moveaxis(np.asarray(seen), 0, -1)
        assert np.abs(difference).max() <= 2  # they resize in different libraries
        assert step.reward[0] == reward
    ours.close()


def test_a_game_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'ALE/Pong-v5'"):
        make_environment("ale/Pung")
