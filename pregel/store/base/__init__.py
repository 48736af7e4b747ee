"""The contract of a key-value store: items, operations, and the methods that make operations.

Decides what an operation means and what it may ask; how the public methods of both colours become operations; which
namespaces are names. Does not know where items are kept: a store implements `batch` and `abatch`, nothing else. What a
filter means is in `pregel.store.filters`, what is embedded in `embed`; their public names are exported here as well.
`batch` has the base class of stores whose async calls are carried out together.

Invariants, of every store of ours
1. A batch is checked as a whole before it changes anything, and applied in order: an operation sees those before it.
2. What is returned is the caller's own: changing it changes nothing stored, and nothing stored changes it.
3. An expired item is not there, swept or not.
4. Reading never makes anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

from typing_extensions import TypedDict

from checkpoint.registry import register_codec
from pregel.errors import shown
from pregel.store.base.embed import (
    AEmbeddingsFunc,
    Embeddings,
    EmbeddingsFunc,
    Measure,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
)
from pregel.store.filters import check_filter

__all__ = [
    "NOT_PROVIDED",
    "AEmbeddingsFunc",
    "BaseStore",
    "Embeddings",
    "EmbeddingsFunc",
    "GetOp",
    "IndexConfig",
    "InvalidNamespaceError",
    "Item",
    "ListNamespacesOp",
    "MatchCondition",
    "NamespaceMatchType",
    "NamespacePath",
    "NotProvided",
    "Op",
    "PutOp",
    "Result",
    "SearchItem",
    "SearchOp",
    "TTLConfig",
    "VersionConflictError",
    "checked_ops",
    "ensure_embeddings",
    "get_text_at_path",
    "matches_conditions",
    "tokenize_path",
    "validate_op_namespace",
]

NamespacePath: TypeAlias = tuple[str, ...]
"""Labels from the root; a label `*` stands for any one label where a path is a condition."""
NamespaceMatchType: TypeAlias = Literal["prefix", "suffix"]


class InvalidNamespaceError(ValueError):
    """A namespace that cannot be one. Nothing was stored."""


class VersionConflictError(Exception):
    """A put or delete that was to replace one version of an item found another. Nothing of its batch was carried out.

    `expected` and `found` are versions; 0 stands for no item.
    """

    def __init__(self, namespace: tuple[str, ...], key: str, expected: int, found: int) -> None:
        self.namespace, self.key, self.expected, self.found = namespace, key, expected, found
        have = f"version {found}" if found else "no item"
        super().__init__(
            f"put of key {shown(key)} in {shown(namespace)} was to replace version {expected}, but there is {have}; "
            f"nothing of the batch was carried out; get the item again and decide anew"
        )

    def __reduce__(self) -> Any:
        return type(self), (self.namespace, self.key, self.expected, self.found)


class NotProvided:
    """The class of `NOT_PROVIDED`: an argument that was omitted, where None means something."""

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "NOT_PROVIDED"


NOT_PROVIDED: Final = NotProvided()


class Item:
    """A stored value and where it is. Two items are equal if value, key, namespace and both times are.

    Args:
        value: the caller's own.
        key: unique in its namespace.
        namespace: a tuple or list of labels; kept as a tuple.
        created_at: when the key was first put; a datetime or ISO-8601 text.
        updated_at: when it was last put.
        version: counts the puts since the key was made, from 1; None if the store does not count. Not compared.
    """

    __slots__ = ("created_at", "key", "namespace", "updated_at", "value", "version")

    def __init__(
        self,
        *,
        value: dict[str, Any],
        key: str,
        namespace: tuple[str, ...],
        created_at: datetime | str,
        updated_at: datetime | str,
        version: int | None = None,
    ) -> None:
        self.value = value
        self.key = key
        self.namespace = tuple(namespace)
        self.created_at = _as_date(created_at)
        self.updated_at = _as_date(updated_at)
        self.version = version

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Item):
            return NotImplemented
        return (
            self.key == other.key
            and self.namespace == other.namespace
            and self.value == other.value
            and self.created_at == other.created_at
            and self.updated_at == other.updated_at
        )

    def __hash__(self) -> int:
        return hash((self.namespace, self.key))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.dict().items())})"

    def dict(self) -> dict[str, Any]:
        """The fields as JSON would have them: the namespace as a list, times as ISO-8601 text."""
        return {
            "namespace": list(self.namespace),
            "key": self.key,
            "value": self.value,
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }


class SearchItem(Item):
    """An item that was found. The score takes no part in comparing.

    Args:
        namespace: as for `Item`, like all but the score.
        key: see there.
        value: see there.
        created_at: see there.
        updated_at: see there.
        score: similarity to the query, higher is nearer; None if the item was not found by meaning.
        version: see there.
    """

    __slots__ = ("score",)

    def __init__(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: dict[str, Any],
        created_at: datetime | str,
        updated_at: datetime | str,
        score: float | None = None,
        version: int | None = None,
    ) -> None:
        super().__init__(
            value=value, key=key, namespace=namespace, created_at=created_at, updated_at=updated_at, version=version
        )
        self.score = score

    def dict(self) -> dict[str, Any]:
        """The fields as JSON would have them, with the score."""
        return {**super().dict(), "score": self.score}


class GetOp(NamedTuple):
    """Get one item; None if there is none."""

    namespace: tuple[str, ...]
    key: str
    refresh_ttl: bool = True
    """Start the item's time to live anew."""


