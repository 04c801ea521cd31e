"""PPO on what an encoder makes of a frame; the agent itself is `lpml.agents.ppo`, unchanged.

Whose encoder? One set of parameters, (encoder, head), is what the learner publishes and actors act
with, so a head never sees features of an encoder that it was not published with. Replay keeps
frames, not features, beside the log-probability under the pair that acted. The learner encodes
them with its own encoder, so the ratio of the new policy to the one that acted is right whichever
encoder either had; that the encoder moved is a part of how far the policies are apart (`lag_kl`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, final

import jax
import jax.numpy as jnp

from lpml.agents.builder import AbstractBuilder, Batches
from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.errors import UsageError
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Algorithm, Experience, LearnerState, Update
from lpml.nodes.replay import (
    AbstractCut,
    CutTransitions,
    MinSize,
    SamplesPerInsert,
    TableConfig,
    Transitions,
    Uniform,
)
from lpml.nodes.roles import Params
from lpml.programs.world_and_labels.encoder import Model

FRAMES = "frames"
"""The table that the supervised half samples."""


@dataclass(frozen=True)
class EncodedPPOConfig(PPOConfig):
    """Numbers of PPO, of the encoder before it, and of the frames that are kept for that one.

    Raises:
      UsageError: a number is out of range.
    """

    hidden: tuple[int, ...] = (128,)
    """Units of each layer of the head."""
    activation: Literal["tanh", "relu", "silu"] = "relu"

    features: int = 32
    """D: numbers that the encoder makes of a frame."""
    pixel_units: int = 8
    """Units of its first layer, which is the same for each pixel."""
    encoder_seed: int = 0
    """Of its parameters before anything is learnt."""
    max_frames: int = 20_000
    """That are kept; the oldest make room."""
    samples_per_frame: float = 8.0
    """How often the supervised half samples a frame, on average; the two halves wait for each other
    where they would run apart. 0 = as often as it can; nobody waits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("features", "pixel_units", "max_frames"):
            if getattr(self, name) < 1:
                raise UsageError(f"EncodedPPOConfig({name}={getattr(self, name)}): give at least 1")
        if self.samples_per_frame < 0:
            raise UsageError(
                f"EncodedPPOConfig(samples_per_frame={self.samples_per_frame}): give 0 or more"
            )


class Refreshed(NamedTuple):
    """A batch, and the encoder with which it is to be learnt from."""

    data: Any
    encoder: Params
    version: Any
    """Of the encoder, `[]` float32: updates of the parameter server."""


class EncodedVariables(NamedTuple):
    """What the policy needs: a pair that belongs together."""

    encoder: Params
    head: Params


class EncodedState(NamedTuple):
    """All that an update changes."""

    encoder: Params
    version: jax.Array
    """Of the encoder, `[]` float32."""
    head: LearnerState
    """Of PPO."""


@final
@dataclass(frozen=True)
class EncodedPPOBuilder(AbstractBuilder):
    """PPO whose observations are the features of an encoder that somebody else trains.

    Its frames go to two tables at once, each step stored once: rollouts for PPO, and `frames`.
    """

    name: ClassVar[str] = "encoded_ppo"
    options: EncodedPPOConfig = field(default_factory=EncodedPPOConfig)

    @property
    def config(self) -> EncodedPPOConfig:
        return self.options

    @property
    def batches(self) -> Batches:
        return self._ppo.batches

    def model(self, spec: EnvironmentSpec) -> Model:
        """The encoder, and what it is trained with."""
        options = self.options
        return Model.of(spec, features=options.features, units=options.pixel_units)

    def tables(self, spec: EnvironmentSpec) -> list[TableConfig]:
        options = self.options
        (rollouts,) = self._ppo.tables(spec)
        begin = min(1000, options.max_frames)
        limiter: Any = MinSize(begin)
        if ratio := options.samples_per_frame:
            limiter = SamplesPerInsert(ratio, begin, tolerance=ratio * begin)
        frames = TableConfig(
            name=FRAMES,
            signature=rollouts.signature,
            max_size=options.max_frames,
            view=Transitions(),
            sampler=Uniform(),
            limiter=limiter,
        )
        return [rollouts, frames]

    def cuts(self, spec: EnvironmentSpec) -> Mapping[str, AbstractCut]:
        return {**self._ppo.cuts(spec), FRAMES: CutTransitions()}

    def policy(
        self,
        spec: EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: int = 0,
        num_actors: int = 1,
    ) -> Policy:
        model = self.model(spec)
        head = self._ppo.policy(
            self._encoded(spec), evaluation=evaluation, actor=actor, num_actors=num_actors
        )

        def act(params: EncodedVariables, key: jax.Array, frames: Any, state: Any) -> PolicyOutput:
            return head.act(params.head, key, model.encode(params.encoder, frames), state)

        return Policy(head.init, act, head.extras)

    def algorithm(self, spec: EnvironmentSpec) -> Algorithm:
        model = self.model(spec)
        ppo = self._ppo.algorithm(self._encoded(spec))

        def init(key: jax.Array) -> EncodedState:
            encoder = jax.tree.map(jnp.asarray, model.init(self.options.encoder_seed).encoder)
            return EncodedState(encoder, jnp.zeros((), jnp.float32), ppo.init(key))

        def update(state: EncodedState, experience: Experience) -> tuple[EncodedState, Update]:
            data = experience.data
            if not isinstance(data, Refreshed):  # nobody trains the encoder
                data = Refreshed(data, state.encoder, state.version)
            features = model.encode(data.encoder, data.data.steps.observation)
            steps = data.data.steps._replace(observation=features)
            sequence = data.data._replace(steps=steps)
            head, update = ppo.update(state.head, experience._replace(data=sequence))
            metrics = {**update.metrics, "encoder_version": data.version}
            state = EncodedState(data.encoder, data.version, head)
            return state, update._replace(metrics=metrics)

        def variables(state: EncodedState) -> EncodedVariables:
            return EncodedVariables(state.encoder, ppo.variables(state.head))

        return Algorithm(init, update, variables)

    @property
    def _ppo(self) -> PPOBuilder:
        return PPOBuilder(self.options)

    def _encoded(self, spec: EnvironmentSpec) -> EnvironmentSpec:
        """The environment as PPO sees it."""
        features = jax.ShapeDtypeStruct((self.options.features,), jnp.dtype(jnp.float32))
        return dataclasses.replace(spec, observation=features)
