"""Several learners that go on from the mean of what they have."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lpml.nodes.averaging import Average, average_server
from lpml.nodes.learner import Learner
from lpml.nodes.learning import Algorithm, Experience, Update
from lpml.nodes.parameter_server import ParameterServer
from lpml.nodes.replay import Sample, SampleInfo

RATE, DECAY = 0.1, 0.9


class State(NamedTuple):
    """All kinds of what an algorithm keeps."""

    params: jax.Array
    momentum: Any
    key: jax.Array
    updates: jax.Array


def regression() -> Algorithm:
    """Least squares by SGD with momentum: an update is linear in the gradient."""
    optimizer = optax.sgd(RATE, DECAY)

    def init(key: jax.Array) -> State:
        params = jax.random.normal(key, (3,))
        return State(params, optimizer.init(params), key, jnp.zeros((), jnp.int32))

    def update(state: State, experience: Experience) -> tuple[State, Update]:
        x, y = experience.data

        def loss(params: jax.Array) -> jax.Array:
            return jnp.mean((x @ params - y) ** 2)

        changes, momentum = optimizer.update(jax.grad(loss)(state.params), state.momentum)
        params = optax.apply_updates(state.params, changes)
        key = jax.random.split(state.key)[0]
        new = State(jnp.asarray(params), momentum, key, state.updates + 1)
        return new, Update({"loss": loss(state.params)}, None)

    return Algorithm(init, update, lambda state: state.params)


def batch(x: jax.Array, y: jax.Array) -> Experience:
    return Experience((x, y), jnp.ones(len(x)), jnp.float32(len(x)))


@pytest.mark.parametrize("num_learners", [2, 4])
def test_several_learners_make_the_updates_of_one_that_has_all_their_data(
    num_learners: int,
) -> None:
    algorithm = regression()
    x, y = (jax.random.normal(jax.random.key(i), (8, *shape)) for i, shape in ((7, (3,)), (8, ())))
    server = average_server(algorithm, num_learners, seed=5)

    def learn(learner: int) -> State:
        mine = batch(x[learner::num_learners], y[learner::num_learners])
        average = Average(server, f"learner/{learner}")
        average.start()
        state: State = average.adopt(algorithm.init(jax.random.key(learner)))
        for _ in range(5):
            state, _ = algorithm.update(state, mine)
            average.exchange(state)
            state = average.adopt(state)
        return state

    with ThreadPoolExecutor(num_learners) as pool:
        states = list(pool.map(learn, range(num_learners), timeout=60))
    alone = algorithm.init(jax.random.key(5))
    for _ in range(5):
        alone, _ = algorithm.update(alone, batch(x, y))
    for learner, state in enumerate(states):
        np.testing.assert_array_equal(state.params, states[0].params)
        np.testing.assert_allclose(state.params, alone.params, rtol=1e-5, atol=1e-6)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            state.momentum,
            alone.momentum,
        )
        assert int(state.updates) == 5
        own = jax.random.key(learner)
        for _ in range(5):
            own = jax.random.split(own)[0]
        np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(own))


def learners(
    algorithm: Algorithm, server: ParameterServer, batches: list[Generator[Sample, None, None]]
) -> list[Learner]:
    return [
        Learner(algorithm, one, batch_size=4, seed=i, average=Average(server, f"learner/{i}"))
        for i, one in enumerate(batches)
    ]


def samples(seed: int) -> Generator[Sample, None, None]:
    rng = np.random.default_rng(seed)
    ones = np.ones(4)
    while True:
        x, y = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=4).astype(np.float32)
        yield Sample((x, y), SampleInfo(np.arange(4), ones, ones, ones.astype(int), 4))


def test_a_learner_that_is_saved_while_it_waits_for_the_others_goes_on_waiting() -> None:
    """And shows until then what all had last, and draws no batch twice."""
    algorithm = regression()
    server = average_server(algorithm, 2)
    first, second = learners(algorithm, server, [samples(1), samples(2)])
    first.join()
    second.join()
    begin = first.pull().params
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first.step)
        while server.statistics().pushes < 1:
            assert not waiting.done()
        saved = [first.save(), second.save(), server.save()]
        assert first.pull().version == 0
        np.testing.assert_array_equal(first.pull().params, begin)
        second.step()
        assert waiting.result(60) == 1
    assert first.pull().version == 1
    expected = first.pull().params

    server = average_server(algorithm, 2)
    server.restore(saved[2])
    again = learners(algorithm, server, [these(), samples(2)])
    for learner, state in zip(again, saved, strict=False):
        learner.restore(state)
        learner.join()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(Learner.step, again, timeout=60)) == [1, 1]
    for learner in again:
        assert learner.pull().version == 1
        np.testing.assert_array_equal(learner.pull().params, expected)


def these(*given: Sample) -> Generator[Sample, None, None]:
    yield from given


def test_nobody_waits_for_a_learner_that_left() -> None:
    algorithm = regression()
    server = average_server(algorithm, 2)
    first, second = Average(server, "learner/0"), Average(server, "learner/1")
    first.start()
    second.start()
    second.leave()
    state = first.adopt(algorithm.init(jax.random.key(3)))
    changed = state._replace(params=state.params + 1)
    first.exchange(changed)
    np.testing.assert_allclose(first.adopt(state).params, changed.params, rtol=1e-6)


def test_before_the_start_a_state_is_what_it_is() -> None:
    algorithm = regression()
    state = algorithm.init(jax.random.key(3))
    assert Average(average_server(algorithm, 2), "learner/0").adopt(state) is state
