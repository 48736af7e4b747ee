"""Deltas: what is stored of a list or dict that was changed, and that it is never less than what changed."""

import asyncio
import copy
import operator
import random
import threading
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import TypedDict

from checkpoint import chains, deltas
from checkpoint.base import CheckpointError, CorruptCheckpointError, StepCommit, UnregisteredTypeError
from checkpoint.chains import Codec
from checkpoint.deltas import APPEND, FULL, PATCH, SPLICE, apply, differences, joined
from checkpoint.memory import InMemorySaver
from pregel.graph import START, StateGraph
from tests.checkpoint.runs import ScriptedRun, Store, config


def message(n: int = 0) -> dict[str, Any]:
    return {"n": n, "text": "x" * 100}


@pytest.fixture
def run() -> ScriptedRun:
    return ScriptedRun(Store(InMemorySaver(), False))


def encode(run: ScriptedRun, changes: dict[str, Any], **more: Any) -> Any:
    encoded = run.store.saver.encode(run.prepare(changes, **more))
    run.store.saver.write([encoded])
    run.stored[-1].check(run.store)
    return encoded


def kinds(encoded: Any) -> list[int]:
    return [kind for _, _, _, kind, _, _ in encoded.payloads]


def n_bytes(encoded: Any) -> int:
    return sum(len(body) for *_, body in encoded.payloads)


# ---- differences between two lists


@pytest.mark.parametrize(
    ("old", "new", "edits"),
    [
        ("", "", []),
        ("abc", "abc", []),
        ("", "ab", [0, 0, 2]),
        ("ab", "", [0, 2, 0]),
        ("ab", "abc", [2, 0, 1]),
        ("abcdefgh", "abXdefYZ", [2, 1, 1, 6, 2, 2]),
        ("abcd", "abxcd", [2, 0, 1]),
        ("abcd", "acd", [1, 1, 0]),
        ("abcd", "bcde", [0, 1, 0, 4, 0, 1]),
        ("abcd", "cdef", [0, 2, 0, 4, 0, 2]),
        ("abcdef", "defxyz", [0, 3, 0, 6, 0, 3]),
        ("abcd", "wxyz", [0, 4, 4]),
        ("aab", "ab", [1, 1, 0]),
    ],
)
def test_differences(old: str, new: str, edits: list[int]) -> None:
    assert differences([*map(ord, old)], [*map(ord, new)]) == edits


@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12))
def test_differences_make_the_new_list_of_the_old(old: list[int], new: list[int]) -> None:
    edits = differences(old, new)
    starts, n_old, n_new = edits[::3], edits[1::3], edits[2::3]
    added: list[int] = []
    shift = 0
    for start, gone, put in zip(starts, n_old, n_new, strict=True):
        added += new[start + shift : start + shift + put]
        shift += put - gone
    assert apply(list(old), {"e": edits, "n": added}) == new
    assert (edits == []) is (old == new)


@pytest.mark.parametrize(
    ("value", "delta"),
    [
        ([1], {"e": [0, 2, 0], "n": []}),
        ([1], {"e": [2, 0, 1], "n": [1]}),
        ([1, 2], {"e": [1, 1, 0, 0, 1, 0], "n": []}),
        ([1], {"e": [0, 0, 2], "n": [1]}),
        ([1], {"e": [0, 0]}),
        ([1], "text"),
        ({"a": 1}, {"s": ["a"], "d": []}),
        ({"a": 1}, {"s": [], "d": ["b"]}),
        ({"a": 1}, [1]),
        ("text", [1]),
        (1, [1]),
        (None, {}),
    ],
)
def test_a_delta_that_does_not_fit_is_damage(value: Any, delta: Any) -> None:
    with pytest.raises(CorruptCheckpointError):
        apply(value, delta)


def test_arrays_in_a_row() -> None:
    packs = InMemorySaver().serde.dumps
    bodies = [(None, packs(list(range(n)))) for n in (0, 3, 20, 70_000)]
    found = joined(bodies)
    assert found is not None
    assert found[0] == 70_023
    assert packs([*range(0), *range(3), *range(20), *range(70_000)])[5:] == found[1]
    assert joined([(None, packs({}))]) is None
    assert joined([("tag", packs([]))]) is None


