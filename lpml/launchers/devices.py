"""What a node sees of the machine: devices, threads and memory, as environment variables."""

from __future__ import annotations

import glob
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from lpml.resources import Resources


@final
@dataclass(frozen=True)
class Machine:
    """What there is to share.

    Args:
      cpu: cores that this process may use.
      gpus: ids of the accelerators, as CUDA_VISIBLE_DEVICES takes them.
      memory: bytes of main memory; 0 = unknown.
    """

    cpu: int
    gpus: tuple[str, ...] = ()
    memory: int = 0

    @classmethod
    def find(cls) -> Machine:
        """The machine we are on, as far as the environment lets us use it."""
        return cls(_cores(), _gpus(), _memory())


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _gpus() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1"))
    return tuple(str(i) for i in range(len(glob.glob("/dev/nvidia[0-9]*"))))


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def faults(needs: Mapping[str, Resources], machine: Machine) -> list[str]:
    """What the nodes ask for and the machine does not have.

    Cores are shared by the scheduler, so only a single node that asks for more than all of them
    is refused; accelerators and memory are not.
    """
    found = []
    for name, need in needs.items():
        if need.cpu > machine.cpu:
            found.append(
                f"{name}: Resources(cpu={need.cpu:g}), but this machine has {machine.cpu} cores; "
                "ask for fewer or use a larger machine"
            )
        if need.custom:
            found.append(
                f"{name}: Resources(custom={dict(need.custom)!r}) is for clusters, and this "
                "launcher knows one machine; leave it out"
            )
    try:
        place(needs, machine)
    except _Full as full:
        found.append(
            f"{full.node}: Resources(gpu={needs[full.node].gpu:g}), but of the "
            f"{len(machine.gpus)} accelerators of this machine not that much is left; "
            "lower gpu= here or elsewhere, or set CUDA_VISIBLE_DEVICES"
        )
    memory = sum(need.memory or 0 for need in needs.values())
    if machine.memory and memory > machine.memory:
        found.append(
            f"the nodes expect to use {memory / 2**30:.1f} GiB together, but this machine has "
            f"{machine.memory / 2**30:.1f} GiB; start fewer or lower memory="
        )
    return found


class _Full(Exception):
    def __init__(self, node: str) -> None:
        super().__init__(node)
        self.node = node


def place(needs: Mapping[str, Resources], machine: Machine) -> dict[str, tuple[str, ...]]:
    """Which accelerators each node sees: whole ones first, fractions packed on as few as fit."""
    free = dict.fromkeys(machine.gpus, 1.0)  # {id: share left}
    placed: dict[str, tuple[str, ...]] = {}
    for name in sorted(needs, key=lambda name: -needs[name].gpu):
        need = needs[name].gpu
        if need == 0:
            placed[name] = ()
        elif need >= 1:
            whole = [gpu for gpu, share in free.items() if share == 1.0][: math.ceil(need)]
            if len(whole) < math.ceil(need):
                raise _Full(name)
            free.update(dict.fromkeys(whole, 0.0))
            placed[name] = tuple(whole)
        else:
            fitting = [gpu for gpu, share in free.items() if share + 1e-9 >= need]
            if not fitting:
                raise _Full(name)
            gpu = min(fitting, key=lambda gpu: free[gpu])
            free[gpu] -= need
            placed[name] = (gpu,)
    return placed


def threads(resources: Resources) -> int:
    """How many threads XLA, OpenMP and BLAS may use in a node."""
    return max(1, math.ceil(resources.cpu))


def environment(resources: Resources, gpus: tuple[str, ...] | None) -> dict[str, str]:
    """The variables of one node. `Resources.env` has the last word.

    Args:
      resources: what it needs.
      gpus: the accelerators that it sees; `None` = a cluster gives it those that it asked for.
    """
    count = str(threads(resources))
    variables = {
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "NUMEXPR_NUM_THREADS": count,
        "VECLIB_MAXIMUM_THREADS": count,
        "NPROC": count,  # the size of XLA's pool on the CPU
    }
    if gpus is not None:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if count == "1":
        flags = os.environ.get("XLA_FLAGS", "")
        variables["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    on_cpu = not resources.gpu if gpus is None else not gpus
    if on_cpu:
        variables["JAX_PLATFORMS"] = "cpu"
    share = resources.gpu_memory
    if share is None and 0 < resources.gpu < 1:
        share = resources.gpu
    if not on_cpu and share is not None:
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{share:g}"
        variables["XLA_CLIENT_MEM_FRACTION"] = f"{share:g}"
    return {**variables, **resources.env}


def apply(before: Mapping[str, str], count: int) -> None:
    """Tells libraries that were imported before the environment was set what is in it now.

    Args:
      before: the environment that they were imported in, with one thread for each.
      count: how many threads the node may use.
    """
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # a fork copies the state, so all would draw the same
        if count > 1:
            import threadpoolctl

            threadpoolctl.threadpool_limits(count)
    if "jax" in sys.modules:
        _update_jax(before)


def _update_jax(before: Mapping[str, str]) -> None:
    config = sys.modules["jax"].config
    now = {"JAX_PLATFORMS": "", **os.environ}
    for name, text in now.items():
        if name.startswith("JAX_") and before.get(name, "") != text:
            option = name.lower()
            try:
                config.update(option, _like(config._read(option), text))
            except (AttributeError, ValueError, TypeError):
                continue  # a variable that is no option, or of another version of jax


def _like(example: object, text: str) -> object:
    if isinstance(example, bool):
        return text.lower() in ("1", "true", "yes", "on", "t", "y")
    if isinstance(example, int):
        return int(text)
    return text or None
