"""Every node an actor of a Ray cluster; the one file that imports ray.

Ray finds room, starts the actors, knows which accelerators each has and notices when a host is
lost. On each host an agent (`agent.HostAgent`, an actor as well) is to the nodes there what the
launcher is on a single machine.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import contextlib
import getpass
import itertools
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from lpml.clock import current_clock
from lpml.errors import LaunchError, UsageError
from lpml.launchers import demands, system
from lpml.launchers.agent import Errand, HostAgent
from lpml.launchers.cluster import AbstractAgent, Cluster, HostLost
from lpml.launchers.demands import Unit, in_words, together
from lpml.launchers.hosts import HostsLauncher
from lpml.launchers.part import Membership
from lpml.launchers.plan import NodePlan, Plan
from lpml.launchers.seats import Seat
from lpml.record.folder import RunFolder

if TYPE_CHECKING:
    from lpml.wire.authority import Authority

try:
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import (
        NodeAffinitySchedulingStrategy,
        PlacementGroupSchedulingStrategy,
    )
except ImportError as error:
    raise UsageError(
        f"launch='ray' needs Ray, which cannot be imported ({error}); pip install 'lpml[ray]'"
    ) from error

_log = logging.getLogger("lpml")
PATIENCE = "LPML_PLACEMENT_TIMEOUT"
"""An environment variable: seconds to wait for room in a cluster (300)."""


@final
class RayLauncher(HostsLauncher):
    """The engine of `ray`."""

    def __init__(self, plan: Plan, folder: RunFolder, sockets: Path) -> None:
        super().__init__(plan, folder, sockets, RayCluster(plan.cluster, folder.name))

    @classmethod
    def refusals(cls, plan: Plan) -> list[str]:
        with _connected(plan.cluster):
            hosts = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return demands.refusals(demands.units(plan.nodes), hosts)


# The connection: one per process. That to a cluster is kept until the interpreter ends, since it
# takes a second or two and Ray itself closes it then; a Ray of our own ends with its last run.

_lock = threading.Lock()
_users = 0
_ours: str | None = None  # where we have connected to: an address, or _EMBEDDED
_EMBEDDED = "a Ray of this process"
_PREFIX = "lpml-ray-"  # of its folder, before the number of the process that started it
_folder = ""


def _connect(address: str | None) -> None:
    global _users, _ours
    with _lock:
        wanted = address or _EMBEDDED
        if ray.is_initialized() and _users == 0 and _ours not in (None, wanted):
            _disconnect()
        if not ray.is_initialized():  # else it is used, whoever has made it
            _users, _ours = 0, wanted
            try:
                _init(address)
            except BaseException as error:
                _disconnect()
                if not isinstance(error, Exception):
                    raise
                what = "no Ray could be started here" if address is None else f"no Ray at {address}"
                raise LaunchError(f"{what}: {_first_line(error)}") from error
        _users += 1


def _init(address: str | None) -> None:
    global _folder
    before = signal.getsignal(signal.SIGTERM)
    try:
        _initialise(address)
    finally:  # Ray takes SIGTERM for itself, and a preempted run would not be saved
        ours = threading.current_thread() is threading.main_thread()
        if ours and before not in (None, signal.SIG_DFL):
            signal.signal(signal.SIGTERM, before)


def _initialise(address: str | None) -> None:
    global _folder
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    options |= {"configure_logging": False}
    if address is None:
        _sweep()
        _folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
        ray.init("local", include_dashboard=False, _temp_dir=_folder, **options)
    else:
        _knock(address)
        ray.init(address, runtime_env=_shipped(), **options)


def _release() -> None:
    global _users
    with _lock:
        _users = max(0, _users - 1)
        if _users == 0 and _ours == _EMBEDDED:
            _disconnect()


def _disconnect() -> None:
    global _ours, _folder
    ray.shutdown()
    folder, _folder, _ours = _folder, "", None
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Removes what the Rays of processes that were killed have left."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        if path.owner() == getpass.getuser() and pid.isdigit() and not system.is_alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _knock(address: str) -> None:
    """Ray itself would try for minutes where nobody answers."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0):
            return


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    _connect(address)
    try:
        yield
    finally:
        _release()


def _shipped() -> dict[str, Any]:
    """The program's folder goes to the hosts, unless the job that we are part of sees to that."""
    first = Path(sys.path[0] or ".").absolute()
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or not any(first.glob("*.py")):
        return {}
    return {"working_dir": str(first), "excludes": ["runs", ".git", ".venv*", "__pycache__"]}


def _last_line(error: BaseException) -> str:
    """What an actor's constructor raised stands at the end of what Ray says."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@final
class RayAgent(AbstractAgent):
    """The agent of a host, over Ray's calls."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def tell(self, method: str, *args: Any) -> None:
        call = getattr(self._actor, method).options(concurrency_group="orders")
        call.remote(*args)

    def ask(self, method: str, *args: Any, timeout: float = 30.0) -> Any:
        group = "events" if method == "events" else "questions"
        answer = getattr(self._actor, method).options(concurrency_group=group).remote(*args)
        try:
            return ray.get(answer, timeout=timeout)
        except GetTimeoutError:
            raise TimeoutError(f"it has not answered {method!r} within {timeout:g} s") from None
        except RayActorError as error:
            raise HostLost(_last_line(error)) from error
        except RayTaskError as error:
            raise error.cause from error

    def close(self) -> None:
        with contextlib.suppress(Exception):
            ray.kill(self._actor)


