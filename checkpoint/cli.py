"""The commands of `python -m checkpoint`: look after a file of checkpoints without writing a program.

    verify FILE     is anything damaged?              stats FILE      what takes how much?
    export FILE     checkpoints as lines of JSON      migrate FILE    bring the schema to the newest
    prune FILE      remove old checkpoints            repair FILE     make damaged threads usable again

Decides arguments, output and exit codes: 0 all is well, 1 something is damaged, 2 the command was not understood or the
file cannot be used. `verify`, `stats` and `export` open the file to read only. Errors are one line on stderr, never a
traceback. Progress is shown on stderr, if that is a terminal and it takes longer than a second, or if asked for.

What the commands do is done by `SqliteSaver`; values of classes that this process does not know are shown by name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final, Self

from checkpoint.base import CheckpointError, CorruptCheckpointError, Problem, RunnableConfig, SaverOpenError, Stats
from checkpoint.export import line_of
from checkpoint.sqlite import SqliteSaver, opening
from checkpoint.sqlite.migrations import NEWEST, known_version

OK: Final = 0
DAMAGED: Final = 1
UNUSABLE: Final = 2
_PATIENCE_S: Final = 1.0
"""How long a command works before it shows progress on a terminal."""
_INTERVAL_S: Final = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Bad usage raises `SystemExit(2)`, as argparse does."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough. Python must not try to write the rest at its end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return 130
    except CorruptCheckpointError as damage:
        _complain(damage)
        return DAMAGED
    except (CheckpointError, sqlite3.Error, OSError, ValueError, NotImplementedError) as error:
        _complain(error)
        return UNUSABLE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m checkpoint",
        description="Look after a file of checkpoints.",
        epilog="Exit codes: 0 all is well, 1 something is damaged, 2 bad usage or a file that cannot be used.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    verify = _command(commands, "verify", _verify, "say what is damaged", is_long=True, has_json=True)
    verify.add_argument("--deep", action="store_true", help="also decode every value, and let SQLite check its file")

    stats = _command(commands, "stats", _stats, "say what takes how much", is_long=True, has_json=True)
    stats.add_argument("--top", type=_at_least(0), default=10, metavar="N", help="name the N biggest threads")

    prune = _command(commands, "prune", _prune, "remove old checkpoints")
    prune.add_argument("--keep", type=_at_least(1), required=True, metavar="N", help="keep the N newest of each line")
    prune.add_argument(
        "--older-than", type=_seconds, metavar="SECONDS", help="only what was made longer ago; what is younger stays"
    )
    prune.add_argument("--dry-run", action="store_true", help="do it to a temporary copy, and say what would go")

    _command(commands, "migrate", _migrate, "bring the schema to the newest", has_thread=False)
    _command(commands, "export", _export, "write checkpoints as lines of JSON")

    repair = _command(commands, "repair", _repair, "make damaged threads usable again; steps may be lost")
    backup = repair.add_mutually_exclusive_group()
    backup.add_argument("--backup", metavar="PATH", help="where the file is copied to first; default: FILE.backup")
    backup.add_argument("--no-backup", action="store_true", help="do not copy the file first")
    return parser


def _command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    what: str,
    *,
    is_long: bool = False,
    has_json: bool = False,
    has_thread: bool = True,
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
    command.add_argument("file", metavar="FILE", help="a file that SqliteSaver wrote")
    if has_thread:
        command.add_argument("--thread", metavar="ID", help="only this thread")
    if has_json:
        command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    if is_long:
        command.add_argument("--progress", action="store_true", help="show progress on stderr")
    command.set_defaults(run=run)
    return command


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    number.__name__ = "number"  # argparse names it when the text is none
    return number


def _seconds(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


# ---- commands


def _verify(options: argparse.Namespace) -> int:
    with open_file(options.file, read_only=True) as saver, _Progress("verify", options.progress) as progress:
        problems = saver.verify(_thread_config(saver, options.thread), deep=options.deep, progress=progress)
    if options.json:
        found = [problem._asdict() for problem in problems]
        _say(json.dumps({"file": options.file, "deep": options.deep, "problems": found}))
    else:
        for problem in problems:
            _say(_told(problem))
        _say(f"{len(problems)} problems" if len(problems) != 1 else "1 problem")
    return DAMAGED if problems else OK


def _stats(options: argparse.Namespace) -> int:
    with open_file(options.file, read_only=True) as saver, _Progress("stats", options.progress) as progress:
        stats = saver.stats(_thread_config(saver, options.thread), top=options.top, progress=progress)
    if options.json:
        _say(json.dumps({"file": options.file, **asdict(stats)}))
    else:
        for line in _told_stats(stats):
            _say(line)
    return OK


def _prune(options: argparse.Namespace) -> int:
    check_file(options.file)
    if options.dry_run:
        with tempfile.TemporaryDirectory() as directory:
            copy = os.path.join(directory, "copy.sqlite")
            opening.back_up(options.file, copy)
            with open_file(copy) as saver:
                n_gone = prune(saver, _threads(saver, options.thread), options.keep, options.older_than)
        _say(f"{n_gone} checkpoints would be removed")
        return OK
    with open_file(options.file) as saver:
        n_gone = prune(saver, _threads(saver, options.thread), options.keep, options.older_than)
    _say(f"{n_gone} checkpoints removed")
    return OK


def prune(saver: Any, thread_ids: Sequence[str], keep: int, older_than: float | None = None) -> int:
    """Prune one thread after the other by the saver's own method. Returns how many checkpoints went."""
    more = {} if older_than is None else {"older_than": older_than}
    return sum(saver.prune([thread_id], keep=keep, **more) for thread_id in thread_ids)


