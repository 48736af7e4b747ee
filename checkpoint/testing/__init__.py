"""Tools for tests of savers, and of programs that store: the conformance kit, and faults on purpose.

    kit       `run_conformance`, `ConformanceSuite`      report   results, and the words of complaints
    register  checks by name, running one               checks   those of savers
    subject   a saver in one colour
    script    what a program would give a saver          model    random programs against a reference
    base_checks, full_checks, native_checks, durable_checks       the rules, by level
    child     what runs in another process                 faults   crashes, full disks, locked and damaged files

For people who write savers (docs/testing-savers.md), and what the savers of this package are held to. Knows no concrete
saver and, unless its suite is used, no pytest.
"""

from __future__ import annotations

from checkpoint.testing.checks import CHECKS
from checkpoint.testing.kit import ConformanceSuite, run_conformance
from checkpoint.testing.report import ConformanceError, Report, Result
from checkpoint.testing.subject import CAPABILITIES

__all__ = ["CAPABILITIES", "CHECKS", "ConformanceError", "ConformanceSuite", "Report", "Result", "run_conformance"]
