"""Agents, each a folder of config, networks, losses, learner and builder."""

if __name__ != "lpml.agents":
    raise ImportError("import lpml.agents, not agents")

from lpml.agents.builder import AbstractBuilder as AbstractBuilder
from lpml.agents.builder import Batches as Batches
from lpml.agents.environments import make_environment as make_environment
from lpml.agents.loop import Result as Result
from lpml.agents.loop import train as train
from lpml.agents.policies import SavedPolicy as SavedPolicy
from lpml.agents.saved import load_policy as load_policy
from lpml.agents.saved import save_policy as save_policy
