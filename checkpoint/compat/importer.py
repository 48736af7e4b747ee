"""`import_langgraph`: threads of a file of LangGraph's SQLite saver, as rows of one of our savers.

Decides what becomes of a thread: its checkpoints in the order of their ids, which is that of their making; every
namespace; parents, versions, metadata and pending writes as they are; values as deltas wherever a checkpoint follows the
one before it. Knows neither the file's tables nor its bytes (`source`, `values`), nor where rows go: a saver's own
transaction takes them.

Invariants
1. A thread is stored whole, in one transaction, or not at all: all that can be refused is refused before it begins.
2. A thread that is there already is left alone.
3. What is not imported is reported with its place. Nothing is dropped silently, with two exceptions that LangGraph makes
   itself: a resume value that a task has used, and the format number.

Source: storage.md C8; persistence.md A1, A4.2 and A4.5; design.md D25 for nested namespaces, D26 for versions.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

from checkpoint import ids
from checkpoint.base import (
    INTERRUPT,
    LANE_BIT,
    NUMBER_SHIFT,
    RESUME,
    TASKS,
    WRITES_IDX_MAP,
    Append,
    CheckpointError,
    Claim,
    StepCommit,
    TaskWrites,
    Version,
    namespace_above,
)
from checkpoint.chains import (
    PUBLIC_PUT,
    SOURCES,
    CheckpointRow,
    Codec,
    PayloadRow,
    PlainWrite,
    Space,
    encode_commit,
    encode_task,
    json_text,
    seal,
)
from checkpoint.compat.names import Names, Outline, Step, depth_of, is_null, sends_in
from checkpoint.compat.source import Source, SourceRow, SourceWrite
from checkpoint.compat.values import Decoder, Types, Unread, node_of_send, question_ids
from checkpoint.deltas import joined
from checkpoint.headers import Body, Header
from checkpoint.row_saver import RowSaver
from checkpoint.serde.jsonplus import JsonPlusSerializer
from checkpoint.workers import Worker

Progress = Callable[[str, int, int], None]
"""Is given the id of the thread that was just looked at, how many were so far, and how many there are."""

_NEW_FORMAT: Final = 4
"""`Checkpoint["v"]` from which sends are in their channel."""
_DELTA_KEY: Final = "counters_since_delta_snapshot"
_DAMAGE: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
"""What code that takes the file at its word runs into when it is not what it seems."""


@dataclass(slots=True)
class Imported:
    """What an import did."""

    threads: list[str] = field(default_factory=list)
    """Stored now; with `saver=None`, what would have been."""
    skipped: list[str] = field(default_factory=list)
    """Stored by an earlier import: their newest checkpoint is there."""
    refused: list[Unread] = field(default_factory=list)
    """Why threads were not stored. A thread can have several reasons."""
    opaque: list[Unread] = field(default_factory=list)
    """With `unknown="opaque"`: values that were kept as they are."""
    notes: list[str] = field(default_factory=list)
    """What is stored, but will not take effect."""
    n_checkpoints: int = 0
    n_writes: int = 0

    @property
    def unknown_types(self) -> dict[str, int]:
        """Stored name of a type that was not known -> number of values."""
        return dict(Counter(unread.type for unread in (*self.refused, *self.opaque)))


class IncompleteImportError(CheckpointError):
    """Some threads could not be imported, and are not stored. All others are."""

    def __init__(self, path: str, imported: Imported) -> None:
        places = imported.refused
        first = places[0]
        n_threads = len({unread.thread_id for unread in places})
        types = ", ".join(imported.unknown_types)
        super().__init__(
            f"import_langgraph: {n_threads} of the threads in {path!r} are not imported; the first: thread "
            f"{first.thread_id!r}, namespace {first.ns!r}, checkpoint {first.checkpoint_id!r}, channel {first.channel!r}: "
            f"{first.type}: {first.reason} (all: {types:.300}); list their classes in types=, or pass unknown='opaque', "
            f"and run the import again: threads that are stored are skipped"
        )
        self.imported = imported


def import_langgraph(
    path: str | Path,
    saver: Any,
    *,
    types: Types = (),
    thread_ids: Iterable[str] | None = None,
    unknown: Literal["refuse", "opaque"] = "refuse",
    decrypt: Callable[[str, bytes], bytes] | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Copy threads from a file of LangGraph's SQLite saver into a saver of this package.

    Afterwards a graph continues them: state, history, forks, questions that are open and results of siblings that had
    finished. Ids of checkpoints stay; ids of tasks and questions are new. Versions that were text stay text.

    The file is opened to read only. Each thread is stored in one transaction or not at all, and skipped if a former
    import stored it. Nothing that the file names is imported or called: what it may hold is the standard types,
    LangGraph's control values, `types` and registered classes. Costs one decoding of every checkpoint, since the file has
    the whole state in each, and memory for one thread.

    Args:
        path: the file. A program that still writes it does no harm; its newest steps may not be seen.
        saver: an `InMemorySaver` or `SqliteSaver`; None to store nothing and only report.
        types: classes that the values may have, which are registered too; or a dict from stored name (`module:name`,
            where the class was then) to the class, or to a function of the stored payload.
        thread_ids: only these.
        unknown: what becomes of values of other types: `"refuse"` the thread, or keep them `"opaque"`, readable
            when their class is registered.
        decrypt: for a file of an encrypting serializer: (name of the cipher, bytes) -> bytes.
        progress: called after each thread.

    Raises:
        CheckpointError: the file is not one of LangGraph's SQLite saver, or cannot be read.
        IncompleteImportError: some threads are not stored; it says why, and carries what was done.
        TypeError: `saver` is none of ours.
        ValueError: `unknown` is neither of the two words.
    """
    with _Import(path, saver, types, unknown, decrypt) as work:
        chosen = work.chosen(thread_ids)
        for n_done, thread_id in enumerate(chosen, 1):
            work.bring(thread_id)
            if progress is not None:
                progress(thread_id, n_done, len(chosen))
        return work.result()


