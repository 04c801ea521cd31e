"""lpml: distributed machine-learning programs as typed graphs of services.

The house, floor by floor: `errors`, `resources`, `service` and `clock` import nothing of lpml;
`graph` declares programs, `wire` makes calls, `record` keeps what a run leaves; `context` is what
a running node may ask; `launchers` start a program; `cli` and `testing` are for people.
`nodes`, `agents`, `programs` and `compat` stand on all of these.
"""

from lpml.clock import deadline as deadline
from lpml.context import Context as Context
from lpml.context import context as context
from lpml.errors import CallCancelled as CallCancelled
from lpml.errors import CallError as CallError
from lpml.errors import CallTimeout as CallTimeout
from lpml.errors import Error as Error
from lpml.errors import GraphError as GraphError
from lpml.errors import LaunchError as LaunchError
from lpml.errors import NodeError as NodeError
from lpml.errors import NodeUnavailable as NodeUnavailable
from lpml.errors import ProgramStopped as ProgramStopped
from lpml.errors import ProtocolError as ProtocolError
from lpml.errors import RemoteError as RemoteError
from lpml.errors import UsageError as UsageError
from lpml.graph import Node as Node
from lpml.graph import Program as Program
from lpml.launchers import Plan as Plan
from lpml.launchers import Run as Run
from lpml.launchers import compile as compile
from lpml.launchers import launch as launch
from lpml.resources import Resources as Resources
from lpml.resources import Restart as Restart
from lpml.service import Checkpointable as Checkpointable
from lpml.service import batched as batched
from lpml.service import concurrent as concurrent
from lpml.service import idempotent as idempotent
from lpml.wire.calls import Future as Future
from lpml.wire.calls import Stream as Stream
from lpml.wire.calls import acall as acall
from lpml.wire.calls import broadcast as broadcast
from lpml.wire.calls import first as first
from lpml.wire.calls import future as future
from lpml.wire.calls import stream as stream
from lpml.wire.segments import Shared as Shared

__version__ = "0.1.0"