def _migrate(options: argparse.Namespace) -> int:
    before = check_file(options.file)
    open_file(options.file).close()
    _say(f"schema version {before} is the newest" if before == NEWEST else f"schema version {before} -> {NEWEST}")
    return OK


def _export(options: argparse.Namespace) -> int:
    code = OK
    with open_file(options.file, read_only=True) as saver:
        for thread_id in _threads(saver, options.thread):
            try:
                for shown in saver.list({"configurable": {"thread_id": thread_id}}):
                    _say(line_of(shown))
            except CorruptCheckpointError as damage:
                # The other threads can be saved.
                _complain(damage)
                code = DAMAGED
    return code


def _repair(options: argparse.Namespace) -> int:
    with open_file(options.file, read_only=True) as saver:
        problems = saver.verify(_thread_config(saver, options.thread), deep=True)
    thread_ids = list(dict.fromkeys(problem.thread_id for problem in problems if problem.thread_id is not None))
    for problem in problems:
        if problem.thread_id is None:
            _say(f"cannot be repaired here: {_told(problem)}")
    if thread_ids and not options.no_backup:
        _say(f"copied to {opening.back_up(options.file, options.backup or _backup_path(options.file))}")
    if thread_ids:
        with open_file(options.file) as saver:
            for thread_id in thread_ids:
                for repair in saver.repair({"configurable": {"thread_id": thread_id}}):
                    _say(_told(Problem(repair.thread_id, repair.ns, repair.checkpoint_id, None, repair.action)))
            problems = saver.verify(_thread_config(saver, options.thread), deep=True)
    for problem in problems:
        _say(f"left: {_told(problem)}")
    if not thread_ids and not problems:
        _say("nothing to repair")
    return DAMAGED if problems else OK


def _backup_path(path: str) -> str:
    n = 1
    while os.path.exists(backup := f"{path}.backup" + (f"-{n}" if n > 1 else "")):
        n += 1
    return backup


# ---- what they share


def open_file(path: str, *, read_only: bool = False) -> SqliteSaver:
    """The saver of an existing file."""
    return SqliteSaver(path, read_only=read_only)


def check_file(path: str) -> int:
    """The schema version of a file that is there. A saver that may write would make it, and its tables.

    Raises `SaverOpenError`, `SchemaVersionError`.
    """
    path = os.path.abspath(path)
    opening.check_place(path, read_only=True)
    with opening.reading(path) as conn:
        version = known_version(conn, path)
    if version == 0:
        raise SaverOpenError(f"{path} has no checkpoints, nor their tables; check the path", path=path)
    return version


def _threads(saver: SqliteSaver, thread_id: str | None) -> list[str]:
    """All threads, or the one given. Raises `ValueError` if it is not stored."""
    thread_ids = list(saver.thread_ids())
    if thread_id is None:
        return thread_ids
    if thread_id not in thread_ids:
        raise ValueError(f"there is no thread {thread_id!r} in the file; `stats` names the biggest ones")
    return [thread_id]


def _thread_config(saver: SqliteSaver, thread_id: str | None) -> RunnableConfig | None:
    return None if thread_id is None else {"configurable": {"thread_id": _threads(saver, thread_id)[0]}}


def _told(problem: Problem) -> str:
    names = ("thread", "namespace", "checkpoint", "channel")
    place = ", ".join(f"{name} {value!r}" for name, value in zip(names, problem, strict=False) if value is not None)
    return f"{place or 'the file'}: {problem.reason}"


def _told_stats(stats: Stats) -> Iterator[str]:
    yield f"threads      {stats.threads:>14,}"
    yield f"checkpoints  {stats.checkpoints:>14,}   and {stats.stubs:,} stubs of removed ones"
    yield f"headers      {stats.header_bytes:>14,} B"
    yield f"task writes  {stats.task_bytes:>14,} B in {stats.task_rows:,} rows"
    yield f"garbage      {stats.garbage:>14,} B"
    yield f"file         {stats.file_bytes:>14,} B"
    yield f"log (WAL)    {stats.wal_bytes:>14,} B"
    if stats.bytes_by_channel:
        yield "channels, with the rows of their longest chain:"
    for name, n_bytes in stats.bytes_by_channel.items():
        yield f"  {n_bytes:>14,} B {stats.chain_lengths[name]:>6,}  {name!r}"
    if stats.biggest_threads:
        yield "biggest threads:"
    for thread_id, n_bytes in stats.biggest_threads:
        yield f"  {n_bytes:>14,} B  {thread_id!r}"


def _say(line: str) -> None:
    # Names of others may have halves of surrogate pairs in them, which no encoding takes.
    sys.stdout.write(line.encode("utf-8", "backslashreplace").decode() + "\n")


def _complain(error: BaseException) -> None:
    text = " ".join(str(error).split()) or type(error).__name__
    sys.stderr.write(f"python -m checkpoint: {text}\n".encode("utf-8", "backslashreplace").decode())


class _Progress:
    """Says on stderr how far a command is."""

    def __init__(self, command: str, always: bool) -> None:
        self._command = command
        self._always = always
        self._is_terminal = sys.stderr.isatty()
        self._next = time.monotonic() + (0 if always else _PATIENCE_S)
        self._last = ""
        self._has_shown = False

    def __call__(self, n_threads: int, n_rows: int) -> None:
        self._last = f"{self._command}: {n_threads:,} threads, {n_rows:,} rows"
        if (self._always or self._is_terminal) and time.monotonic() >= self._next:
            self._next = time.monotonic() + _INTERVAL_S
            self._show("\r" if self._is_terminal else "\n")

    def _show(self, end: str) -> None:
        self._has_shown = True
        sys.stderr.write(self._last + end)
        sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last and (self._has_shown or self._always):
            self._show("\n")
