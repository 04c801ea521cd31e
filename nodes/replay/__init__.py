"""Replay: experience in tables, each step stored once.

Steps live in columns; an item is a window of them, read as a step, a transition or a sequence.
`samplers`, `removers` and `limiter` are rules, `table` applies them without clock or lock,
`service` is who waits; `adders` cut episodes into items on the actor's side, `prefetch` keeps
batches ready on the learner's; `functional` is the same inside jit, and is imported by its name.
"""

if __name__ != "lpml.nodes.replay":
    raise ImportError("import lpml.nodes.replay, not nodes.replay")

from lpml.nodes.replay.adders import Adder as Adder
from lpml.nodes.replay.config import TableConfig as TableConfig
from lpml.nodes.replay.cuts import AbstractCut as AbstractCut
from lpml.nodes.replay.cuts import CutSequences as CutSequences
from lpml.nodes.replay.cuts import CutTransitions as CutTransitions
from lpml.nodes.replay.cuts import Windows as Windows
from lpml.nodes.replay.limiter import AbstractLimiter as AbstractLimiter
from lpml.nodes.replay.limiter import MinSize as MinSize
from lpml.nodes.replay.limiter import Queue as Queue
from lpml.nodes.replay.limiter import SamplesPerInsert as SamplesPerInsert
from lpml.nodes.replay.prefetch import Prefetcher as Prefetcher
from lpml.nodes.replay.protocol import AbstractReplay as AbstractReplay
from lpml.nodes.replay.protocol import Blocked as Blocked
from lpml.nodes.replay.protocol import ReplayStatistics as ReplayStatistics
from lpml.nodes.replay.protocol import ReplayTimeout as ReplayTimeout
from lpml.nodes.replay.protocol import TableStatistics as TableStatistics
from lpml.nodes.replay.removers import AbstractRemover as AbstractRemover
from lpml.nodes.replay.removers import LowestPriority as LowestPriority
from lpml.nodes.replay.removers import Oldest as Oldest
from lpml.nodes.replay.sample import Sample as Sample
from lpml.nodes.replay.sample import SampleInfo as SampleInfo
from lpml.nodes.replay.samplers import AbstractSampler as AbstractSampler
from lpml.nodes.replay.samplers import Fifo as Fifo
from lpml.nodes.replay.samplers import Lifo as Lifo
from lpml.nodes.replay.samplers import Prioritised as Prioritised
from lpml.nodes.replay.samplers import Slices as Slices
from lpml.nodes.replay.samplers import Uniform as Uniform
from lpml.nodes.replay.service import Replay as Replay
from lpml.nodes.replay.shards import ReplayShards as ReplayShards
from lpml.nodes.replay.signature import Field as Field
from lpml.nodes.replay.signature import Signature as Signature
from lpml.nodes.replay.streams import Insert as Insert
from lpml.nodes.replay.streams import Items as Items
from lpml.nodes.replay.streams import UnknownWriter as UnknownWriter
from lpml.nodes.replay.views import AbstractView as AbstractView
from lpml.nodes.replay.views import Sequence as Sequence
from lpml.nodes.replay.views import Sequences as Sequences
from lpml.nodes.replay.views import Step as Step
from lpml.nodes.replay.views import Steps as Steps
from lpml.nodes.replay.views import Transition as Transition
from lpml.nodes.replay.views import Transitions as Transitions
