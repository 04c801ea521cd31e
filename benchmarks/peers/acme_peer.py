"""A distributed Acme agent on Launchpad's processes, watched from outside.

    acme_peer.py dqn|impala|ppo ACTORS WARM SECONDS    prints one JSON object

Needs a checkout of github.com/google-deepmind/acme at ac668d5 (September 2023, the last one for
the jax of its time) in `.venv-acme/acme`; `make bench-peers` gets it.

Environment steps and learner steps are counted in files that are mapped into memory, so that
counting costs next to nothing and needs no call. The program is measured for SECONDS after its
actors have run for WARM seconds, and is then killed.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import struct
import sys
import tempfile
import time
from pathlib import Path

ACME = str(Path(sys.prefix) / "acme")
sys.path.insert(0, ACME)
os.environ["PYTHONPATH"] = ACME  # for the processes that Launchpad starts

import jax  # noqa: E402

jax.xla.Device = jax.Device  # a name that Acme knows, of jax 0.4.3

import acme  # noqa: E402
import dm_env  # noqa: E402
import gym  # noqa: E402
import haiku as hk  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import launchpad as lp  # noqa: E402
import numpy as np  # noqa: E402
import psutil  # noqa: E402
from acme import specs, wrappers  # noqa: E402
from acme.agents.jax import dqn, impala, ppo  # noqa: E402
from acme.agents.jax.dqn import losses  # noqa: E402
from acme.jax import experiments, utils  # noqa: E402
from acme.jax import networks as networks_lib  # noqa: E402


class Count:
    """A number that other processes can read: one file for each process that counts."""

    def __init__(self, folder: str, what: str) -> None:
        path = Path(folder) / f"{what}-{os.getpid()}-{time.monotonic_ns()}"
        path.write_bytes(struct.pack("d", 0.0))
        self._map = mmap.mmap(os.open(path, os.O_RDWR), 8)
        self._value = 0

    def add(self, count: int = 1) -> None:
        self._value += count
        self._map[:8] = struct.pack("d", self._value)


def total(folder: str, what: str) -> float:
    """The sum over all that count."""
    return sum(struct.unpack("d", p.read_bytes())[0] for p in Path(folder).glob(f"{what}-*"))


class Counted(wrappers.EnvironmentWrapper):
    """Counts the steps of an environment."""

    def __init__(self, environment: dm_env.Environment, folder: str) -> None:
        super().__init__(environment)
        self._count = Count(folder, "actor")

    def step(self, action: np.ndarray) -> dm_env.TimeStep:
        self._count.add()
        return self._environment.step(action)


class Catch(dm_env.Environment):
    """A ball falls through 10 rows of 5 columns onto a paddle or beside it."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._ball = self._paddle = (0, 0)

    def observation_spec(self) -> specs.Array:
        return specs.Array((50,), np.float32, "observation")

    def action_spec(self) -> specs.DiscreteArray:
        return specs.DiscreteArray(3)

    def reset(self) -> dm_env.TimeStep:
        self._ball, self._paddle = (0, int(self._rng.integers(5))), (9, 2)
        return dm_env.restart(self._observation())

    def step(self, action: np.ndarray) -> dm_env.TimeStep:
        if self._ball[0] == 9:
            return self.reset()
        self._paddle = (9, min(4, max(0, self._paddle[1] + int(action) - 1)))
        self._ball = (self._ball[0] + 1, self._ball[1])
        if self._ball[0] < 9:
            return dm_env.transition(0.0, self._observation())
        return dm_env.termination(1.0 if self._ball == self._paddle else -1.0, self._observation())

    def _observation(self) -> np.ndarray:
        board = np.zeros((10, 5), np.float32)
        board[self._ball] = board[self._paddle] = 1
        return board.ravel()


def cartpole(folder: str, seed: int) -> dm_env.Environment:
    environment = wrappers.GymWrapper(gym.make("CartPole-v1"))
    return Counted(wrappers.SinglePrecisionWrapper(environment), folder)


def catch(folder: str, seed: int) -> dm_env.Environment:
    return Counted(wrappers.SinglePrecisionWrapper(Catch(seed)), folder)


@dataclasses.dataclass
class Log:
    """A logger that counts the learner's steps and keeps nothing."""

    folder: str
    count: Count | None = None

    def write(self, data: dict) -> None:
        if self.count is None:
            self.count = Count(self.folder, "learner")
        self.count.add()

    def close(self) -> None:
        pass


