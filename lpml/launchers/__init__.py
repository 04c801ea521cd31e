"""Launchers: a program becomes a plan, a plan becomes a run on threads or processes.

Each launcher is one file with one engine, loaded late by its name in `names.LAUNCHERS`; `Run` and
the supervisor are the same for all.
"""

from lpml.launchers.compiling import compile as compile
from lpml.launchers.launching import launch as launch
from lpml.launchers.names import LAUNCHERS as LAUNCHERS
from lpml.launchers.plan import NodePlan as NodePlan
from lpml.launchers.plan import Plan as Plan
from lpml.launchers.run import Run as Run
from lpml.launchers.status import NodeStatus as NodeStatus
from lpml.launchers.status import Outcome as Outcome
from lpml.launchers.status import RunStatus as RunStatus