@final
class RayCluster(Cluster):
    """Ray, for one run.

    Args:
      address: of the cluster; `None` = a Ray of this process's own.
      run: the run's id.
    """

    def __init__(self, address: str | None, run: str) -> None:
        self._embedded = address is None
        self._run = run
        self._lock = threading.Lock()
        self._rooms: dict[str, tuple[Any, int, Unit]] = {}  # {process: (group, bundle, what)}
        self._actors: dict[str, Any] = {}
        self._closed = False
        self._authority: Authority | None = None
        if not self._embedded:
            from lpml.wire.authority import Authority

            self._authority = Authority(run)
        _connect(address)
        self.here = str(ray.get_runtime_context().get_node_id())

    def place(self, nodes: Iterable[NodePlan]) -> dict[str, str]:
        groups = demands.groups(demands.units(nodes, shared=self._embedded)).values()
        made = []
        for units in groups:
            bundles = [dict(unit.needs) for unit in units]
            strategy = units[0].spreading.upper()
            made.append((placement_group(bundles, strategy=strategy), units))
        try:
            self._wait([group for group, _ in made], [unit for each in groups for unit in each])
        except BaseException:
            for group, _ in made:
                remove_placement_group(group)
            raise
        with self._lock:
            for group, units in made:
                for index, unit in enumerate(units):
                    self._rooms[unit.process] = group, index, unit
        return {unit.process: self._where(unit.process) for _, units in made for unit in units}

    def _wait(self, groups: list[Any], units: list[Unit]) -> None:
        patience = _patience()
        ready = [group.ready() for group in groups]
        end = current_clock().time() + patience
        for round_ in itertools.count(1):
            left = min(10.0, end - current_clock().time())
            _, missing = ray.wait(ready, num_returns=len(ready), timeout=max(0.01, left))
            if not missing or self._closed:
                return
            asked, free = together(u.needs for u in units), ray.available_resources()
            words = f"asked for {in_words(asked)}; free are {in_words(free)}"
            if current_clock().time() >= end:
                raise LaunchError(
                    f"the cluster had no room for {self._run} within {patience:g} s: {words}; "
                    f"`ray status` shows who uses it; {PATIENCE}=SECONDS waits longer"
                )
            if round_ == 1:
                _log.warning("%s waits for room in the cluster: %s", self._run, words)

    def _where(self, process: str) -> str:
        group, index, _ = self._rooms[process]
        table = ray.util.placement_group_table(group)
        return str(table["bundles_to_node_id"].get(index) or "")

    def place_again(self, process: str, lost: str) -> str:
        group, _, unit = self._rooms[process]
        end = current_clock().time() + _patience()
        while current_clock().time() < end and not self._closed:
            # Ray itself looks for room for what the lost host had, and says when it has it.
            created = ray.util.placement_group_table(group)["state"] == "CREATED"
            host = self._where(process)
            if created and host not in ("", lost):
                return host
            current_clock().wait(0.1)
        raise LaunchError(
            f"no room for {process} ({in_words(unit.needs)}) within {_patience():g} s"
        )

    def join(self, host: str) -> Membership | None:
        if self._authority is None:
            return None
        interface = next(n["NodeManagerAddress"] for n in ray.nodes() if n["NodeID"] == host)
        return Membership(self._authority.issue(host), interface)

    def start_agent(self, errand: Errand) -> AbstractAgent:
        groups = {"orders": 1, "events": 1, "questions": 4}
        actor = ray.remote(num_cpus=0, concurrency_groups=groups)(HostAgent)
        strategy = NodeAffinitySchedulingStrategy(errand.host, soft=False)
        return RayAgent(actor.options(scheduling_strategy=strategy).remote(errand))

    def start(self, process: str, attempt: int, path: str, ended: Callable[[str], None]) -> None:
        with self._lock:
            if self._closed:
                return
            group, index, unit = self._rooms[process]
            needs = dict(unit.needs)
            actor = ray.remote(Seat).options(
                num_cpus=needs.pop("CPU", 0),
                num_gpus=needs.pop("GPU", 0),
                memory=needs.pop("memory", None),
                resources=needs or None,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=index
                ),
                name=f"lpml {self._run} {process} {attempt}",
                max_restarts=0,
            )
            seat = self._actors[process] = actor.remote()
            life = seat.occupy.remote(path, process, attempt).future()
        life.add_done_callback(lambda life: ended(_why(life)))

    def end(self, process: str) -> None:
        with self._lock:
            actor = self._actors.pop(process, None)
        if actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(actor)

    def give_back(self, process: str) -> None:
        self.end(process)
        with self._lock:
            room = self._rooms.pop(process, None)
            shared = room is not None and any(r[0] == room[0] for r in self._rooms.values())
        if room is not None and not shared:
            remove_placement_group(room[0])

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for process in list(self._rooms):
            self.give_back(process)
        _release()


def _patience() -> float:
    return float(os.environ.get(PATIENCE, "300"))


def _why(life: Any) -> str:
    """What Ray knows of the end of an actor."""
    try:
        error = life.exception()
    except BaseException as cancelled:
        error = cancelled
    return "" if error is None else f"Ray says: {_first_line(error)}"
