"""An example of the batches that a learner will get, to compile with before there are any."""

from __future__ import annotations

import dataclasses

import numpy as np

from lpml.nodes.replay import AbstractCut, Adder, MinSize, Replay, Sample, TableConfig, Uniform


def example_batch(table: TableConfig, cut: AbstractCut, batch_size: int) -> Sample:
    """A batch of steps that are all zero, with the shapes and types of those of the table.

    Args:
      table: whose steps are `lpml.nodes.replay.Step`s.
      cut: how its items are cut.
      batch_size: items of the batch.
    """
    rows = table.view.rows
    small = dataclasses.replace(
        table,
        max_size=4,
        max_steps=8 * rows + 64,
        limiter=MinSize(1),
        sampler=Uniform(),
        max_times_sampled=None,
        folder=None,
    )
    replay = Replay([small])
    fields = replay.signature(table.name)
    step = fields.unflatten([np.zeros(field.shape, field.dtype) for field in fields.fields])
    adder = Adder(replay, {table.name: cut})
    adder.first(step.observation)
    for _ in range(rows + 1):
        adder.add(step.action, step.reward, step.discount, step.observation, step.extras)
    adder.close()
    return replay.sample(table.name, batch_size)
