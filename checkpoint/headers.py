"""Headers: what a checkpoint's row says of all its channels, and how one header builds on another.

Decides the bytes of headers, and when one is complete again. Knows neither values nor where bodies go: it is told for
each changed channel where `checkpoint.chains` has put it. Does no I/O.

The first header of a line of checkpoints is *full*; each later one is an *op* on its predecessor, found by `header_root`
(the rev of the full one). Names are stored once per line and are integers after that.

Header op, a list whose empty tail is cut; all maps are flat lists of alternating keys and values:

    [version, changed, extended, rooted, inline, gone, seen, names, sub, updated, versions, facts]

`changed`: new version, same stored value. `extended`: chain got the row seq + 1. `rooted`: new chain `(own rev, 0)`,
which `extended` may name, too. `gone`: new version, no value. `seen`: node, [channel, version, ...]; a negative node is
-1 - node and its map replaces the old one. `updated`: 0 for the sorted channels of the op, -1 for None, -2 for no
channel, else the list. `versions`: those that are not `version`. `facts`: what changed of them, None for what is gone.

Full header: [names, versions, refs (channel, rev - root, seq), inline, seen, sub, updated, extra, facts].

Invariants
1. Folding the headers from a full one up to a checkpoint gives the state that `advance` had after that checkpoint.
2. A header is as long as what changed; all headers of a line together are at most about twice its full ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, Final

from ormsgpack import packb, unpackb

from checkpoint.base import CorruptCheckpointError, StepCommit, Version
from checkpoint.encryption import ENCRYPTED

MAX_HEADER_ROWS: Final = 256
MIN_HEADER_OPS: Final = 2048

Body = tuple[str | None, bytes]
"""(format tag, bytes); the tag is None for the codec's own format."""

SMALL: Final = 0
"""The value lives in the header."""
SAME: Final = 1
"""The stored chain is this value already."""
EXTENDED: Final = 2
"""The chain has got a row."""
ROOTED: Final = 3
"""The value is the first row of a new chain."""
Placed = tuple[str, Body, int, int]
"""(channel, its bytes if they are small, one of the four above, further rows that its chain has got)."""


class Names(dict[str, int]):
    """Name of a channel, node or namespace -> its integer in the headers; a name not met before gets the next one."""

    __slots__ = ()

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self)
        return number


@dataclass(slots=True)
class Header:
    """The folded headers of a line of checkpoints up to one of them."""

    ns: str = ""
    rev: int | None = None
    """The checkpoint it stands for."""
    index: Names = field(default_factory=Names)
    versions: dict[str, Version] = field(default_factory=dict)
    inline: dict[str, Body] = field(default_factory=dict)
    refs: dict[str, list[int]] = field(default_factory=dict)
    """Channel -> [root, seq] of its chain."""
    seen: dict[str, Mapping[str, Version]] = field(default_factory=dict)
    """Node -> versions it last consumed. The maps are replaced, never changed: they may be those of a commit."""
    sub: dict[str, int] = field(default_factory=dict)
    updated: Sequence[str] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Replaced, never changed."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What a public `put` gave beyond the fields of a checkpoint; of this one checkpoint only."""
    root: int = 0
    """Rev of the full header that the line starts with."""
    n_rows: int = 0
    """Headers of the line; 0: the next one is full."""
    n_full: int = 0
    """Bytes of the full header."""
    n_ops: int = 0
    """Bytes of the ops after it."""

    def chains(self, channels: Collection[str] | None = None) -> list[tuple[int, int, int]]:
        """(channel number, root, seq) of every chain, or of those of some channels, ordered."""
        index = self.index
        refs = self.refs if channels is None else {name: self.refs[name] for name in channels if name in self.refs}
        return sorted((index[name], root, seq) for name, (root, seq) in refs.items())


# ---- encode


