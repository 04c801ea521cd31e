"""Several nodes that act and learn, and go on from the mean of what they have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.agents import load_policy, make_environment
from lpml.agents.anakin import Anakin
from lpml.agents.fused import Fused
from lpml.agents.jax_environments import Catch
from lpml.agents.ppo import PPOConfig
from lpml.agents.sebulba import Sebulba
from lpml.nodes.averaging import Average, average_server, averaged, replaced
from lpml.programs import dqn, impala, on_device, ppo
from lpml.testing import running
from tests.agents.tiny_windows import WindowBuilder

WINDOWS = WindowBuilder()


@pytest.fixture(scope="module")
def fused() -> Fused:
    return Fused(WINDOWS, Catch(), iterations=2, devices=jax.devices()[:1])


def params_of(node: Anakin) -> list[Any]:
    return jax.tree.leaves(node.pull().params)


@pytest.mark.timeout(300)
def test_after_a_call_all_have_the_mean_of_what_each_has_made_of_the_same(fused: Fused) -> None:
    server = average_server(fused.algorithm, 2, seed=5)
    nodes = [Anakin(fused, average=Average(server, f"learner/{i}"), seed=i) for i in range(2)]
    begin = fused.algorithm.init(jax.random.key(5))
    alone = []
    for seed in range(2):
        state = fused.init(seed)
        learner = replaced(state.learner, jax.tree.map(jnp.copy, averaged(begin)))
        state, _ = fused.call(state._replace(learner=learner))
        alone.append(jax.tree.leaves(fused.variables(state.learner)))
    for node in nodes:
        node.join()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(Anakin.step, nodes, timeout=60)) == [2, 2]
    for first, second, *separate in zip(*map(params_of, nodes), *alone, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, np.mean(separate, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.timeout(300)
def test_a_node_that_is_saved_while_it_waits_for_the_others_goes_on_waiting(fused: Fused) -> None:
    """And has made no step twice, and until then shows what all had last."""
    server = average_server(fused.algorithm, 2)
    first, second = [
        Anakin(fused, average=Average(server, f"learner/{i}"), seed=i) for i in range(2)
    ]
    first.join()
    second.join()
    begin = params_of(first)
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[int] = pool.submit(first.step)
        while server.statistics().pushes < 1:
            assert not waiting.done()
        saved = first.save()
        pulled = first.pull()
        assert pulled.version == 0
        jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(pulled.params), begin)
        second_saved, server_saved = second.save(), server.save()
        second.step()
        assert waiting.result(60) == 2
    expected = params_of(first)

    server = average_server(fused.algorithm, 2)
    server.restore(server_saved)
    again = [Anakin(fused, average=Average(server, f"learner/{i}"), seed=7) for i in range(2)]
    again[0].restore(saved)
    again[1].restore(second_saved)
    for node in again:
        node.join()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(Anakin.step, again, timeout=60)) == [2, 2]
    for node in again:
        jax.tree.map(np.testing.assert_array_equal, params_of(node), expected)
    assert again[0].statistics().steps == first.statistics().steps


@pytest.mark.parametrize("env", ["Catch", "jax/Catch"])
def test_sebulbas_have_the_same_parameters_in_the_end_and_every_time(env: str) -> None:
    def learn() -> list[Any]:
        device = jax.devices()[:1]
        server = average_server(WINDOWS.algorithm(make_environment(env, 1, 0).spec), 2)
        nodes = [
            Sebulba(
                WINDOWS, functools.partial(make_environment, env), acting=device, learning=device,
                average=Average(server, f"learner/{i}"), seed=i, max_updates=4,
            )
            for i in range(2)
        ]  # fmt: skip
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Sebulba.run, nodes, timeout=120))
        found = [np.asarray(node.pull().params) for node in nodes]
        np.testing.assert_array_equal(found[0], found[1])
        assert nodes[0].statistics().steps != 0
        return found

    np.testing.assert_array_equal(learn()[0], learn()[0])


def test_two_sebulbas_that_do_the_same_are_as_one() -> None:
    """From the first rollout on, which is made with what both begin with."""
    device = jax.devices()[:1]
    make = functools.partial(make_environment, "jax/Catch")
    one = functools.partial(
        Sebulba, WINDOWS, make, acting=device, learning=device, num_envs=64, seed=3, max_updates=16
    )
    algorithm = WINDOWS.algorithm(Catch().spec)
    server = average_server(algorithm, 2, seed=5)
    two = [one(average=Average(server, f"learner/{i}")) for i in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Sebulba.run, two, timeout=120))
    alone = one()
    saved = alone.save()
    (name,) = saved["learner"]["state"]
    saved["learner"]["state"][name] = np.asarray(algorithm.init(jax.random.key(5)))
    alone.restore(saved)
    alone.run()
    np.testing.assert_allclose(two[0].pull().params, alone.pull().params, rtol=1e-5, atol=1e-6)


@pytest.mark.timeout(300)
def test_a_program_of_several_learners_counts_all_steps_and_leaves_one_policy(runs: Path) -> None:
    config = PPOConfig(hidden=(8,), epochs=1, unroll_length=8, minibatches=1)
    program = on_device.program(
        "ppo", "Catch", num_envs=8, iterations=2, num_learners=2, evaluation_episodes=1,
        max_actor_steps=1000, target_return=2.0, ppo=config,
    )  # fmt: skip
    with running(program, "test", timeout=280, directory=runs) as run:
        assert "reached 1000" in run.wait(280).reason
    logs = [run.folder.log_file(f"learner/{i}").read_text() for i in range(2)]
    assert ["the policy is in" in log for log in logs] == [True, False]
    load_policy(run.folder.path / "policy")


PROGRAMS: Mapping[str, Callable[..., lpml.Program]] = {
    "ppo": ppo.program,
    "impala": impala.program,
    "dqn": dqn.program,
    "anakin ppo": functools.partial(on_device.program, "ppo"),
    "anakin impala": functools.partial(on_device.program, "impala"),
    "anakin dqn": functools.partial(on_device.program, "dqn"),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("launcher", ["local_mt", "local_mp"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_several_learners_solve_catch(name: str, launcher: str, runs: Path) -> None:
    made = PROGRAMS[name](env="Catch", num_learners=2, max_seconds=500.0)
    with running(made, launcher, timeout=580, directory=runs) as run:
        outcome = run.wait(580)
    assert (outcome.state, "reached 0.95" in outcome.reason) == ("finished", True)


def test_no_learner_is_refused() -> None:
    with pytest.raises(lpml.UsageError, match=r"num_learners=0: give at least 1"):
        on_device.program(num_learners=0)