# ---- lists


def test_one_of_many_that_was_replaced(run: ScriptedRun) -> None:
    encode(run, {"l": [message(n) for n in range(1000)]})
    one = len(run.store.saver.serde.dumps(message(500)))
    for at in (500, 0, 999, 7):
        changed = encode(run, {"l": [*run.values["l"][:at], message(-1), *run.values["l"][at + 1 :]]})
        assert kinds(changed) == [SPLICE]
        assert n_bytes(changed) <= one + 20


def test_one_that_was_edited_and_written_back(run: ScriptedRun) -> None:
    """The same objects in the old and the new list: identity alone would see nothing (D23)."""
    encode(run, {"l": [message(n) for n in range(50)]})
    element = run.values["l"][20]
    element["text"] = "edited"
    changed = encode(run, {"l": list(run.values["l"])}, written={"l": [element]})
    assert kinds(changed) == [SPLICE]
    same = encode(run, {"l": list(run.values["l"])}, written={"l": [element]})
    assert kinds(same) == []


def test_an_edited_element_that_stands_in_two_places(run: ScriptedRun) -> None:
    element = message(1)
    encode(run, {"l": [element, *map(message, range(20)), element]})
    element["text"] = "edited"
    assert kinds(encode(run, {"l": [*run.values["l"], message()]}, written={"l": [element]})) == [SPLICE]


def test_insert_remove_and_slide(run: ScriptedRun) -> None:
    encode(run, {"l": [message(n) for n in range(40)]})
    value = run.values["l"]
    for changed in (
        [*value[:10], message(99), *value[10:]],
        value[:10] + value[12:],
        value[5:] + [message(n) for n in range(3)],
        value[1:],
    ):
        assert kinds(encode(run, {"l": changed})) == [SPLICE]
        again = encode(run, {"l": list(value)})
        assert kinds(again) == [SPLICE]


def test_a_list_written_whole_costs_what_differs(run: ScriptedRun) -> None:
    """Nothing is known but the value, as of a channel that keeps what was written last."""
    encode(run, {"l": [message(n) for n in range(100)]})
    for n in range(5):
        value = copy.deepcopy(run.values["l"])
        value[n]["n"] = -1
        run.values["l"] = None
        assert kinds(encode(run, {"l": value})) == [SPLICE]
    run.values["l"] = None
    assert kinds(encode(run, {"l": copy.deepcopy(value)})) == []


def test_after_a_reload_the_first_edit_is_a_delta_too(run: ScriptedRun) -> None:
    encode(run, {"l": [message(n) for n in range(1000)], "d": {str(n): message(n) for n in range(100)}})
    for n in range(3):
        run = ScriptedRun(run.store)
        value = list(run.values["l"])
        value[n] = message(-1)
        changed = encode(run, {"l": value, "d": {**run.values["d"], str(n): message(-1)}})
        assert sorted(kinds(changed)) == [SPLICE, PATCH]
        assert n_bytes(changed) <= 400


def test_what_is_too_large_to_remember_is_stored_whole_once(run: ScriptedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "RAW_LIMIT", 5_000)
    encode(run, {"l": [message(n) for n in range(100)]})
    found = []
    for at in range(4):
        value = list(run.values["l"])
        value[at] = message(-1)
        found += kinds(encode(run, {"l": value}))
    assert found == [FULL, SPLICE, SPLICE, SPLICE]


def test_what_was_replaced_again_and_again_is_cleared_out(run: ScriptedRun) -> None:
    encode(run, {"l": [message(n) for n in range(60)]})
    found: list[int] = []
    total = 0
    for n in range(400):
        value = list(run.values["l"])
        value[n % 60] = message(n)
        changed = encode(run, {"l": value})
        found += kinds(changed)
        total += n_bytes(changed)
    fulls = [n for n, kind in enumerate(found) if kind == FULL]
    assert 1 <= len(fulls) <= 8
    assert total <= 2.5 * 400 * 130


