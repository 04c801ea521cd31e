"""Two services that greet: the smallest program. The tutorial reads this file aloud."""

from __future__ import annotations

import lpml


class Greeter:
    """Makes greetings. A service is a plain class: its public methods are what others may call."""

    def __init__(self, greeting: str) -> None:
        self._greeting = greeting
        self._count = 0

    def greet(self, name: str) -> str:
        """One greeting."""
        self._count += 1
        return f"{self._greeting}, {name}! (greeting number {self._count})"


class Guest:
    """Asks to be greeted. `run` is the main loop of its node."""

    def __init__(self, greeter: Greeter, name: str, times: int) -> None:
        self._greeter = greeter  # in a program a client of the node, in a test the object itself
        self._name = name
        self._times = times

    def run(self) -> None:
        """Prints its greetings, then ends."""
        for done in range(self._times):
            print(self._greeter.greet(self._name))
            lpml.context().progress(done + 1, self._times)


def program(greeting: str = "Hello", guests: int = 2, times: int = 3) -> lpml.Program:
    """One node greets the others; when all guests are content, the program ends.

    Args:
      greeting: the word to greet with.
      guests: how many nodes ask to be greeted.
      times: how often each of them asks.
    """
    p = lpml.Program("hello")
    greeter = p.add_node(lpml.Node(Greeter, greeting))
    with p.group("guest"):
        for index in range(guests):
            p.add_node(lpml.Node(Guest, greeter, name=f"guest {index}", times=times))
    return p
