"""Atari games of the Arcade Learning Environment, many at once; the one file that imports ale_py.

References: Mnih et al., "Human-level control through deep reinforcement learning" (2015); Machado
et al., "Revisiting the Arcade Learning Environment" (2018), section 5 (sticky actions).
"""

from __future__ import annotations

import ale_py  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401

from lpml.agents.gym import make_gym
from lpml.nodes.environment import AbstractEnvironment


def make_atari(name: str, num_envs: int = 1, seed: int | None = 0) -> AbstractEnvironment:
    """E games with the usual preprocessing, stepped in threads of C++.

    An action is for 4 frames; an observation is the last 4 of those that it led to, grey, each the
    maximum of two, `[84, 84, 4]` of bytes. An episode begins with up to 30 frames without an
    action, ends with the game, and is cut off after half an hour of play. Rewards are the game's.

    Args:
      name: such as `ALE/Pong-v5` (an action is repeated with probability 0.25) or `ALE/Pong`,
        which is that.
      num_envs: E.
      seed: of the first reset.

    Raises:
      UsageError: there is no such game.
    """
    game = name.partition("/")[2]
    name = f"ALE/{game}" if "-v" in game else f"ALE/{game}-v5"
    options = {"reward_clipping": False, "use_fire_reset": False}
    return make_gym(name, num_envs, seed, vectorisation="native", frames_last=True, options=options)