def advance(header: Header, commit: StepCommit, placed: Sequence[Placed]) -> bytes:
    """Move on to the commit's checkpoint, and return its header: what differs from the one before, or all if that is due.

    Of the commit everything is read but its values: `placed` tells where those went.
    """
    rev, version, updated = commit.rev, commit.version, commit.updated_channels
    index, versions, inline, refs = header.index, header.versions, header.inline, header.refs
    n_names = len(index)
    changed: list[int] = []
    extended: list[int] = []
    rooted: list[int] = []
    inlined: list[Any] = []
    for name, body, place, n_more in placed:
        versions[name] = version
        number = index[name]
        if place == SMALL:
            if inline.get(name) == body:
                changed.append(number)
                continue
            refs.pop(name, None)
            inline[name] = body
            inlined += (number, body[1] if body[0] is None else [*body])
        elif place == EXTENDED:
            refs[name][1] += 1 + n_more
            extended.append(number)
            if n_more:
                extended += [number] * n_more
        elif place == SAME:
            changed.append(number)
        else:
            inline.pop(name, None)
            refs[name] = [rev, n_more]
            rooted.append(number)
            extended += [number] * n_more
    gone: list[int] = []
    for name in commit.gone:
        versions[name] = version
        if inline.pop(name, None) is None:
            refs.pop(name, None)
        gone.append(index[name])
    specials: list[Any] = []
    if commit.versions:
        for name, own in commit.versions.items():
            if own != version:
                versions[name] = own
                specials += (index[name], own)
    seen = _consumed(header, commit.seen) if commit.seen else ()
    sub: list[Any] = []
    if commit.sub:
        for name, nested_rev in commit.sub.items():
            if header.sub.get(name) != nested_rev:
                header.sub[name] = nested_rev
                sub += (index[name], nested_rev)
    header.rev = rev
    header.updated = updated
    if header.extra:
        header.extra = {}
    if commit.facts:
        header.facts = _with_facts(header.facts, commit.facts)
    if 0 < header.n_rows < MAX_HEADER_ROWS:
        # The op's own channels are the updated ones, as nearly always.
        marker = 0 if sorted([*commit.values, *commit.ops]) == updated else _updated_marker(header, commit)
        content: list[Any] = [version, changed, extended, rooted, inlined, gone, seen]
        new = [*islice(index, n_names, None)] if len(index) > n_names else None
        if new or sub or marker or specials or commit.facts:
            content += (new or (), sub, marker, specials, commit.facts)
        while content and not content[-1]:
            content.pop()
        packed = packb(content)
        n_ops = header.n_ops + len(packed)
        if n_ops <= MIN_HEADER_OPS or n_ops <= 2 * header.n_full:
            header.n_ops = n_ops
            header.n_rows += 1
            return packed
    packed = full_header(header, rev)
    header.root = rev
    header.n_rows = 1
    header.n_full = len(packed)
    header.n_ops = 0
    return packed


def _with_facts(known: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in {**known, **news}.items() if fact is not None}


def _updated_marker(header: Header, commit: StepCommit) -> Any:
    """What the op says of updated channels, in whatever order they are given."""
    updated = commit.updated_channels
    if updated is None:
        return -1
    if commit.values.keys() | commit.ops.keys() == set(updated):
        return 0
    return [header.index[name] for name in updated] or -2


def _consumed(header: Header, consumed_by: Mapping[str, Mapping[str, Version]]) -> list[Any]:
    """What nodes have seen since the checkpoint before, for the op: number of each, then its channels and versions."""
    index, seen = header.index, header.seen
    flat: list[Any] = []
    for node, consumed in consumed_by.items():
        known = seen.get(node)
        seen[node] = consumed
        number = index[node]
        news: list[Any] = []
        if known is not None and known.keys() <= consumed.keys():
            for name, own in consumed.items():
                if known.get(name) != own:
                    news += (index[name], own)
            if not news:
                continue
        else:
            for name, own in consumed.items():
                news += (index[name], own)
            if known is not None:
                # A channel the node no longer listens to: all of it again.
                number = -1 - number
        flat += (number, news)
    return flat


def full_header(header: Header, rev: int) -> bytes:
    """All of it, as the header of the checkpoint `rev`, which needs no other."""
    index = header.index
    versions: list[Any] = []
    for name, version in header.versions.items():
        versions += (index[name], version)
    refs: list[Any] = []
    for name, (root, seq) in header.refs.items():
        refs += (index[name], rev - root, seq)
    inline: list[Any] = []
    for name, (tag, data) in header.inline.items():
        inline += (index[name], data if tag is None else [tag, data])
    seen: list[Any] = []
    for node, consumed in header.seen.items():
        flat: list[Any] = []
        for name, version in consumed.items():
            flat += (index[name], version)
        seen += (index[node], flat)
    sub: list[Any] = []
    for name, nested_rev in header.sub.items():
        sub += (index[name], nested_rev)
    updated: Any = -1 if header.updated is None else [index[name] for name in header.updated]
    content = [list(index), versions, refs, inline, seen, sub, updated, header.extra, header.facts]
    while len(content) > 7 and not content[-1]:
        content.pop()
    return packb(content)