class SearchOp(NamedTuple):
    """Find items below a namespace."""

    namespace_prefix: tuple[str, ...]
    """Whole labels, taken literally; `()` covers everything."""
    filter: dict[str, Any] | None = None
    """Conditions that a value must meet, all of them (`pregel.store.filters`)."""
    limit: int = 10
    """Most items to return; below 0, all."""
    offset: int = 0
    query: str | None = None
    """Text to be near to; ignored by a store without an index, and if empty."""
    refresh_ttl: bool = True
    """Start the time to live of the returned items anew."""


class MatchCondition(NamedTuple):
    """A condition on namespaces: whole labels from the start or up to the end, `*` for any one label."""

    match_type: NamespaceMatchType
    path: NamespacePath


class ListNamespacesOp(NamedTuple):
    """List the namespaces that hold items, sorted by labels."""

    match_conditions: tuple[MatchCondition, ...] | None = None
    """All must hold."""
    max_depth: int | None = None
    """Cut to so many labels; what is then the same is listed once, before limit and offset."""
    limit: int = 100
    """Most namespaces to return; below 0, all."""
    offset: int = 0


class PutOp(NamedTuple):
    """Put an item or, with a value of None, delete it."""

    namespace: tuple[str, ...]
    key: str
    value: Mapping[str, Any] | None
    index: Literal[False] | list[str] | None = None  # type: ignore[assignment] # hides the method of tuples
    """Paths to embed instead of the store's; False for none; None for the store's."""
    ttl: float | None = None
    """Minutes until the item expires; None never."""
    if_version: int | None = None
    """Carry out only if the item has this version, 0: only if there is none. None: whatever there is."""


Op: TypeAlias = GetOp | SearchOp | PutOp | ListNamespacesOp
Result: TypeAlias = Item | list[Item] | list[SearchItem] | list[tuple[str, ...]] | None


class TTLConfig(TypedDict, total=False):
    """When items expire."""

    refresh_on_read: bool
    """What `refresh_ttl` is where it is omitted. Default True."""
    omit_expired: bool
    """Accepted; expired items are never returned."""
    default_ttl: float | None
    """Minutes, for a put that names none. Default None: never."""
    sweep_interval_minutes: int | None
    """How often stores that sweep in the background do."""


class IndexConfig(TypedDict, total=False):
    """How items are found by meaning."""

    dims: int
    """Length of a vector. Stores of ours learn it from the first vector instead."""
    embed: Embeddings | EmbeddingsFunc | AEmbeddingsFunc | str
    """Required: see `ensure_embeddings`."""
    fields: list[str] | None
    """Paths to embed (`get_text_at_path`). Default `["$"]`, the whole value. `text_fields` is another name for it."""
    text_fields: list[str] | None
    distance_type: Measure
    """How near two vectors are. Default `"cosine"`."""


