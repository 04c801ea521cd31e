"""The names of Launchpad, Courier and Reverb on this runtime. None yet."""

if __name__ != "lpml.compat":
    raise ImportError("import lpml.compat, not compat")