class Silent:
    def write(self, data: dict) -> None:
        pass

    def close(self) -> None:
        pass


def dqn_networks(spec: specs.EnvironmentSpec) -> dqn.DQNNetworks:
    """An MLP of two layers of 64."""
    model = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([64, 64, 2])(x)))
    dummy = utils.add_batch_dim(utils.zeros_like(spec.observations))
    network = networks_lib.FeedForwardNetwork(lambda key: model.init(key, dummy), model.apply)
    typed = networks_lib.non_stochastic_network_to_typed(network)
    return dqn.DQNNetworks(policy_network=typed)


class Core(hk.RNNCore):
    """An MLP of 64 and an LSTM of 64, with a policy and a value."""

    def __init__(self) -> None:
        super().__init__(name="core")
        self._torso = hk.nets.MLP([64], activate_final=True)
        self._lstm = hk.LSTM(64)
        self._policy, self._value = hk.Linear(3), hk.Linear(1)

    def __call__(self, inputs, state):
        hidden, state = self._lstm(self._torso(inputs), state)
        return (self._policy(hidden), jnp.squeeze(self._value(hidden), -1)), state

    def initial_state(self, batch_size, **kwargs):
        return self._lstm.initial_state(batch_size)

    def unroll(self, inputs, state):
        hidden, state = hk.static_unroll(self._lstm, self._torso(inputs), state)
        return (self._policy(hidden), jnp.squeeze(self._value(hidden), -1)), state


def experiment(agent: str, folder: str) -> experiments.ExperimentConfig:
    """The agents with the options that the figures are stated for."""

    def logger(label, steps_key=None, instance=0):
        return Log(folder) if label == "learner" else Silent()

    if agent == "dqn":
        config = dqn.DQNConfig(
            n_step=1, samples_per_insert=8, batch_size=32, min_replay_size=1000, epsilon=0.05
        )
        builder = dqn.DQNBuilder(config, loss_fn=losses.QLearning(discount=config.discount))
        networks, environment = dqn_networks, cartpole
    elif agent == "impala":
        builder = impala.IMPALABuilder(impala.IMPALAConfig(sequence_length=20, sequence_period=20))

        def networks(spec):
            return networks_lib.make_unrollable_network(spec, Core)

        environment = catch
    else:
        builder = ppo.PPOBuilder(ppo.PPOConfig(unroll_length=32, batch_size=32))

        def networks(spec):
            jax.interpreters.xla.DeviceArray = jax.Array  # a name that TFP knows, in each node
            return ppo.make_discrete_networks(spec, hidden_layer_sizes=(64, 64), use_conv=False)

        environment = cartpole

    return experiments.ExperimentConfig(
        builder=builder,
        environment_factory=lambda seed: environment(folder, seed),
        network_factory=networks,
        evaluator_factories=[],
        seed=0,
        max_num_actor_steps=10**9,
        logger_factory=logger,
        checkpointing=None,
    )


def memory_of_children() -> float:
    """The largest resident set of a node that runs an environment, in bytes."""
    sizes = [child.memory_info().rss for child in psutil.Process().children(recursive=True)]
    return float(np.median(sizes)) if sizes else 0.0


def main(agent: str, actors: int, warm: float, seconds: float) -> None:
    folder = tempfile.mkdtemp(prefix="lpml-bench-")
    program = experiments.make_distributed_experiment(experiment(agent, folder), num_actors=actors)
    lp.launch(program, launch_type="local_mp", terminal="output_to_files")
    while total(folder, "actor") == 0:
        time.sleep(0.01)
    first = time.time()
    time.sleep(warm)
    counts = total(folder, "actor"), total(folder, "learner"), time.time()
    time.sleep(seconds)
    span = time.time() - counts[2]
    report = {
        "first_step_at": first,
        "actor_steps": (total(folder, "actor") - counts[0]) / span,
        "learner_steps": (total(folder, "learner") - counts[1]) / span,
        "memory": memory_of_children(),
    }
    print(json.dumps(report), flush=True)
    for child in psutil.Process().children(recursive=True):
        child.kill()  # asked politely they take ten seconds
    os._exit(0)


if __name__ == "__main__":
    print(f"acme {acme.__version__}", file=sys.stderr)
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