class BaseStore(ABC):
    """A key-value store. Implement `batch` and `abatch`; all other methods make operations for them."""

    supports_ttl: bool = False
    ttl_config: TTLConfig | None = None

    @abstractmethod
    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations in order; one result each, None for puts and for items that are not there.

        Raises:
            InvalidNamespaceError: an operation names a namespace that cannot be one. No operation was carried out.
            ValueError: an operation is none, or asks what means nothing. Likewise.
        """

    @abstractmethod
    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Async form of `batch`."""

    def get(self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        """The item under a key, None if there is none.

        Args:
            namespace: labels from the root.
            key: turned into text, here and everywhere.
            refresh_ttl: start its time to live anew; None as `ttl_config` says.
        """
        return cast("Item | None", self.batch([_get_op(self, namespace, key, refresh_ttl)])[0])

    def search(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """The items below a namespace that meet a filter, nearest to `query` first. Arguments: see `SearchOp`."""
        op = _search_op(self, namespace_prefix, filter, limit, offset, query, refresh_ttl)
        return cast("list[SearchItem]", self.batch([op])[0])

    def put(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        if_version: int | None = None,
    ) -> None:
        """Store a value, in place of what was there.

        Args:
            namespace: at least one label, not `langgraph` first.
            key: see `get`.
            value: copied.
            index: see `PutOp`.
            ttl: minutes until it expires; None never; omitted as `ttl_config` says.
            if_version: see `PutOp`.

        Raises:
            InvalidNamespaceError: see `namespace`.
            VersionConflictError: see `if_version`.
            NotImplementedError: this store knows no time to live.
        """
        self.batch([_put_op(self, namespace, key, value, index, ttl, if_version)])

    def delete(self, namespace: tuple[str, ...], key: str, *, if_version: int | None = None) -> None:
        """Delete an item, if it is there. `if_version`: see `PutOp`; raises `VersionConflictError`."""
        self.batch([_delete_op(namespace, key, if_version)])

    def list_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[tuple[str, ...]]:
        """The namespaces that hold items, sorted. Arguments: see `MatchCondition` and `ListNamespacesOp`."""
        op = _list_namespaces_op(prefix, suffix, max_depth, limit, offset)
        return cast("list[tuple[str, ...]]", self.batch([op])[0])

    async def aget(self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        """Async form of `get`."""
        return cast("Item | None", await self._acarry_out(_get_op(self, namespace, key, refresh_ttl)))

    async def asearch(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """Async form of `search`."""
        op = _search_op(self, namespace_prefix, filter, limit, offset, query, refresh_ttl)
        return cast("list[SearchItem]", await self._acarry_out(op))

    async def aput(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        if_version: int | None = None,
    ) -> None:
        """Async form of `put`."""
        await self._acarry_out(_put_op(self, namespace, key, value, index, ttl, if_version))

    async def adelete(self, namespace: tuple[str, ...], key: str, *, if_version: int | None = None) -> None:
        """Async form of `delete`."""
        await self._acarry_out(_delete_op(namespace, key, if_version))

    async def alist_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[tuple[str, ...]]:
        """Async form of `list_namespaces`."""
        op = _list_namespaces_op(prefix, suffix, max_depth, limit, offset)
        return cast("list[tuple[str, ...]]", await self._acarry_out(op))

    async def _acarry_out(self, op: Op) -> Result:
        """One operation of an async method; stores that put them together override this."""
        return (await self.abatch([op]))[0]


def validate_op_namespace(op: Op) -> None:
    """Check the labels of an operation's namespace or conditions.

    Raises:
        InvalidNamespaceError: a label is empty, holds a dot, or is not text.
    """
    if isinstance(op, (GetOp, PutOp)):
        _check_labels(op.namespace)
    elif isinstance(op, SearchOp):
        _check_labels(op.namespace_prefix)
    elif isinstance(op, ListNamespacesOp):
        for condition in op.match_conditions or ():
            _check_labels(condition.path)


def checked_ops(ops: Iterable[Op]) -> list[Op]:
    """What a store may rely on: namespaces as tuples, keys as text, everything valid. For implementations of `batch`.

    Raises:
        InvalidNamespaceError: a label is empty, holds a dot, or is not text.
        TypeError: a value is neither a mapping nor None.
        ValueError: an operation is none; a filter, a condition, a number or a path means nothing.
    """
    return [_normal(op) for op in ops]


def _normal(op: Op) -> Op:
    validate_op_namespace(op)
    if isinstance(op, GetOp):
        return GetOp(tuple(op.namespace), str(op.key), op.refresh_ttl)
    if isinstance(op, PutOp):
        _check_put(op)
        return op._replace(namespace=tuple(op.namespace), key=str(op.key))
    if isinstance(op, SearchOp):
        _check_search(op)
        return op._replace(namespace_prefix=tuple(op.namespace_prefix))
    if not isinstance(op, ListNamespacesOp):
        raise ValueError(
            f"batch got {shown(op)} ({type(op).__name__}); expected GetOp, SearchOp, PutOp, ListNamespacesOp"
        )
    for condition in op.match_conditions or ():
        if condition.match_type not in ("prefix", "suffix"):
            raise ValueError(
                f"condition on namespaces has match_type={shown(condition.match_type)}; expected 'prefix' or 'suffix'"
            )
    _check_numbers("list_namespaces", limit=op.limit, offset=op.offset, max_depth=op.max_depth or 0)
    return op


def _check_put(op: PutOp) -> None:
    place = f"put of key {shown(op.key)} in {shown(op.namespace)}"
    if op.value is not None and not isinstance(op.value, Mapping):
        raise TypeError(
            f"{place} got {shown(op.value)} ({type(op.value).__name__}); a store keeps mappings, wrap it: {{'value': ...}}"
        )
    if op.ttl is not None and (isinstance(op.ttl, bool) or not isinstance(op.ttl, (int, float)) or op.ttl != op.ttl):
        raise ValueError(f"{place} got ttl={shown(op.ttl)}; expected a number of minutes, or None for ever")
    version = op.if_version
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 0):
        raise ValueError(
            f"{place} got if_version={shown(version)}; expected a version from 1 on, 0 for no item, or None"
        )
    index: Any = op.index  # of the tuple's field, not of its method
    if not (index is None or index is False or (isinstance(index, (list, tuple)) and all(map(_is_text, index)))):
        raise ValueError(
            f"{place} got index={shown(index)}; expected a list of paths, False for none, or None for those of the store"
        )


def _check_search(op: SearchOp) -> None:
    if op.filter is not None and not isinstance(op.filter, Mapping):
        raise ValueError(f"search got filter={shown(op.filter)}; expected a mapping from fields to conditions")
    check_filter(op.filter or {})
    if op.query is not None and not isinstance(op.query, str):
        raise ValueError(f"search got query={shown(op.query)} ({type(op.query).__name__}); expected text")
    _check_numbers("search", limit=op.limit, offset=op.offset)


def _check_numbers(place: str, **numbers: int) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"{place} got {name}={shown(number)} ({type(number).__name__}); expected an integer")


def _is_text(path: Any) -> bool:
    return isinstance(path, str)


def matches_conditions(namespace: tuple[str, ...], conditions: Iterable[MatchCondition]) -> bool:
    """Does a namespace meet all conditions? It needs at least as many labels as each of them."""
    return all(_matches(namespace, *condition) for condition in conditions)


def _matches(namespace: tuple[str, ...], match_type: NamespaceMatchType, path: NamespacePath) -> bool:
    surplus = len(namespace) - len(path)
    labels = namespace if match_type == "prefix" else namespace[max(surplus, 0) :]
    return surplus >= 0 and all(want in ("*", label) for want, label in zip(path, labels, strict=False))


def _labels(namespace: Iterable[str]) -> tuple[str, ...]:
    _check_labels(namespace)
    return tuple(namespace)


def _check_labels(labels: Iterable[str]) -> None:
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        # A text would be taken for as many labels as it has characters.
        raise InvalidNamespaceError(
            f"namespace is {shown(labels)} ({type(labels).__name__}); expected a tuple of labels, such as ('memories',)"
        )
    for label in labels:
        if not isinstance(label, str) or not label or "." in label:
            raise InvalidNamespaceError(
                f"namespace {shown(labels)} has the label {shown(label)} ({type(label).__name__}); expected labels "
                f"that are text, not empty, without dots"
            )


# Arguments to operations, once for both colours. Functions, because stores of others may have methods of any name; and
# namespaces are checked here too, because these stores may not check their operations.


def _get_op(store: BaseStore, namespace: tuple[str, ...], key: str, refresh_ttl: bool | None) -> GetOp:
    return GetOp(_labels(namespace), str(key), _refreshes(store, refresh_ttl))


def _search_op(
    store: BaseStore,
    namespace_prefix: tuple[str, ...],
    filter: dict[str, Any] | None,
    limit: int,
    offset: int,
    query: str | None,
    refresh_ttl: bool | None,
) -> SearchOp:
    refreshes = _refreshes(store, refresh_ttl)
    return SearchOp(_labels(namespace_prefix), filter, limit, offset, query, refreshes)


def _put_op(
    store: BaseStore,
    namespace: tuple[str, ...],
    key: str,
    value: Mapping[str, Any],
    index: Literal[False] | list[str] | None,
    ttl: float | NotProvided | None,
    if_version: int | None,
) -> PutOp:
    labels = _labels(namespace)
    if not labels:
        raise InvalidNamespaceError(
            f"put of key {shown(key)} got an empty namespace; expected at least one label, such as ('memories',)"
        )
    if labels[0] == "langgraph":
        raise InvalidNamespaceError(
            f"put of key {shown(key)} got namespace {shown(labels)}, whose first label is reserved; choose another"
        )
    if isinstance(ttl, NotProvided):
        ttl = (store.ttl_config or {}).get("default_ttl")
    elif ttl is not None and not store.supports_ttl:
        raise NotImplementedError(
            f"put of key {shown(key)} got ttl={ttl!r}, but {type(store).__name__} knows no time to live; use a "
            f"store that does, or leave ttl out"
        )
    return PutOp(labels, str(key), value, index, ttl, if_version)


def _refreshes(store: BaseStore, refresh_ttl: bool | None) -> bool:
    if refresh_ttl is not None:
        return refresh_ttl
    return (store.ttl_config or {}).get("refresh_on_read", True)


def _delete_op(namespace: tuple[str, ...], key: str, if_version: int | None) -> PutOp:
    return PutOp(_labels(namespace), str(key), None, if_version=if_version)


def _list_namespaces_op(
    prefix: NamespacePath | None, suffix: NamespacePath | None, max_depth: int | None, limit: int, offset: int
) -> ListNamespacesOp:
    conditions = []
    if prefix:
        conditions.append(MatchCondition("prefix", _labels(prefix)))
    if suffix:
        conditions.append(MatchCondition("suffix", _labels(suffix)))
    return ListNamespacesOp(tuple(conditions), max_depth, limit, offset)


def _as_date(date: datetime | str) -> datetime:
    return datetime.fromisoformat(date) if isinstance(date, str) else date


# Programs keep items in their state, and what they ask of a store in the arguments of a send.
register_codec(
    Item,
    "pregel.Item",
    lambda item: [item.namespace, item.key, item.value, item.created_at, item.updated_at, item.version],
    lambda p: Item(namespace=p[0], key=p[1], value=p[2], created_at=p[3], updated_at=p[4], version=p[5]),
)
register_codec(
    SearchItem,
    "pregel.SearchItem",
    lambda item: [item.namespace, item.key, item.value, item.created_at, item.updated_at, item.score, item.version],
    lambda p: SearchItem(*p),
)
register_codec(GetOp, "pregel.GetOp", list, lambda p: GetOp(*p))
register_codec(SearchOp, "pregel.SearchOp", list, lambda p: SearchOp(*p))
register_codec(PutOp, "pregel.PutOp", list, lambda p: PutOp(*p))
register_codec(MatchCondition, "pregel.MatchCondition", list, lambda p: MatchCondition(*p))
register_codec(ListNamespacesOp, "pregel.ListNamespacesOp", list, lambda p: ListNamespacesOp(*p))
