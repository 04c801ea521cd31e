"""Node types: services in their roles, and the pure rules they apply."""

if __name__ != "lpml.nodes":
    raise ImportError("import lpml.nodes, not nodes: the folder is a part of the package lpml")

from lpml.nodes.actor import Actor as Actor
from lpml.nodes.actor import ActorStatistics as ActorStatistics
from lpml.nodes.averaging import Average as Average
from lpml.nodes.averaging import average_server as average_server
from lpml.nodes.consistency import Asynchronous as Asynchronous
from lpml.nodes.consistency import BoundedStaleness as BoundedStaleness
from lpml.nodes.consistency import Consistency as Consistency
from lpml.nodes.consistency import Synchronous as Synchronous
from lpml.nodes.counter import Counter as Counter
from lpml.nodes.counter import CountOf as CountOf
from lpml.nodes.evaluator import Evaluator as Evaluator
from lpml.nodes.flat import Flat as Flat
from lpml.nodes.inference_server import InferenceServer as InferenceServer
from lpml.nodes.inference_server import InferenceStatistics as InferenceStatistics
from lpml.nodes.inference_server import RemotePolicy as RemotePolicy
from lpml.nodes.learner import Learner as Learner
from lpml.nodes.learning_time import LearnerStatistics as LearnerStatistics
from lpml.nodes.parameter_server import ParameterServer as ParameterServer
from lpml.nodes.replay import Replay as Replay
from lpml.nodes.roles import AbstractParameterServer as AbstractParameterServer
from lpml.nodes.roles import ParameterServerStatistics as ParameterServerStatistics
from lpml.nodes.roles import Params as Params
from lpml.nodes.roles import Receipt as Receipt
from lpml.nodes.roles import Snapshot as Snapshot
from lpml.nodes.sharding import ShardedParameterServer as ShardedParameterServer
from lpml.nodes.sharding import split_params as split_params
from lpml.nodes.simulation import AbstractSimulation as AbstractSimulation
from lpml.nodes.simulation_keys import replay_keys as replay_keys
from lpml.nodes.simulator import SimulatorStatistics as SimulatorStatistics
from lpml.nodes.simulator import VectorSimulator as VectorSimulator
from lpml.nodes.stopper import Stopper as Stopper
