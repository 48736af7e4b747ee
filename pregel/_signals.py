"""Signals that ask runs to stop: what a deploy sends a process before it kills it.

Decides what the first, the second and the third signal mean. Knows runs only through their control. Signals are handled
by the standard library's `signal.signal`: Python calls the handler on the main thread, between two bytecodes of whatever
runs there, so nothing here may wait for a lock. That wakes a waiting event loop as well: what the control wakes goes
through `call_soon_threadsafe`.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Protocol, Self

from pregel.errors import shown


class Control(Protocol):
    """What hears of signals: `pregel.runtime.RunControl`."""

    def request_drain(self, reason: str = ...) -> None:
        """At the first one."""

    def request_cancel(self, reason: str = ...) -> None:
        """At the second."""


class SignalHandlers:
    """Handlers that are in place; a context manager that puts the earlier ones back."""

    def __init__(self, control: Control, signals: tuple[int, ...]) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                f"install_signal_handlers() was called on thread {threading.current_thread().name!r}, but Python handles "
                f"signals on the main thread only; install them there, before work is handed to other threads"
            )
        self.control = control
        self.received = 0
        """Signals so far."""
        self._earlier: dict[int, Any] = {}
        try:
            for number in signals or (signal.SIGTERM, signal.SIGINT):
                self._install(number)
        except BaseException:
            self.restore()
            raise

    def _install(self, number: int) -> None:
        if number in self._earlier:
            return
        try:
            earlier = signal.getsignal(number)
            signal.signal(number, self._handle)
        except (ValueError, OSError, TypeError) as error:
            raise ValueError(
                f"install_signal_handlers: {shown(number)} cannot be handled ({error}); give signals of this platform, "
                f"such as signal.SIGTERM, but neither SIGKILL nor SIGSTOP"
            ) from error
        self._earlier[number] = earlier

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received += 1
        reason = f"signal {signal.Signals(number).name}"
        if self.received == 1:
            self.control.request_drain(reason)
        elif self.received == 2:
            self.control.request_cancel(reason)
        else:
            earlier = self._earlier.get(number)
            if callable(earlier):
                earlier(number, frame)
            elif earlier != signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

    def restore(self) -> None:
        """Put the earlier handlers back; where somebody else has put his own meanwhile, they stay."""
        earlier, self._earlier = self._earlier, {}
        for number, handler in earlier.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()
