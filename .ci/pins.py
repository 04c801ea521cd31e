"""Writes constraints.txt: one set of pins that resolves on every Python named on the command line.

    python .ci/pins.py python3.10 python3.11 python3.12 python3.13 > constraints.txt

Each interpreter is asked what pip would install for `.[dev,ray]`; where they differ, the pin
carries the Python versions that it is for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict

HEADER = """\
# The versions that lpml is developed and tested with, on each Python; written by .ci/pins.py.
# pip install -c constraints.txt -e '.[dev]'
"""


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """The interpreter's version, such as `3.12`, and what pip would install: {name: version}."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    minor = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True)
    pip = ["-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    report = subprocess.run(
        [python, *pip, "--report", "-", ".[dev,ray]"], check=True, stdout=subprocess.PIPE, text=True
    )
    found = [item["metadata"] for item in json.loads(report.stdout)["install"]]
    pins = {item["name"].lower().replace("_", "-"): item["version"] for item in found}
    del pins["lpml"]
    return minor.stdout.strip(), pins


def main(pythons: list[str]) -> None:
    pins: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    minors = []
    for python in pythons:
        minor, found = resolve(python)
        minors.append(minor)
        for name, version in found.items():
            pins[name][version].append(minor)
    print(HEADER, end="")
    for name in sorted(pins):
        for version, users in sorted(pins[name].items()):
            print(f"{name}=={version}{marker(users, minors)}")


def marker(users: list[str], minors: list[str]) -> str:
    """The condition under which a pin holds; newer Pythons than the newest are like it."""
    if users == minors:
        return ""
    first, last = minors.index(users[0]), minors.index(users[-1])
    bounds = [f"python_version >= '{users[0]}'"] if first > 0 else []
    if last < len(minors) - 1:
        bounds.append(f"python_version < '{minors[last + 1]}'")
    return "; " + " and ".join(bounds)


if __name__ == "__main__":
    main(sys.argv[1:])
