"""The command line: `lpml run`, `lpml check` and the other verbs."""
