"""What an engine of several hosts needs of a cluster: room, processes, and agents to speak with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from lpml.launchers.agent import Errand
from lpml.launchers.part import Membership
from lpml.launchers.plan import NodePlan

_ANSWER = 30.0  # seconds that an agent has to answer what costs it nothing


class HostLost(Exception):
    """A host, or the agent on it, is gone."""


class AbstractAgent(ABC):
    """The agent of one host, as it is reached from here. Thread-safe."""

    @abstractmethod
    def tell(self, method: str, *args: Any) -> None:
        """Calls a method without waiting; such calls arrive in their order."""

    @abstractmethod
    def ask(self, method: str, *args: Any, timeout: float = _ANSWER) -> Any:
        """Calls a method and returns its result.

        Raises:
          HostLost: it will never answer.
          TimeoutError: it has not answered in time.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends it, whatever it does."""


class Cluster(ABC):
    """Finds room for processes, and starts them there. Thread-safe."""

    here: str
    """The host of this process."""

    @abstractmethod
    def place(self, nodes: Iterable[NodePlan]) -> dict[str, str]:
        """Reserves what nodes ask for: `{process: host}`. Waits until there is room.

        Raises:
          LaunchError: there is not, and was not for too long.
        """

    @abstractmethod
    def place_again(self, process: str, lost: str) -> str:
        """Another host for a process whose host was lost. Waits and raises as `place`."""

    @abstractmethod
    def join(self, host: str) -> Membership | None:
        """What a host needs to be one of several; `None` where there is only one."""

    @abstractmethod
    def start_agent(self, errand: Errand) -> AbstractAgent:
        """Starts the agent of a host. Does not wait for it."""

    @abstractmethod
    def start(self, process: str, attempt: int, path: str, ended: Callable[[str], None]) -> None:
        """Starts a process, which comes to the socket `path` of its host.

        Args:
          ended: called from any thread when it has ended, with what is known of why.
        """

    @abstractmethod
    def end(self, process: str) -> None:
        """Kills a process, if it still runs."""

    @abstractmethod
    def give_back(self, process: str) -> None:
        """What was reserved for a process is not needed any more."""

    @abstractmethod
    def close(self) -> None:
        """Gives everything back."""
