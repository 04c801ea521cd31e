"""What tests of services and programs need. Importing it needs no pytest.

`node` and `VirtualClock` test one service as a plain object; `fake`, `failing` and `slow` stand
in for its collaborators; `running` and `service` test a whole program; `no_leaks` shows that
nothing was left behind, and is the fixture `leak_check` of `lpml.testing.plugin`.
"""

from lpml.testing.clock import VirtualClock as VirtualClock
from lpml.testing.fakes import Made as Made
from lpml.testing.fakes import calls as calls
from lpml.testing.fakes import failing as failing
from lpml.testing.fakes import fake as fake
from lpml.testing.fakes import slow as slow
from lpml.testing.leaks import Leak as Leak
from lpml.testing.leaks import no_leaks as no_leaks
from lpml.testing.programs import node as node
from lpml.testing.programs import running as running
from lpml.testing.programs import service as service