def test_a_list_changed_by_its_reducer_in_place_is_known_to_be_another(run: ScriptedRun) -> None:
    """The old container has grown before it was copied: its length tells."""
    encode(run, {"l": [message(n) for n in range(30)]})
    run.values["l"].append(message(77))
    encode(run, {"l": [*run.values["l"], message(78)]})
    assert len(ScriptedRun(run.store).values["l"]) == 32


# ---- dicts


def test_patches(run: ScriptedRun) -> None:
    encode(run, {"d": {f"k{n}": message(n) for n in range(30)}})
    value = run.values["d"]
    assert kinds(encode(run, {"d": {**value, "k3": message(-1)}})) == [PATCH]
    assert kinds(encode(run, {"d": {**run.values["d"], "new": message(1)}})) == [PATCH]
    gone = {key: kept for key, kept in run.values["d"].items() if key != "k7"}
    assert kinds(encode(run, {"d": gone})) == [PATCH]
    assert kinds(encode(run, {"d": dict(run.values["d"])})) == []
    run.values["d"]["k9"]["text"] = "edited"
    assert kinds(encode(run, {"d": dict(run.values["d"])}, written={"d": [run.values["d"]["k9"]]})) == [PATCH]


def test_the_order_of_keys_is_kept(run: ScriptedRun) -> None:
    encode(run, {"d": {f"k{n}": message(n) for n in range(30)}})
    turned = dict(reversed(run.values["d"].items()))
    assert kinds(encode(run, {"d": turned})) == [FULL]
    assert list(ScriptedRun(run.store).values["d"]) == list(turned)


def test_keys_that_are_equal_and_of_different_type(run: ScriptedRun) -> None:
    encode(run, {"d": {1: message(1), **{n: message(n) for n in range(2, 30)}}})
    encode(run, {"d": {True: run.values["d"][1], **{n: run.values["d"][n] for n in range(2, 30)}}})
    assert type(next(iter(ScriptedRun(run.store).values["d"]))) is bool


# ---- large values


@pytest.mark.parametrize("kind", [list, dict])
def test_a_large_value_comes_in_blocks(run: ScriptedRun, kind: type) -> None:
    value: Any = [message(n) for n in range(12_000)]
    if kind is dict:
        value = {f"k{n}": element for n, element in enumerate(value)}
    begun = encode(run, {"v": value, "other": 1})
    sizes = [len(body) for *_, body in begun.payloads]
    assert len(sizes) >= 5
    assert max(sizes) <= 2 * deltas.BLOCK_BYTES
    delta = APPEND if kind is list else PATCH
    assert kinds(begun) == [FULL, *[delta] * (len(sizes) - 1)]
    assert list(ScriptedRun(run.store).values["v"]) == list(value)

    more: Any = [message(-n) for n in range(6_000)]
    if kind is list:
        grown = encode(run, {"v": [*run.values["v"], *more]})
        assert len(grown.payloads) >= 2
        assert kinds(grown) == [APPEND] * len(grown.payloads)
    run = ScriptedRun(run.store)
    one = {**value, "k7": message(-1)} if kind is dict else [message(-1), *run.values["v"][1:]]
    encode(run, {"v": one})
    encode(run, {"v": one, "other": 2})
    for stored in run.stored:
        stored.check(run.store)


def test_what_is_refused_in_a_large_value_has_its_place(run: ScriptedRun) -> None:
    value: list[Any] = [message(n) for n in range(5_000)]
    value[4_321]["text"] = object()
    with pytest.raises(UnregisteredTypeError, match="4321"):
        run.store.saver.encode(run.prepare({"v": value}))


LONG: list[Any] = [
    {"n": 0, "docs": [message(n) for n in range(9_000)], "keys": {str(n): [n] for n in range(700)}},
    ["docs", [1] * 300, "n", 1],
    ["docs", {n: n for n in range(300)}],  # a dict with such keys is written in another form
    {1: [1] * 300},
    [[("t", 1)] * 70_000],
    {"text": "x" * 100_000, "bytes": b"z" * 70_000},
    {"docs": [bytearray(b"a")] * 300},
    "ä" * 300_000,
    ["a", "\ud800" * 70_000],
    [["a", {"b": bytearray(70_000)}, {"c": bytes(70_000)}] * 2, {}],
    {"docs": [{1, 2}] * 300, "when": datetime(2026, 1, 2, tzinfo=UTC)},
]
WHOLE = (2, 3, 8)
"""Places of those that are packed as a whole after all."""


