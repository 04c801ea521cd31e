"""Calls between nodes: sockets, frames, shared memory, and the clients and servers on them.

The hard idea is that no thread stands between a caller and the kernel. A caller that waits reads
the socket itself, for all who wait (`waiting`); a server's one loop thread runs quick calls where
they arrive (`server`). What decides is free of I/O: `frames` says what is a message, `messages`
where its buffers are, `segments` which piece of shared memory is whose, `unanswered` what is still
to come; the rest moves bytes.
"""

from lpml.wire.calls import Future as Future
from lpml.wire.calls import Stream as Stream
from lpml.wire.calls import acall as acall
from lpml.wire.calls import broadcast as broadcast
from lpml.wire.calls import first as first
from lpml.wire.calls import future as future
from lpml.wire.calls import stream as stream
from lpml.wire.client import close as close
from lpml.wire.client import connect as connect
from lpml.wire.dispatch import Dispatcher as Dispatcher
from lpml.wire.dispatch import DispatcherStatistics as DispatcherStatistics
from lpml.wire.local import local as local
from lpml.wire.segments import Shared as Shared
from lpml.wire.server import Server as Server
from lpml.wire.server import ServerStatistics as ServerStatistics
from lpml.wire.sockets import Address as Address
from lpml.wire.sockets import listen as listen
