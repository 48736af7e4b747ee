"""Large values stop no event loop: how much is done between two turns of other threads, and on which thread.

Counted in bytes and elements, never in time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from checkpoint import chains, deltas, mapped, turns
from checkpoint.base import Append
from checkpoint.chains import Codec, is_large
from checkpoint.memory import InMemorySaver
from checkpoint.serde import msgpack, pieces
from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.sqlite import SqliteSaver
from checkpoint.sqlite.aio import AsyncSqliteSaver
from checkpoint.turns import BLOCK_BYTES, BLOCK_ELEMENTS
from pregel.engine import async_storing
from pregel.graph import END, START, StateGraph
from tests.checkpoint.ciphers import PlainCipher
from tests.checkpoint.runs import ScriptedRun, Store, config

SMALL_ELEMENT = BLOCK_BYTES // BLOCK_ELEMENTS


class Work:
    """What is packed, unpacked and freed between two turns: bytes of it, where every call costs some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = self.turns = 0
        packb, unpackb = msgpack.packb, msgpack.unpackb

        def pack(value: Any, *options: Any) -> bytes:
            body: bytes = packb(value, *options)
            self.add(max(len(body), SMALL_ELEMENT * (len(value) if isinstance(value, (list, dict)) else 1)))
            return body

        def unpack(body: bytes, **options: Any) -> Any:
            value = unpackb(body, **options)
            self.add(max(len(body), SMALL_ELEMENT * (len(value) if isinstance(value, (list, dict)) else 1)))
            return value

        monkeypatch.setattr(msgpack, "packb", pack)
        monkeypatch.setattr(msgpack, "unpackb", unpack)
        for module in (turns, deltas, chains, mapped, pieces):
            monkeypatch.setattr(module, "give_way", self.turn)

    def add(self, n_bytes: int) -> None:
        self.now += n_bytes
        self.most = max(self.most, self.now)

    def turn(self) -> None:
        self.turns += 1
        self.now = 0


def message(n: int, n_bytes: int = 960) -> dict[str, Any]:
    return {"role": "user", "content": f"{n:06}" + "x" * (n_bytes + n % 9), "n": n}


SHAPES: dict[str, Callable[[], Any]] = {
    "messages": lambda: [message(n) for n in range(4_000)],
    "three bytes longer": lambda: [message(n, 963) for n in range(4_000)],
    "one that is larger than the others": lambda: [message(n, 900_000 if n == 2_001 else 960) for n in range(4_000)],
    "dict of messages": lambda: {f"k{n}": message(n) for n in range(4_000)},
    "small dicts": lambda: [{"a": n} for n in range(60_000)],
    "numbers": lambda: [*range(60_000)],
    "long texts": lambda: ["d" * 400_000 for _ in range(10)],
    "dict of long texts": lambda: {f"doc{n}": "d" * 400_000 for n in range(10)},
    "text": lambda: "ä" * 2_000_000,
    "bytes": lambda: b"d" * 4_000_000,
}


@pytest.fixture(params=["memory", "sqlite"])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        yield InMemorySaver()
        return
    with SqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite")) as made:
        yield made


