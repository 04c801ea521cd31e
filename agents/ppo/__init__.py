"""PPO."""

if __name__ != "lpml.agents.ppo":
    raise ImportError("import lpml.agents.ppo, not agents.ppo")

from lpml.agents.ppo.builder import PPOBuilder as PPOBuilder
from lpml.agents.ppo.config import PPOConfig as PPOConfig
from lpml.agents.ppo.config import recommended as recommended