async def aimport_langgraph(
    path: str | Path,
    saver: Any,
    *,
    types: Types = (),
    thread_ids: Iterable[str] | None = None,
    unknown: Literal["refuse", "opaque"] = "refuse",
    decrypt: Callable[[str, bytes], bytes] | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Async form of `import_langgraph`: reads and writes on a thread of its own; `progress` is called on the loop.

    A cancelled import ends after the thread it is at, which is then stored or not.
    """
    worker = Worker("checkpoint-import")
    work: _Import = await worker.post(partial(_Import, path, saver, types, unknown, decrypt)).shielded()
    try:
        chosen: list[str] = await worker.post(partial(work.chosen, thread_ids)).shielded()
        for n_done, thread_id in enumerate(chosen, 1):
            await worker.post(partial(work.bring, thread_id)).shielded()
            if progress is not None:
                progress(thread_id, n_done, len(chosen))
        return work.result()
    finally:
        await worker.post(work.close).shielded()


# ---- one import


class _Stored(NamedTuple):
    """One checkpoint as rows."""

    ns: str
    row: CheckpointRow
    payloads: Sequence[PayloadRow]
    writes: list[PlainWrite]


@dataclass(slots=True)
class _Line:
    """Checkpoints of a namespace that follow each other, up to the newest of them."""

    space: Space
    tip: str
    """Id of that one."""
    versions: dict[str, Version] = field(default_factory=dict)
    bodies: dict[str, Body] = field(default_factory=dict)
    """Channel -> bytes of its value."""
    seen: dict[str, Any] = field(default_factory=dict)


class _Import:
    """A file, a saver, and what was done so far."""

    def __init__(
        self,
        path: str | Path,
        saver: Any,
        types: Types,
        unknown: str,
        decrypt: Callable[[str, bytes], bytes] | None,
    ) -> None:
        if saver is not None and not isinstance(saver, RowSaver):
            raise TypeError(
                f"import_langgraph: saver is a {type(saver).__module__}.{type(saver).__qualname__}; it must be an "
                f"InMemorySaver or a SqliteSaver of this package (or None, to store nothing)"
            )
        if unknown not in ("refuse", "opaque"):
            raise ValueError(f"import_langgraph: unknown={unknown!r}; it must be 'refuse' or 'opaque'")
        self.saver: RowSaver | None = saver
        self.keep = unknown == "opaque"
        self.decoder = Decoder(types, keep=self.keep, decrypt=decrypt)
        self.imported = Imported()
        self.source = Source(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        self.source.close()

    def chosen(self, thread_ids: Iterable[str] | None) -> list[str]:
        """The threads to bring, in the order of the file."""
        there = self.source.threads()
        if thread_ids is None:
            return there
        wanted = {str(thread_id) for thread_id in thread_ids}
        missing = wanted.difference(there)
        if missing:
            raise CheckpointError(
                f"import_langgraph: {str(self.source.path)!r} has no thread {min(missing)!r}; it has {len(there)} "
                f"threads: {there[:5]!r:.200}"
            )
        return [thread_id for thread_id in there if thread_id in wanted]

    def result(self) -> Imported:
        """What was done. Raises `IncompleteImportError` if something was not."""
        if self.imported.refused:
            raise IncompleteImportError(str(self.source.path), self.imported)
        return self.imported

    def bring(self, thread_id: str) -> None:
        """Store one thread, or note why not."""
        thread = _Thread(self, thread_id)
        if self._is_there(thread):
            return
        stored: list[_Stored] = []
        try:
            stored = thread.read()
        except CheckpointError as error:
            thread.refuse("checkpoint", str(error))
        except _DAMAGE as error:
            thread.refuse("checkpoint", f"the rows do not fit together: {error!r:.200}")
        if not thread.unread:
            self._store(thread, stored)
        if thread.unread:
            self.imported.refused += thread.unread
            return
        self.imported.threads.append(thread_id)
        self.imported.opaque += thread.opaque
        self.imported.notes += thread.notes
        self.imported.n_checkpoints += len(stored)
        self.imported.n_writes += sum(len(step.writes) for step in stored)

    def _is_there(self, thread: _Thread) -> bool:
        """Has the saver a thread of this id? Then it is left alone, whether it is this one or another."""
        saver, thread_id = self.saver, thread.thread_id
        if saver is None:
            return False
        saver._settle(thread_id)
        with saver._reading() as rows:
            if rows.address(thread_id, "") is None:
                return False
            # Older ones may have been pruned since.
            is_same = rows.rev_in_thread(thread_id, self.source.newest(thread_id)) is not None
        if is_same:
            self.imported.skipped.append(thread_id)
        else:
            thread.refuse_other()
            self.imported.refused += thread.unread
        return True

    def _store(self, thread: _Thread, stored: Sequence[_Stored]) -> None:
        saver, thread_id = self.saver, thread.thread_id
        if saver is None:
            return
        with saver._writing() as tx:
            if tx.address(thread_id, "") is not None:
                # Made since `_is_there` looked.
                thread.refuse_other()
                return
            salt = ids.new_salt()
            thread_pk = tx.take(thread_id, salt)
            for _ in range(1, thread.n_claims):
                tx.take(thread_id, salt)
            spaces: dict[str, Any] = {}
            heads: dict[str, int] = {}
            for ns, row, payloads, writes in stored:
                if ns not in spaces:
                    spaces[ns] = tx.open_space(thread_pk, ns)
                space_pk = spaces[ns]
                tx.add_payloads(space_pk, payloads)
                tx.put_checkpoint(space_pk, row)
                if ids.rev_of(row.id, salt) != row.rev:
                    tx.add_alias(space_pk, row.id, row.rev)
                if writes:
                    tx.add_writes(space_pk, writes)
                heads[ns] = row.rev
            for ns, rev in heads.items():
                tx.set_head(spaces[ns], rev)


class _Thread:
    """One thread on its way: read, renamed, encoded."""

    def __init__(self, work: _Import, thread_id: str) -> None:
        self.work = work
        self.decoder = work.decoder
        self.source = work.source
        self.thread_id = thread_id
        self.unread: list[Unread] = []
        self.opaque: list[Unread] = []
        self.notes: list[str] = []
        self.n_claims = 1
        saver = work.saver
        own = saver._codec() if saver is not None else Codec(JsonPlusSerializer())
        # A serializer that encrypts does so when rows are stored; here they are made.
        self.codec = Codec(getattr(own, "inner", own.serde))
        self.claim = Claim(thread_id, None, 0, 0, 1)
        self.outlines: dict[tuple[str, str], Outline] = {}
        self.lines: dict[str, _Line] = {}
        self.revs: dict[tuple[str, str], int] = {}
        self.subs: dict[tuple[str, str | None], dict[str, int]] = {}
        """Checkpoint -> newest checkpoint of every stable namespace under its graph (D25)."""
        self.under: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        """Checkpoint -> newest checkpoint of every stable namespace that worked under it."""

    def refuse(self, what: str, reason: str, ns: str = "", checkpoint_id: str = "", channel: str = "") -> None:
        """Note what was not read."""
        self.unread.append(Unread(self.thread_id, ns, checkpoint_id, channel, what, reason))

    def refuse_other(self) -> None:
        """Note that the id is taken."""
        self.refuse(
            "thread", "the saver has a thread of this id, without its newest checkpoint; delete or copy that one first"
        )

    # ---- all of it

    def read(self) -> list[_Stored]:
        """The rows of the thread; what could not be read is in `unread`."""
        self.rows = {(row.ns, row.id): row for row in self.source.checkpoints(self.thread_id)}
        self.metadata = {key: _metadata(row) for key, row in self.rows.items()}
        self.steps: dict[tuple[str, str], dict[str, list[SourceWrite]]] = defaultdict(lambda: defaultdict(list))
        for write in self.source.writes(self.thread_id):
            self.steps[write.ns, write.checkpoint_id][write.task_id].append(write)
        parents: dict[str, dict[str, str]] = {}
        for ns, checkpoint_id in self.rows:
            parents.setdefault(ns, self.metadata[ns, checkpoint_id].get("parents") or {})
        known = {
            (ns, checkpoint_id): Step(ns, checkpoint_id, {task: writes[0].path for task, writes in tasks.items()})
            for (ns, checkpoint_id), tasks in self.steps.items()
            if (ns, checkpoint_id) in self.rows
        }
        self.names = Names(known, parents, self._outline)
        self._name_questions()
        self.decoder.questions = self.names.questions
        stored = [self._checkpoint(row, number) for number, row in enumerate(self.rows.values())]
        self._note()
        return [step for step in stored if step is not None]

    def _name_questions(self) -> None:
        for ns, checkpoint_id in sorted(self.steps, key=lambda key: -depth_of(key[0])):
            for task_id, writes in self.steps[ns, checkpoint_id].items():
                special = {write.channel: write for write in writes}
                if INTERRUPT in special and ns in self.names.spaces:
                    asked = question_ids(self.decoder.outline(special[INTERRUPT].blob))
                    n_answers = self._n_answers(special.get(RESUME))
                    self.names.name_questions(ns, checkpoint_id, task_id, asked, n_answers)

    def _n_answers(self, write: SourceWrite | None) -> int:
        answers = None if write is None else self.decoder.outline(write.blob)
        return len(answers) if isinstance(answers, list) else 0

    def _outline(self, ns: str, checkpoint_id: str) -> Outline:
        known = self.outlines.get((ns, checkpoint_id))
        if known is None:
            known = self.outlines[ns, checkpoint_id] = self._made_outline(ns, checkpoint_id)
        return known

    def _made_outline(self, ns: str, checkpoint_id: str) -> Outline:
        row = self.rows.get((ns, checkpoint_id))
        found = None if row is None else self.decoder.outline(self.source.blob(row))
        if row is None or not isinstance(found, dict):
            return Outline((), ())
        values = found.get("channel_values") or {}
        sends = values.get(TASKS) or found.get("pending_sends") or []
        if found.get("v", 1) < _NEW_FORMAT and not sends:
            sends = [self.decoder.outline(write.blob) for write in self._old_sends(row)]
        step = self.metadata[ns, checkpoint_id].get("step")
        return Outline(
            [*values],
            sends_in(sends, node_of_send),
            [*(found.get("channel_versions") or ())],
            step + 1 if isinstance(step, int) else 0,
        )

    def _old_sends(self, row: SourceRow) -> list[SourceWrite]:
        """The writes that were a checkpoint's sends, when these were kept with its parent."""
        tasks = self.steps.get((row.ns, row.parent_id or ""), {})
        sends = [write for writes in tasks.values() for write in writes if write.channel == TASKS]
        return sorted(sends, key=lambda write: (write.path, write.task_id, write.position))

    def _note(self) -> None:
        newest = dict(self.rows.keys())
        for ns, checkpoint_id, task_id in self.names.unmatched:
            if newest.get(ns) == checkpoint_id:
                self.notes.append(
                    f"thread {self.thread_id!r}, namespace {ns!r}: it is not known which task wrote as {task_id!r}; "
                    f"if the thread goes on from checkpoint {checkpoint_id!r}, that task runs again"
                )

    # ---- one checkpoint

    def _checkpoint(self, row: SourceRow, number: int) -> _Stored | None:
        n_before = len(self.unread)
        metadata = self.metadata[row.ns, row.id]
        if _DELTA_KEY in metadata:
            self.refuse("langgraph:DeltaChannel", "channels that store writes are not read", row.ns, row.id)
            return None
        checkpoint = self._decoded(row)
        claim, n = divmod(number, LANE_BIT - 1)
        rev = (claim + 1) << NUMBER_SHIFT | (n + 1)
        self.n_claims = claim + 1
        self.revs[row.ns, row.id] = rev
        writes = list(self._task_rows(row, rev))
        if checkpoint is None or len(self.unread) > n_before:
            return None
        try:
            stored, payloads = self._encoded(row, rev, checkpoint, metadata)
        except (CheckpointError, TypeError) as refusal:
            self.refuse("", str(refusal), row.ns, row.id, getattr(refusal, "channel", None) or "")
            return None
        return _Stored(self.names.spaces[row.ns], stored, payloads, writes)

    def _decoded(self, row: SourceRow) -> dict[str, Any] | None:
        blob = self.source.blob(row)
        checkpoint = self.decoder.value(blob)
        if self.decoder.troubles:
            # Again, channel by channel, to say where.
            outline = self.decoder.outline(blob)
            if isinstance(outline, dict) and isinstance(outline.get("channel_values"), dict):
                self.decoder.troubles = []
                for channel, value in outline["channel_values"].items():
                    self.decoder.resolved(value)
                    self._take_troubles(row, channel)
            self._take_troubles(row, "")
        if not isinstance(checkpoint, dict) or not {"channel_values", "channel_versions"} <= checkpoint.keys():
            self.refuse("", "it is not a checkpoint", row.ns, row.id)
            return None
        if checkpoint.get("v", 1) < _NEW_FORMAT:
            sends = list(checkpoint.get("pending_sends") or ())
            sends = sends or [self.decoder.value(write.blob) for write in self._old_sends(row)]
            self._take_troubles(row, TASKS)
            versions = checkpoint["channel_versions"]
            if sends and TASKS not in checkpoint["channel_values"]:
                checkpoint["channel_values"][TASKS] = sends
                versions[TASKS] = max(versions.values()) if versions else 1
                if checkpoint.get("updated_channels") is not None:
                    checkpoint["updated_channels"].append(TASKS)
        return checkpoint

    def _take_troubles(self, row: SourceRow, channel: str) -> None:
        troubles, self.decoder.troubles = self.decoder.troubles, []
        for type_, reason, kept in dict.fromkeys(troubles):
            places = self.opaque if kept else self.unread
            places.append(Unread(self.thread_id, row.ns, row.id, channel, type_, reason))

    def _encoded(
        self, row: SourceRow, rev: int, checkpoint: dict[str, Any], metadata: dict[str, Any]
    ) -> tuple[CheckpointRow, Sequence[PayloadRow]]:
        values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        seen = checkpoint.get("versions_seen") or {}
        line = self._line(row, versions, seen)
        changed, ops, bodies = self._changed(line, values, versions)
        gone = [
            name
            for name, version in versions.items()
            if name not in values and (line.versions.get(name) != version or name in line.bodies)
        ]
        moved = {name: versions.get(name, _no_version(versions)) for name in (*changed, *ops, *gone)}
        common = Counter(moved.values()).most_common(1)
        version = common[0][0] if common else max(versions.values(), default=0)
        around = namespace_above(row.ns)
        up_id = (metadata.get("parents") or {}).get(around) if row.ns else None
        us = ids.timestamp_to_us(checkpoint.get("ts") or "")
        updated = checkpoint.get("updated_channels")
        source, step, run_id, flags, text = self._columns(metadata)
        parent_rev = self.revs.get((row.ns, row.parent_id)) if row.parent_id is not None else None
        commit = StepCommit(
            self.claim,
            self.names.spaces[row.ns],
            "checkpoint",
            step=step,
            checkpoint_id=row.id,
            rev=rev,
            ts=us or 0,
            parent_rev=parent_rev,
            parent_id=row.parent_id,
            up_rev=self.revs.get((around, up_id)) if up_id is not None else None,
            run_id=run_id,
            version=version,
            values=changed,
            ops=ops,
            gone=gone,
            versions=moved,
            seen={node: consumed for node, consumed in seen.items() if line.seen.get(node) != consumed},
            updated_channels=None if updated is None else list(updated),
            sub=self._sub(row, rev, around, up_id),
        )
        encoded = encode_commit(commit, self.codec)
        plain = seal(encoded, self.codec)
        assert plain is not None
        line.tip, line.versions, line.bodies, line.seen = row.id, versions, bodies, seen
        sealed = CheckpointRow._make(plain)._replace(source=source, flags=flags, metadata=text)
        if us is None:
            sealed = sealed._replace(ts=str(checkpoint.get("ts") or ""))
        return sealed, encoded.payloads

    def _line(self, row: SourceRow, versions: Mapping[str, Any], seen: Mapping[str, Any]) -> _Line:
        """The line that the checkpoint goes on; a new one for a fork, and when something vanished that no delta says."""
        line = self.lines.get(row.ns)
        if (
            line is None
            or line.tip != row.parent_id
            or line.versions.keys() - versions.keys()
            or line.seen.keys() - seen.keys()
        ):
            ns = self.names.spaces[row.ns]
            line = self.lines[row.ns] = _Line(Space(ns, header=Header(ns)), row.id)
            self.claim.spaces[ns] = line.space
        return line

    def _changed(
        self, line: _Line, values: Mapping[str, Any], versions: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Append], dict[str, Body]]:
        """The values that differ from the checkpoint before or have another version, the lists among them that grew; and
        the bytes of all."""
        changed: dict[str, Any] = {}
        grown: dict[str, Append] = {}
        bodies: dict[str, Body] = {}
        for name, value in values.items():
            body = bodies[name] = self.codec.pack_channel(name, value)
            before = line.bodies.get(name)
            if before == body and line.versions.get(name) == versions.get(name):
                continue
            start = self._common(before, body) if type(value) is list and before is not None else 0
            if start:
                grown[name] = Append(value, start)
            else:
                changed[name] = value
        return changed, grown, bodies

    def _common(self, before: Body, body: Body) -> int:
        """Elements of a stored list, if a later one begins with them; else 0. Judged by bytes: objects say nothing here."""
        old = joined([before]) if self.codec.is_plain else None
        new = joined([body]) if old is not None else None
        return old[0] if old is not None and new is not None and new[1].startswith(old[1]) else 0

    def _columns(self, metadata: Mapping[str, Any]) -> tuple[int, int, str | None, int, str | None]:
        """(source, step, run id, flags, JSON of the rest) of metadata."""
        rest = dict(metadata)
        source, step, flags = SOURCES.get(str(rest.get("source")), 0), rest.get("step"), 0
        if source and isinstance(step, int) and not isinstance(step, bool):
            del rest["source"], rest["step"]
        else:
            source, step = 0, 0
        parents = rest.pop("parents", None)
        if not isinstance(parents, dict):
            flags = PUBLIC_PUT
        elif parents:
            spaces = self.names.spaces
            rest["parents"] = {spaces.get(ns, ns): checkpoint_id for ns, checkpoint_id in parents.items()}
        run_id = rest.pop("run_id", None) if isinstance(rest.get("run_id"), str) else None
        return source, step, run_id, flags, json_text(rest) if rest else None

    def _sub(self, row: SourceRow, rev: int, around: str, up_id: str | None) -> dict[str, int]:
        """Where nested runs with a state of their own stand at this checkpoint, and note it if this is one of theirs."""
        if up_id is not None and not row.ns.rpartition("|")[2].partition(":")[1]:
            self.under[around, up_id][self.names.spaces[row.ns]] = rev
        before = self.subs.get((row.ns, row.parent_id), {})
        sub = {**before, **self.under.get((row.ns, row.parent_id or ""), {})}
        self.subs[row.ns, row.id] = sub
        return sub

    # ---- its task writes

    def _task_rows(self, row: SourceRow, rev: int) -> Iterator[PlainWrite]:
        for task_id, writes in self.steps.get((row.ns, row.id), {}).items():
            new_id = self.names.task(row.ns, row.id, task_id)
            path = next((write.path for write in writes if write.path), "")
            regular: list[tuple[str, Any]] = []
            for write in writes:
                if write.channel == RESUME and is_null(task_id) and self._is_used(row):
                    continue
                asked = write.channel == INTERRUPT
                self.decoder.own_question = self.names.question(row.ns, row.id, task_id, 0) if asked else None
                value = self.decoder.value(write.blob)
                self._take_troubles(row, write.channel)
                slot = WRITES_IDX_MAP.get(write.channel, 0)
                if slot:
                    yield from self._task_row(
                        row, TaskWrites(rev, row.id, new_id, path, slot, [(write.channel, value)])
                    )
                else:
                    regular.append((write.channel, value))
            if regular:
                yield from self._task_row(row, TaskWrites(rev, row.id, new_id, path, 0, regular))

    def _task_row(self, row: SourceRow, task: TaskWrites) -> Iterator[PlainWrite]:
        try:
            yield encode_task(task, self.codec)
        except (CheckpointError, TypeError) as refusal:
            self.refuse("", str(refusal), row.ns, row.id, task.writes[0][0])

    def _is_used(self, row: SourceRow) -> bool:
        """Has a task of this step, or one nested in it, taken the value that the run was resumed with?

        LangGraph leaves the value beside the answer it has become, and would give it to the next question, too.
        """
        for (ns, checkpoint_id), tasks in self.steps.items():
            own = (ns, checkpoint_id) == (row.ns, row.id)
            if own or self.metadata.get((ns, checkpoint_id), {}).get("parents", {}).get(row.ns) == row.id:
                for task_id, writes in tasks.items():
                    if not is_null(task_id) and any(write.channel == RESUME for write in writes):
                        return True
        return False


def _metadata(row: SourceRow) -> dict[str, Any]:
    found = json.loads(row.metadata) if row.metadata else {}
    if not isinstance(found, dict):
        raise ValueError(f"metadata of checkpoint {row.id!r} is {found!r:.100}, no dict")
    return found


def _no_version(versions: Mapping[str, Version]) -> Version:
    """The version of a channel that has a value and no version: less than every other of its kind."""
    return "" if any(isinstance(version, str) for version in versions.values()) else 0
