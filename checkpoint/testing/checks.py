"""The register of the checks of savers. The checks themselves are in the modules named after their level."""

from __future__ import annotations

from typing import Final

from checkpoint.testing.register import Check, Register
from checkpoint.testing.subject import Subject


class _Savers(Register[Subject]):
    def afterwards(self, check: Check[Subject], subject: Subject, capabilities: frozenset[str]) -> None:
        """A saver that can verify itself finds nothing wrong with what a check has left."""
        if "verify" in capabilities and check.level != "base" and (problems := subject.verify()):
            raise AssertionError(f"the rule holds, and yet verify() finds: {list(problems)[:3]!r}")


REGISTER: Final = _Savers("checkpoint.testing", "saver")
CHECKS: Final = REGISTER.checks
"""All checks by name, in the order in which they run."""
check = REGISTER.check