@pytest.mark.parametrize("shape", SHAPES)
def test_little_is_done_between_two_turns(shape: str, saver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    value = SHAPES[shape]()
    run = ScriptedRun(Store(saver, False))
    commit = run.prepare({"v": value})
    commit.writes = ()
    assert is_large(commit)
    work = Work(monkeypatch)
    saver.write([asyncio.run(saver.aencode(commit))])
    assert work.turns
    # A block, and in front of it what its size was guessed from; the largest element goes in one call.
    largest = 900_000 if "larger" in shape else 400_000 if "texts" in shape else 0
    assert work.most <= 2 * BLOCK_BYTES + 2 * largest
    work.now = work.most = work.turns = 0
    loaded = saver.load(config())
    assert loaded.values["v"] == value
    assert work.most <= 2 * BLOCK_BYTES + largest


@pytest.mark.parametrize("kind", [list, dict])
def test_a_change_of_a_long_value_is_found_in_turns(kind: type, saver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ScriptedRun(Store(saver, False))

    def store(value: Any) -> None:
        saver.write([saver.encode(run.prepare({"v": value}))])

    value: Any = [message(n, 300) for n in range(5_000)]
    if kind is dict:
        value = {f"k{n}": element for n, element in enumerate(value)}
    store(value)
    # The second whole value is the one whose hashes are known.
    store(kind(reversed(value.items() if kind is dict else value)))
    value = kind(run.values["v"])
    value["k77" if kind is dict else 77] = message(0)
    work = Work(monkeypatch)
    store(value)
    assert work.turns >= 2
    assert work.most <= 2 * BLOCK_BYTES
    run.stored[-1].check(run.store)


def test_where_elements_stand_is_learned_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(monkeypatch)
    value = [[n] for n in range(10 * BLOCK_ELEMENTS)]
    chain = deltas.Chain(1, 0, list, len(value), 1, positions={})
    assert chain.rewritten(value, len(value), [value[5]]) == {5}
    assert work.turns >= 2 * 9
    assert chain.positions is not None
    assert len(chain.positions) == len(value)


def test_large_bodies_are_let_go_where_they_are_stored(saver: Any) -> None:
    run = ScriptedRun(Store(saver, False))
    commit = run.prepare({"v": SHAPES["messages"]()})
    encoded = asyncio.run(saver.aencode(commit))
    views: list[Any] = [row[5] for row in (*encoded.bodies, *encoded.writes)]
    is_mapped = [isinstance(view, memoryview) for view in views]
    saver.write([encoded])
    if isinstance(saver, InMemorySaver):
        # It keeps them.
        assert not any(is_mapped)
        return
    assert any(is_mapped)
    assert not encoded.bodies
    assert not encoded.payloads
    assert not encoded.writes
    for view, was_mapped in zip(views, is_mapped, strict=True):
        if was_mapped:
            with pytest.raises(ValueError, match="released"):
                len(view)
    run.prepare({})
    assert saver.load(config()).values["v"] == commit.values["v"]


def test_a_mapped_body_is_what_it_was_made_of() -> None:
    pieces = [bytes([n]) * (100_000 * n) for n in range(1, 6)]
    body = mapped.mapped([*pieces])
    assert bytes(body) == b"".join(pieces)
    part = memoryview(body)[:10]
    assert mapped.unmap(body)
    assert bytes(part) == b"\x01" * 10  # kept by who looks at it
    assert not mapped.unmap(b"bytes")


# ---- what is large


class Holder:
    """An object of the program."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside


@pytest.mark.parametrize(
    ("value", "is_heavy"),
    [
        (None, False),
        (17, False),
        ("x" * 60_000, False),
        ("x" * 70_000, True),
        (bytearray(70_000), True),
        ([message(0)], False),
        ([message(n) for n in range(100)], True),
        ([0] * 900, False),
        ([0] * 2_000, True),
        ((b"x" * 40_000, [b"x" * 40_000]), True),
        ({"a": {"b": [{"c": ("x" * 70_000,)}]}}, True),
        ({f"k{n}": {f"k{m}": {"t": "x" * 900} for m in range(12)} for n in range(12)}, True),
        ({"x" * n for n in range(400)}, True),
        (Holder({"text": "x" * 70_000}), True),
        (Holder({"text": "x"}), False),
    ],
)
def test_what_is_heavy(value: Any, is_heavy: bool) -> None:
    assert deltas.is_heavy(value) is is_heavy
    assert deltas.is_heavy([value]) is is_heavy


def test_a_value_that_contains_itself_is_heavy() -> None:
    itself: list[Any] = []
    itself.append(itself)
    assert deltas.is_heavy(itself)


def test_a_large_element_that_is_appended_is_large() -> None:
    run = ScriptedRun(Store(InMemorySaver(), False))
    commit = run.prepare({"v": []})
    for new, expected in ((["x"], False), (["x" * 70_000], True), ([{"a": ["x" * 70_000]}], True)):
        commit.values, commit.writes = {}, ()
        commit.ops = {"v": Append([0, *new], 1, new)}
        assert is_large(commit) is expected


# ---- reading in pieces


READ: dict[str, Any] = {
    **{shape: make() for shape, make in SHAPES.items()},
    "task row": ["messages", [message(n) for n in range(3_000)], "n", 1, "docs", {"d": "x" * 2_000_000, "e": {}}],
    "nested": {f"k{n}": {f"k{m}": {"t": "x" * 9_000, "n": [n, m]} for m in range(12)} for n in range(12)},
    "deep": [[[[[[["x" * 1_000] * 2_000]]]]]],
    "all tokens": [
        *(None, True, False, 1, -1, 200, 70_000, 1 << 40, 1 << 63, -200, -70_000, -(1 << 40), 1.5, "x" * 40, "x" * 300),
        *("x" * 70_000, b"x", b"x" * 300, b"x" * 70_000, {}, [], {"a": [1] * 20}, [{"b": 1}] * 20, (1, 2), {3}),
        *(1 << 70, 1 + 2j, {n: n for n in range(9)}, frozenset(range(100)), tuple(range(70_000))),
        *([f"t{n}" * 20_000] for n in range(20)),
    ],
    "a dict that others follow": [{f"k{n}": "x" * 200 for n in range(20_000)}, "y" * 1_000_000, {"a": 1}],
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read_in_pieces_is_what_was_written(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MIN_TOKEN", 8)
    serde = InMemorySaver().serde
    value = READ[name]
    body = serde.dumps(value)
    work = Work(monkeypatch)
    found = pieces.read_in_pieces(body, partial(msgpack.unpackb, ext_hook=serde._decode))
    if name == "deep":
        assert found is None
    elif found is not None:
        assert repr(found[0]) == repr(value)
        assert work.turns >= len(body) // BLOCK_BYTES
    # Small tokens only: it takes longer to look at each than to decode them.
    assert (found is not None) is (name not in ("deep", "numbers", "small dicts"))
    assert serde.loads(body) == value


@pytest.mark.parametrize("damage", [b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff", b"\xff" * 9, b"yyy"])
def test_what_is_damaged_is_read_at_once(damage: bytes) -> None:
    serde = InMemorySaver().serde
    unpack = partial(msgpack.unpackb, ext_hook=serde._decode)
    body = serde.dumps(READ["task row"])
    n_found = 0
    for at in range(0, 4_000, 37):
        damaged = body[:at] + damage + body[at + len(damage) :]
        found = pieces.read_in_pieces(damaged, unpack)
        if found is not None:
            n_found += 1
            assert found[0] == unpack(damaged)
    assert (n_found > 0) is (damage == b"yyy")  # which is as good as other bytes of a text


# ---- long texts


@pytest.mark.parametrize("text", ["ä", "a", "€", "😀", "a😀", "ab😀", "abc😀"])
def test_long_texts_come_back(text: str) -> None:
    serde = InMemorySaver().serde
    for value in (text * 700_000, (text * 700_000).encode()):
        assert serde.loads(serde.dumps(value)) == value
        body = Codec(serde).pack(value)
        assert deltas.in_pieces(value, Codec(serde).pack) == body
        assert serde.loads(memoryview(body[1])) == value


@pytest.mark.parametrize("damage", [b"\xff", b"\x80\x80\x80\x80\x80", b"\xf0\x9f"])
def test_a_long_text_that_is_damaged_is_refused(damage: bytes) -> None:
    serde = InMemorySaver().serde
    body = serde.dumps("x" * 3_000_000)
    for at in (100, BLOCK_BYTES, len(body) - len(damage)):
        with pytest.raises(chains.CorruptCheckpointError):
            serde.loads(body[:at] + damage + body[at + len(damage) :])
    with pytest.raises(chains.CorruptCheckpointError):
        serde.loads(body[:-1])
    with pytest.raises(chains.CorruptCheckpointError):
        serde.loads(body[:5] + b"\x80" * (len(body) - 5))


def test_a_large_set_is_sorted_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    serde = InMemorySaver().serde
    value = {f"e{n * 7919 % 10_007}" for n in range(10_007)}
    work = Work(monkeypatch)
    body = serde.dumps(value)
    assert work.turns >= 2 * (len(value) // 512)
    assert serde.loads(body) == value
    assert body.endswith(b"".join(sorted(map(serde.dumps, value))))
    assert serde.dumps({f"e{n}" for n in range(10_007)}) == body


# ---- the event loop


class State(TypedDict, total=False):
    n: int
    v: Annotated[list[Any], lambda before, new: [*before, *new]]


async def node(state: State) -> State:
    return {"n": state["n"] + 1, "v": [message(state["n"])]}


def graph_with(saver: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("a", node)
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", lambda state: "a" if state["n"] < 20 else END, ["a", END])
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_loop_has_a_turn_between_supersteps(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_storing, "TURN_S", 0.0)

    async def drive(saver: Any) -> int:
        n_turns = 0

        async def tick() -> None:
            nonlocal n_turns
            while True:
                await asyncio.sleep(0)
                n_turns += 1

        ticker = asyncio.create_task(tick())
        result = await graph_with(saver).ainvoke({"n": 0, "v": []}, config())
        assert len(result["v"]) == 20
        ticker.cancel()
        return n_turns

    async def on_file() -> int:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite")) as saver:
            return await drive(saver)

    assert asyncio.run(drive(InMemorySaver()) if kind == "memory" else on_file()) >= 20


class Noting(PlainCipher):
    """Knows which threads encrypted and decrypted much."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        self.note(plaintext)
        return super().encrypt(plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        self.note(ciphertext)
        return super().decrypt(ciphername, ciphertext)

    def note(self, text: bytes) -> None:
        if len(text) > deltas.LARGE:
            self.threads.add(threading.get_ident())


def test_much_is_never_encrypted_on_the_loop() -> None:
    cipher = Noting()

    async def drive() -> None:
        saver = InMemorySaver(serde=EncryptedSerializer(cipher))
        graph = graph_with(saver)
        await graph.ainvoke({"n": 15, "v": [message(n) for n in range(1_000)]}, config())
        await graph.ainvoke({"n": 15, "v": [message(n) for n in range(1_000)]}, config())
        assert len((await graph.aget_state(config())).values["v"]) == 2_010

    asyncio.run(drive())
    assert cipher.threads
    assert threading.get_ident() not in cipher.threads
