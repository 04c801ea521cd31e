"""Programs as graphs of services: declared, checked, drawn and pickled, never run."""

from lpml.graph.check import Edge as Edge
from lpml.graph.check import Findings as Findings
from lpml.graph.check import check as check
from lpml.graph.check import edges as edges
from lpml.graph.check import examine as examine
from lpml.graph.check import payload as payload
from lpml.graph.node import Node as Node
from lpml.graph.pickling import Pickled as Pickled
from lpml.graph.pickling import dumps as dumps
from lpml.graph.pickling import loads as loads
from lpml.graph.program import Declared as Declared
from lpml.graph.program import Program as Program
