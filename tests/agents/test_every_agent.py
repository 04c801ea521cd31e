"""One suite, run on each row of `tests.tables.AGENTS`: what every agent promises."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.agents import AbstractBuilder, load_policy, save_policy, train
from lpml.agents.catch import Catch
from lpml.agents.saved import AGENTS as KINDS
from lpml.nodes import Params
from lpml.nodes.actor import Actor
from lpml.nodes.learning import Experience
from lpml.nodes.replay import Adder, MinSize, Replay, Sequence, Uniform
from lpml.nodes.roles import Snapshot
from lpml.nodes.updates import from_arrays, to_arrays
from tests.tables import AGENTS

E = 8
SPEC = Catch().spec


@pytest.fixture(params=AGENTS)
def agent(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@functools.cache
def make(agent: str) -> AbstractBuilder:
    """The builder of a row."""
    row = AGENTS[agent]
    module, _, attribute = row.builder.partition(":")
    kind: Callable[..., AbstractBuilder] = getattr(importlib.import_module(module), attribute)
    return kind(dataclasses.replace(kind().config, **row.options))


class Fixed:
    """A source of variables that never change."""

    def __init__(self, params: Params) -> None:
        self.value = params

    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        del worker, at_least, timeout
        return Snapshot(0, self)


@functools.cache
def compiled(agent: str) -> tuple[Any, Any]:
    """Its `init` and `update`, compiled once for all tests."""
    algorithm = make(agent).algorithm(SPEC)
    return jax.jit(algorithm.init), jax.jit(algorithm.update)


def variables(agent: str, state: Any) -> Params:
    return make(agent).algorithm(SPEC).variables(state)


@functools.cache
def experience(agent: str) -> Experience:
    """A batch of what the untrained policy did on Catch, cut as the agent cuts it."""
    builder, batches = make(agent), make(agent).batches
    (table,) = [table for table in builder.tables(SPEC) if table.name == batches.table]
    free = dataclasses.replace(
        table, limiter=MinSize(1), sampler=Uniform(), max_size=5000, max_times_sampled=None
    )
    replay = Replay([free])
    adder = Adder(replay, builder.cuts(SPEC), num_envs=E)
    source = Fixed(variables(agent, compiled(agent)[0](jax.random.key(0))))
    actor = Actor(Catch(E), builder.policy(SPEC), source, adder)
    for _ in range(100):
        actor.step()
    adder.flush()
    data, info = replay.sample(table.name, batches.batch_size)
    probabilities = jnp.asarray(info.probabilities, jnp.float32)
    return Experience(data, probabilities, jnp.float32(info.size))


def trained(agent: str, seed: int = 0) -> tuple[Any, Any]:
    """The state before and after two updates."""
    init, update = compiled(agent)
    before = init(jax.random.key(seed))
    middle, _ = update(before, experience(agent))
    return before, update(middle, experience(agent))[0]


def same(first: Params, second: Params) -> bool:
    equal = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), first, second)
    return all(jax.tree.leaves(equal))


def test_the_parts_fit_each_other(agent: str) -> None:
    builder = make(agent)
    tables, batches = builder.tables(SPEC), builder.batches
    assert set(builder.cuts(SPEC)) == {table.name for table in tables}
    replay = Replay(tables)
    with pytest.raises(TimeoutError):  # such a batch will come, and is not refused
        replay.sample(batches.table, batches.batch_size * batches.updates_per_step, 0.0)
    assert builder.name == agent
    assert KINDS[agent] == AGENTS[agent].builder


def test_a_builder_is_a_value(agent: str) -> None:
    builder = make(agent)
    again = type(builder)(builder.config)  # type: ignore[call-arg]
    assert builder == again
    assert hash(builder) == hash(again)
    assert builder != type(builder)()


@pytest.mark.parametrize("evaluation", [False, True])
def test_the_policy_obeys_the_spec(agent: str, evaluation: bool) -> None:
    builder = make(agent)
    policy, algorithm = builder.policy(SPEC, evaluation=evaluation), builder.algorithm(SPEC)

    def act(key: jax.Array, observation: jax.Array) -> Any:
        params = algorithm.variables(algorithm.init(key))
        return policy.act(params, key, observation, policy.init(E))

    observation = jax.ShapeDtypeStruct((E, 10, 5), np.dtype(np.float32))
    output = jax.eval_shape(act, jax.random.key(0), observation)
    assert (output.action.shape, output.action.dtype) == ((E,), SPEC.action.dtype)
    assert output.scores.shape[0] == E
    state = jax.eval_shape(lambda: policy.init(E))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), output.state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    extras = jax.tree.map(lambda x: ((E, *x.shape), x.dtype), policy.extras)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), output.extras) == extras


def test_actions_are_of_those_that_there_are(agent: str) -> None:
    data = experience(agent).data
    steps = data.steps if isinstance(data, Sequence) else data
    assert set(np.unique(steps.action)) == {0, 1, 2}


def test_learning_changes_the_policy_and_repeats_itself(agent: str) -> None:
    before, after = (variables(agent, state) for state in trained(agent))
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    assert np.mean(jax.tree.leaves(changed)) > 0.5  # statistics that are not used may stay
    assert same(after, variables(agent, trained(agent)[1]))
    assert not same(after, variables(agent, trained(agent, seed=1)[1]))


def test_an_update_reports_finite_scalars_and_compiles_once(agent: str) -> None:
    trained(agent)
    init, update = compiled(agent)
    _, outcome = update(init(jax.random.key(2)), experience(agent))
    assert "loss" in outcome.metrics
    assert all(np.shape(value) == () for value in outcome.metrics.values())
    assert all(np.isfinite(value) for value in outcome.metrics.values())
    if outcome.priorities is not None:
        assert outcome.priorities.shape == (make(agent).batches.batch_size,)
        assert (outcome.priorities >= 0).all()
    assert update._cache_size() == 1


def test_a_state_goes_on_from_what_was_saved_of_it(agent: str) -> None:
    init, update = compiled(agent)
    _, state = trained(agent)
    restored = from_arrays(to_arrays(state), init(jax.random.key(1)))
    following, again = (update(each, experience(agent))[0] for each in (state, restored))
    assert same(to_arrays(following), to_arrays(again))


def test_a_saved_policy_acts_again(agent: str, tmp_path: Path) -> None:
    builder, params = make(agent), variables(agent, trained(agent)[1])
    save_policy(tmp_path, builder, SPEC, params)
    loaded = load_policy(tmp_path)
    assert loaded.builder == builder
    boards = np.random.default_rng(0).random((E, 10, 5), np.float32)
    policy = builder.policy(SPEC, evaluation=True)
    output = policy.act(params, jax.random.key(0), boards, policy.init(E))
    np.testing.assert_array_equal(loaded(boards), output.action)


@pytest.mark.slow
def test_it_learns_catch(agent: str) -> None:
    row = AGENTS[agent]
    result = train(
        make(agent),
        Catch(E),
        num_steps=row.steps,
        eval_environment=Catch(50),
        evaluate_every=row.steps,
        episodes=50,
    )
    assert result.final_return >= row.enough