# ---- decode


def fold(rows: Sequence[tuple[int, bytes]], ns: str = "") -> Header:
    """The state after the last of these (rev, header), which start with a full one, oldest first.

    Raises `CorruptCheckpointError`.
    """
    header = Header(ns)
    names: list[str] = []
    try:
        for position, (rev, packed) in enumerate(rows):
            content = unpackb(packed)
            if position:
                _fold_op(header, rev, content, names)
                header.n_ops += len(packed)
            else:
                names = _fold_full(header, rev, content)
                header.root = rev
                header.n_full = len(packed)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        if any(packed[:1] == ENCRYPTED for _, packed in rows):
            reason = "it is encrypted; give the saver the EncryptedSerializer it was written with"
            raise CorruptCheckpointError(reason, ns=ns) from None
        raise CorruptCheckpointError(f"header does not decode ({error!r})", ns=ns) from error
    header.rev = rows[-1][0]
    header.n_rows = len(rows)
    return header


def fold_on(header: Header, rev: int, packed: bytes) -> None:
    """Move a folded header on to the next of its line. Raises `CorruptCheckpointError`; it is of no use then."""
    try:
        _fold_op(header, rev, unpackb(packed), [*header.index])
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise CorruptCheckpointError(f"header does not decode ({error!r})", ns=header.ns) from error
    header.rev = rev


def _pairs(flat: Any) -> Iterable[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True) if flat else ()


def _body(stored: Any) -> Body:
    return (None, stored) if isinstance(stored, bytes) else (stored[0], stored[1])


def _fold_full(header: Header, rev: int, content: list[Any]) -> list[str]:
    names: list[str]
    content += [{}] * (9 - len(content))
    names, versions, refs, inline, seen, sub, updated, header.extra, header.facts = content
    header.index = Names(zip(names, count()))
    header.versions = {names[number]: version for number, version in _pairs(versions)}
    header.refs = {names[refs[at]]: [rev - refs[at + 1], refs[at + 2]] for at in range(0, len(refs), 3)}
    header.inline = {names[number]: _body(stored) for number, stored in _pairs(inline)}
    header.seen = {names[node]: {names[n]: version for n, version in _pairs(flat)} for node, flat in _pairs(seen)}
    header.sub = {names[number]: nested for number, nested in _pairs(sub)}
    header.updated = None if updated == -1 else [names[number] for number in updated]
    return names


def _fold_op(header: Header, rev: int, content: list[Any], names: list[str]) -> None:
    content += [[]] * (12 - len(content))
    version, changed, extended, rooted, inline, gone, seen, new, sub, updated, special, facts = content
    for name in new:
        header.index[name] = len(names)
        names.append(name)
    versions, refs = header.versions, header.refs
    for number in changed:
        versions[names[number]] = version
    for number in rooted:
        name = names[number]
        versions[name] = version
        refs[name] = [rev, 0]
        header.inline.pop(name, None)
    for number in extended:
        name = names[number]
        versions[name] = version
        refs[name][1] += 1
    for number, stored in _pairs(inline):
        name = names[number]
        versions[name] = version
        header.inline[name] = _body(stored)
        refs.pop(name, None)
    for number in gone:
        name = names[number]
        versions[name] = version
        refs.pop(name, None)
        header.inline.pop(name, None)
    for number, own in _pairs(special):
        versions[names[number]] = own
    for node, flat in _pairs(seen):
        news = {names[number]: own for number, own in _pairs(flat)}
        if node < 0:
            header.seen[names[-1 - node]] = news
        else:
            header.seen[names[node]] = {**header.seen.get(names[node], {}), **news}
    for number, nested in _pairs(sub):
        header.sub[names[number]] = nested
    if updated == -1:
        header.updated = None
    elif updated == -2:
        header.updated = []
    elif updated:
        header.updated = [names[number] for number in updated]
    else:
        written = [*changed, *extended, *rooted, *(inline[::2] if inline else ())]
        header.updated = sorted({names[number] for number in written})
    if facts:
        header.facts = _with_facts(header.facts, facts)
    header.extra = {}