@pytest.mark.parametrize("value", LONG, ids=range(len(LONG)))
def test_packed_in_pieces_is_the_same(value: Any) -> None:
    pack = Codec(InMemorySaver().serde).pack
    packed: list[Any] = []

    def piece(given: Any) -> Any:
        packed.append(given)
        return pack(given)

    assert deltas.is_long(value) or deltas.is_heavy(value)
    assert deltas.in_pieces(value, piece) == pack(value)
    if deltas.is_long(value):
        is_whole = any(value is LONG[at] for at in WHOLE)
        assert any(given is value for given in packed) == is_whole
    for long in (deltas.is_heavy, lambda _: True):
        assert deltas.in_pieces([{"a": value}], pack, long) == pack([{"a": value}])


@pytest.mark.parametrize("depth", [10, *range(240, 256), 2_000])
def test_packed_in_pieces_the_same_is_refused(depth: int) -> None:
    pack = Codec(InMemorySaver().serde).pack
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    itself: list[Any] = [[0] * 300]
    itself.append(itself)
    for value in ({"a": {"docs": [deep] * 300}, "b": [0] * 300}, itself, {"docs": [0] * 299 + [object()]}):
        outcomes: list[Any] = []
        for way in (pack, partial(deltas.in_pieces, pack=pack)):
            try:
                outcomes.append(way(value))
            except (CheckpointError, UnregisteredTypeError) as refusal:
                outcomes.append((type(refusal), str(refusal)))
        assert outcomes[0] == outcomes[1]


