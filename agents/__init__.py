"""Agents, each a folder of config, networks, losses, learner and builder. None yet."""

if __name__ != "lpml.agents":
    raise ImportError("import lpml.agents, not agents")