def test_a_long_chain_is_decoded_in_blocks(run: ScriptedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[None] = []
    monkeypatch.setattr(chains, "give_way", lambda: turns.append(None))
    value: list[Any] = [message(n) for n in range(3_000)]
    encode(run, {"l": value})
    for n in range(50):
        value = [*value, message(n)]
        encode(run, {"l": value})
    turns.clear()
    assert run.store.load(config()).values["l"] == value
    assert len(turns) <= 1 + len(run.store.saver.serde.dumps(value)) // deltas.BLOCK_BYTES


class OnThreads(InMemorySaver):
    """Tells the threads on which values become bytes and bytes values."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[threading.Thread] = []
        self.loaded: list[threading.Thread] = []

    def encode(self, commit: StepCommit) -> Any:
        self.encoded.append(threading.current_thread())
        return super().encode(commit)

    def load(self, *args: Any, **kwargs: Any) -> Any:
        self.loaded.append(threading.current_thread())
        return super().load(*args, **kwargs)


@pytest.mark.parametrize("large", [False, True])
def test_an_event_loop_does_not_encode_or_decode_large_values(large: bool) -> None:
    class Docs(TypedDict):
        docs: Annotated[list[Any], operator.add]
        n: int

    async def fill(_: Docs) -> Docs:
        return {"docs": [message(n) for n in range(5_000 if large else 5)], "n": 1}

    saver = OnThreads()
    graph = StateGraph(Docs).add_node("fill", fill).add_edge(START, "fill").compile(checkpointer=saver)

    async def use() -> Any:
        await graph.ainvoke({"n": 0}, config())
        return await graph.aget_state(config())

    here = threading.current_thread()
    assert len(asyncio.run(use()).values["docs"]) == (5_000 if large else 5)
    assert [thread is here for thread in saver.encoded[-1:]] == [not large]
    assert [thread is here for thread in saver.loaded[-1:]] == [not large]


@pytest.mark.parametrize("n_docs", [5, 5_000])
def test_nor_a_large_input_nor_where_its_elements_stand(n_docs: int) -> None:
    class Docs(TypedDict):
        docs: Annotated[list[Any], operator.add]

    async def add(_: Docs) -> Docs:
        return {"docs": [message(-1)]}

    saver = OnThreads()
    graph = StateGraph(Docs).add_node("add", add).add_edge(START, "add").compile(checkpointer=saver)
    asyncio.run(graph.ainvoke({"docs": [message(n) for n in range(n_docs)]}, config()))
    here = threading.current_thread()
    assert [thread is here for thread in saver.encoded] == [n_docs == 5] * 3


# ---- what was edited in place and not returned


def grow(run: ScriptedRun, n_steps: int) -> list[Any]:
    """Channels that were found to have been edited, over so many appends."""
    found: list[Any] = []
    for n in range(n_steps):
        new = message(n)
        commit = run.prepare({"l": [*run.values.get("l", []), new]}, written={"l": [new]})
        encoded: Any = run.store.saver.encode(commit)
        run.store.saver.write([encoded])
        found += encoded.edited
    return found


def test_an_edit_in_place_is_found_when_the_list_has_doubled(run: ScriptedRun) -> None:
    assert grow(run, 40) == []
    run.values["l"][5]["text"] = "edited behind our back"
    assert grow(run, 60) == ["l"]
    run.stored[-1].check(run.store)
    assert grow(run, 100) == []


def test_an_edit_in_place_is_found_when_the_value_is_stored_anyway(
    run: ScriptedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltas, "FIRST_AUDIT", 10**9)
    monkeypatch.setattr(deltas, "MAX_CHAIN_ROWS", 5)
    assert grow(run, 4) == []
    run.values["l"][0]["text"] = "edited behind our back"
    assert grow(run, 10) == ["l"]
    run.stored[-1].check(run.store)


def test_looking_for_edits_costs_less_than_storing(run: ScriptedRun) -> None:
    packed: list[int] = []
    codec = run.store.saver._codec()
    pack = codec.pack

    def counting(value: Any) -> Any:
        body = pack(value)
        packed.append(len(body[1]))
        return body

    codec.pack = counting
    grow(run, 1000)
    assert len(packed) >= 1000
    assert sum(packed) <= 4 * len(pack(run.values["l"])[1])


# ---- all of it, at random


@pytest.mark.parametrize("kind", [list, dict])
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_checkpoint_reads_back_what_was_live(kind: type, seed: int) -> None:
    rnd = random.Random(seed)
    run = ScriptedRun(Store(InMemorySaver(), False))
    value: Any = [message(n) for n in range(rnd.randrange(40))]
    if kind is dict:
        value = {f"k{n}": element for n, element in enumerate(value)}
    run.step({"v": value})
    for n in range(rnd.randrange(12)):
        if rnd.random() < 0.15:
            run = ScriptedRun(run.store)
        value = run.values["v"]
        changed, written = (edit_list if kind is list else edit_dict)(rnd, value, n)
        if rnd.random() < 0.2:
            run.values["v"] = None  # nothing is known of the change
        run.step({"v": changed}, written={"v": written})
    for stored in run.stored:
        stored.check(run.store)


def edit_list(rnd: random.Random, value: list[Any], n: int) -> tuple[list[Any], list[Any]]:
    """A new list of mostly the same elements, and what was written."""
    new = [message(1000 + n + i) for i in range(rnd.randrange(3))]
    at = rnd.randrange(len(value) + 1)
    written = list(new)
    how = rnd.randrange(6)
    changed = [*value, *new]
    if how == 1:
        changed = [*value[:at], *new, *value[at + rnd.randrange(3) :]]
    elif how == 2:
        changed = [*value[at:], *new]
    elif how == 3:
        changed = rnd.sample(value, len(value)) + new
    elif how == 4 and value:
        element = rnd.choice(value)
        element["n"] = -n
        written.append(element)
    elif how == 5 and value:
        changed = [rnd.choice(value), *changed]
    return changed, written


def edit_dict(rnd: random.Random, value: dict[str, Any], n: int) -> tuple[dict[str, Any], list[Any]]:
    changed = dict(value)
    written: list[Any] = []
    for _ in range(rnd.randrange(4)):
        how = rnd.randrange(4)
        key = rnd.choice(list(changed)) if changed and how else f"k{rnd.randrange(100)}"
        if how == 3 and key in changed:
            changed[key]["n"] = -n
        elif how == 2 and key in changed:
            del changed[key]
            continue
        else:
            changed[key] = message(2000 + n)
        written.append(changed[key])
    return changed, written
