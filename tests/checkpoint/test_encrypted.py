"""Encryption: what is stored opens only with the key and only at its place, and nothing else is ever data."""

import copy
import itertools
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest

from checkpoint import ids
from checkpoint.base import CheckpointError, CorruptCheckpointError, UnregisteredTypeError
from checkpoint.encryption import Encrypting
from checkpoint.memory import InMemorySaver
from checkpoint.serde.base import CipherProtocol, SerializerProtocol
from checkpoint.serde.encrypted import AesGcm, EncryptedSerializer
from checkpoint.serde.jsonplus import JsonPlusSerializer
from checkpoint.serde.msgpack import Serde
from checkpoint.sqlite import SqliteSaver
from tests.checkpoint.ciphers import BindingCipher, PlainCipher
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.checkpoint.tampering import repair_checksums

LIBRARIES = {"cryptography": "Crypto", "Crypto": "cryptography"}
KEYS = [bytes(range(size)) for size in (16, 24, 32)]


@pytest.fixture(params=LIBRARIES)
def library(request, monkeypatch):
    """One of the two libraries, with the other one out of reach."""
    pytest.importorskip(request.param)
    monkeypatch.setitem(sys.modules, LIBRARIES[request.param], None)
    monkeypatch.setitem(sys.modules, f"{LIBRARIES[request.param]}.Cipher.AES", None)
    return request.param


# ---- the cipher


@pytest.mark.parametrize("key", KEYS, ids=len)
def test_aes_opens_what_it_encrypted_and_nothing_else(library, key):
    cipher = AesGcm(key)
    name, encrypted = cipher.encrypt_bound(b"text", b"place")
    assert name.startswith("aes-gcm:")
    assert b"text" not in encrypted
    assert cipher.decrypt_bound(name, encrypted, b"place") == b"text"
    assert cipher.encrypt_bound(b"text", b"place")[1] != encrypted
    assert cipher.decrypt(*cipher.encrypt(b"")) == b""
    wrong = [
        (name, encrypted, b"other"),
        (name, encrypted[:-1], b"place"),
        (name, encrypted[:20], b"place"),
        (name, b"", b""),
    ]
    wrong += [
        (name, encrypted[:at] + bytes((encrypted[at] ^ 1,)) + encrypted[at + 1 :], b"place")
        for at in range(len(encrypted))
    ]
    wrong += [("aes-gcm:00000000", encrypted, b"place"), ("", encrypted, b"place")]
    for given in wrong:
        with pytest.raises(CorruptCheckpointError):
            cipher.decrypt_bound(*given)


def test_both_libraries_read_each_other(monkeypatch):
    for name in LIBRARIES:
        pytest.importorskip(name)
    modules = sys.modules
    ciphers = []
    for hidden in ("cryptography", "Crypto"):
        with monkeypatch.context() as patch:
            for module in [m for m in modules if m.partition(".")[0] == hidden] or [hidden]:
                patch.setitem(modules, module, None)
            ciphers.append(AesGcm(KEYS[2]))
    for one, other in itertools.permutations(ciphers):
        assert other.decrypt_bound(*one.encrypt_bound(b"text", b"place"), b"place") == b"text"


def test_without_a_library_the_error_says_what_to_install(monkeypatch):
    modules = sys.modules
    for module in [m for m in modules if m.partition(".")[0] in LIBRARIES] + [*LIBRARIES]:
        monkeypatch.setitem(modules, module, None)
    with pytest.raises(ImportError, match="pip install cryptography"):
        EncryptedSerializer.from_pycryptodome_aes(key=KEYS[0])


def test_keys_rotate(library):
    old = AesGcm(KEYS[0])
    stored = old.encrypt_bound(b"text", b"p")
    both = AesGcm([KEYS[2], KEYS[0]])
    assert both.decrypt_bound(*stored, b"p") == b"text"
    assert both.name != old.name == stored[0]
    renewed = both.encrypt_bound(b"text", b"p")
    assert AesGcm(KEYS[2]).decrypt_bound(*renewed, b"p") == b"text"
    with pytest.raises(CorruptCheckpointError) as caught:
        old.decrypt_bound(*renewed, b"p")
    assert renewed[0] in str(caught.value)
    named = AesGcm({"2026-01": KEYS[1], "2025": KEYS[0]})
    assert named.encrypt_bound(b"", b"")[0] == "aes-gcm:2026-01"
    # Another key under the same id opens nothing.
    with pytest.raises(CorruptCheckpointError):
        AesGcm({"2026-01": KEYS[2]}).decrypt_bound(*named.encrypt_bound(b"x", b""), b"")


@pytest.mark.parametrize(
    "keys", [b"short", "x" * 16, [], {}, [b"x" * 16, b"y"], {"a b": b"x" * 16}, {"+": b"x" * 16}, {"": b"x" * 16}]
)
def test_unusable_keys_are_refused_and_not_shown(keys):
    with pytest.raises(ValueError) as caught:
        AesGcm(keys)
    assert "xxxx" not in str(caught.value)


def test_keys_from_the_environment(library, monkeypatch):
    monkeypatch.delenv("LANGGRAPH_AES_KEY", raising=False)
    with pytest.raises(ValueError, match="LANGGRAPH_AES_KEY"):
        EncryptedSerializer.from_pycryptodome_aes()
    monkeypatch.setenv("LANGGRAPH_AES_KEY", "0123456789abcdef")
    from_environment = EncryptedSerializer.from_pycryptodome_aes()
    given = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    assert given.loads_typed(from_environment.dumps_typed({"a": 1})) == {"a": 1}
    monkeypatch.setenv("LANGGRAPH_AES_KEY", "0123")
    with pytest.raises(ValueError):
        EncryptedSerializer.from_pycryptodome_aes()
    with pytest.raises(ValueError, match="mode"):
        EncryptedSerializer.from_pycryptodome_aes(key=KEYS[0], mode=2)  # CBC
    assert EncryptedSerializer.from_pycryptodome_aes(key=KEYS[0], mode=9)  # EAX


def test_aes_under_the_name_of_the_peer(library):
    inner = Serde()
    serde = EncryptedSerializer.from_pycryptodome_aes(inner, key=KEYS[2])
    assert serde.serde is inner
    assert isinstance(serde.cipher, CipherProtocol)
    assert repr(KEYS[2])[2:-1] not in repr(serde.cipher)
    tag, body = serde.dumps_typed({"a": (1, 2)})
    assert tag.startswith("m1+aes")
    assert serde.loads_typed((tag, body)) == {"a": (1, 2)}
    later = EncryptedSerializer.from_pycryptodome_aes(inner, key=KEYS[0], previous_keys=[KEYS[2]])
    assert later.loads_typed((tag, body)) == {"a": (1, 2)}
    assert not later.is_current(tag)
    renewed = later.rewrap((tag, body))
    assert later.is_current(renewed[0])
    assert later.rewrap(renewed) is renewed
    assert EncryptedSerializer.from_pycryptodome_aes(inner, key=KEYS[0]).loads_typed(renewed) == {"a": (1, 2)}


# ---- the serializer, with any cipher

CIPHERS = {"binding": BindingCipher, "plain": PlainCipher}


@pytest.fixture(params=CIPHERS)
def serde(request):
    return EncryptedSerializer(CIPHERS[request.param](b"key"))


@pytest.mark.parametrize("value", [None, b"", b"raw", bytearray(b"raw"), {"a": [1, (2,)]}, "x" * 5000])
def test_values_come_back(serde, value):
    tag, body = serde.dumps_typed(value)
    assert "+" in tag
    back = serde.loads_typed((tag, body))
    assert (type(back), back) == (type(value), value)
    assert isinstance(serde, SerializerProtocol)
    assert isinstance(serde, Encrypting)
    assert not isinstance(JsonPlusSerializer(), Encrypting)


def test_plain_rows_are_refused_unless_asked_for(serde):
    plain = Serde().dumps_typed({"a": 1})
    with pytest.raises(CorruptCheckpointError):
        serde.loads_typed(plain)
    lenient = EncryptedSerializer(serde.cipher, accept_plaintext=True)
    assert lenient.loads_typed(plain) == {"a": 1}
    assert lenient.loads_typed(serde.dumps_typed(2)) == 2


def test_a_body_opens_only_at_its_place(serde):
    encrypted = serde.encrypt_at("m1", b"body", b"here")
    assert serde.decrypt_at(*encrypted, b"here") == ("m1", b"body")
    for place in (b"there", b"her", b"heree"):
        with pytest.raises(CorruptCheckpointError):
            serde.decrypt_at(*encrypted, place)
    loose = serde.encrypt_at("m1", b"body")
    for tag in (encrypted[0].replace("m1", "bytes"), encrypted[0].replace("m1", ""), "m1+other", "m1+"):
        with pytest.raises((CorruptCheckpointError, AssertionError)):
            serde.decrypt_at(tag, encrypted[1], b"here")
    with pytest.raises(CorruptCheckpointError):
        serde.decrypt_at(*loose, b"here")


def test_an_edited_tag_is_noticed():
    serde = EncryptedSerializer(BindingCipher(b"key"))
    tag, body = serde.dumps_typed(b"\x01")
    assert tag.startswith("bytes+")
    with pytest.raises(CorruptCheckpointError):
        serde.loads_typed((tag.replace("bytes", "m1"), body))


def test_names_of_ciphers_are_part_of_tags():
    class Odd(PlainCipher):
        def encrypt(self, plaintext):
            return "a+b", plaintext

    with pytest.raises(ValueError):
        EncryptedSerializer(Odd()).dumps_typed(1)


def test_secrets_can_be_stored_encrypted():
    inner = JsonPlusSerializer()
    serde = EncryptedSerializer(BindingCipher(b"key"), inner)
    value = [pydantic.SecretStr("needle"), pydantic.SecretBytes(b"needle")]
    tag, body = serde.dumps_typed(value)
    assert b"needle" not in body
    assert serde.loads_typed((tag, body)) == value
    with pytest.raises(UnregisteredTypeError):
        inner.dumps(value)


def test_allow_lists_reach_the_inner_serializer():
    class Untyped:
        dumps_typed = loads_typed = None

    serde = EncryptedSerializer(BindingCipher(b"key"))
    wider = serde.with_msgpack_allowlist([])
    assert wider is not serde
    assert wider.cipher is serde.cipher
    foreign = EncryptedSerializer(serde.cipher, Untyped())
    assert foreign.with_msgpack_allowlist([]) is foreign


def test_tools_read_opaque_values(serde):
    tag, body = serde.dumps_typed(ids_of_nobody := {"a": 1})
    assert serde.loads_typed((tag, body), opaque=True) == ids_of_nobody


# ---- savers

NEEDLE = "a needle in the file"


def saver_of(kind: str, path: Path, serde: Any) -> Any:
    return InMemorySaver(serde=serde) if kind == "memory" else SqliteSaver(path, serde=serde)


@pytest.fixture(params=["memory", "sqlite"])
def kind(request):
    return request.param


def filled(saver: Any, thread_id: str = "t") -> ScriptedRun:
    """A run with long and short values, grown lists, task rows of all kinds and metadata."""
    run = ScriptedRun(Store(saver, False), config(thread_id))
    items: list[Any] = [{NEEDLE: 0, "text": "x" * 90}]
    run.step({"items": items, "short": NEEDLE[:8], "long": NEEDLE * 200})
    for n in range(4):
        items = [*items, {NEEDLE: n, "text": "y" * 90}]
        run.step({"items": items}, seen={"node": {"short": 1}})
    run.tasks(
        run.task("task-1", [("items", [NEEDLE]), ("short", NEEDLE)], path="p"),
        run.task("task-2", [("__interrupt__", NEEDLE * 100)], slot=-3),
        run.task("task-2", [("__error__", ValueError(NEEDLE))], slot=-1),
    )
    return run


def test_nothing_is_stored_in_clear(tmp_path):
    path = tmp_path / "threads.sqlite"
    with SqliteSaver(path, serde=EncryptedSerializer(BindingCipher(b"key"))) as saver:
        filled(saver)
        given = {"v": 4, "id": ids.checkpoint_id(9), "ts": "2026-01-02T03:04:05.000006+00:00"}
        values = {"put": NEEDLE * 9, "short": NEEDLE}
        given |= {"channel_values": values, "channel_versions": {"put": 1, "short": 1}, "versions_seen": {}}
        where = saver.put(config("u", ""), {**given, "more": NEEDLE}, {"source": "loop", "step": 1, "by": NEEDLE}, {})  # type: ignore[arg-type, typeddict-unknown-key]
        saver.put_writes(where, [("put", NEEDLE), ("__resume__", NEEDLE)], "task", "path")
        found = saver.get_tuple(where)
        assert found is not None
        assert found.checkpoint["channel_values"] == values
        assert found.checkpoint["more"] == NEEDLE  # type: ignore[typeddict-item]
        assert found.metadata["by"] == NEEDLE  # type: ignore[typeddict-item]
        assert [write[2] for write in found.pending_writes or ()] == [NEEDLE] * 2
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for text in (NEEDLE, NEEDLE[:8], "items", "short", "node"):
        assert text.encode() not in stored, text


def test_a_run_goes_on_and_copies_stay_readable(kind, tmp_path):
    path = tmp_path / "threads.sqlite"
    with saver_of(kind, path, EncryptedSerializer(BindingCipher(b"key"))) as saver:
        run = filled(saver)
        saver.copy_thread("t", "u")
        store = Store(saver, False)
        for stored in run.stored:
            stored.check(store)
            stored.thread_id = "u"
            stored.check(store)
        for thread_id in ("t", "u"):
            later = ScriptedRun(store, config(thread_id))
            assert [task.slot for task in later.loaded.writes] == [0, -3, -1] or len(later.loaded.writes) == 3
            later.step({"items": [*later.values["items"], thread_id]})
            later.stored[-1].check(store)


@pytest.mark.parametrize("colour", [False, True])
def test_filters_are_refused(kind, tmp_path, colour):
    with saver_of(kind, tmp_path / "x", EncryptedSerializer(BindingCipher(b"key"))) as saver:
        filled(saver)
        store = Store(saver, colour)
        with pytest.raises(ValueError, match="encrypted"):
            store.list(config(), filter={"source": "loop"})
        with pytest.raises(ValueError, match="encrypted"):
            store.history(config(ns=""), filter={"a": 1})
        assert len(store.list(config(), filter={})) == len(store.list(config())) == 5


def test_wrong_keys_and_missing_encryption(kind, tmp_path):
    path = tmp_path / "threads.sqlite"
    right = EncryptedSerializer(BindingCipher(b"key"))
    with saver_of(kind, path, right) as saver:
        filled(saver)
        for wrong in (EncryptedSerializer(BindingCipher(b"other")), EncryptedSerializer(PlainCipher()), Serde()):
            other = copy.copy(saver)
            other.serde = wrong
            for read in (other.get_tuple, other.load, lambda c, s=other: list(s.list(c))):
                with pytest.raises((CheckpointError, AssertionError)) as caught:
                    read(config())
                assert NEEDLE not in str(caught.value)
        assert saver.get_tuple(config()).checkpoint["channel_values"]["long"] == NEEDLE * 200


def test_threads_from_before_there_was_encryption(kind, tmp_path):
    path = tmp_path / "threads.sqlite"
    with saver_of(kind, path, Serde()) as saver:
        run = filled(saver)
        run.stored[-1].check(Store(saver, False))
        saver.serde = EncryptedSerializer(BindingCipher(b"key"))
        with pytest.raises(CorruptCheckpointError, match="not encrypted"):
            saver.get_tuple(config())
        saver.serde = EncryptedSerializer(BindingCipher(b"key"), accept_plaintext=True)
        store = Store(saver, False)
        run.stored[-1].check(store)
        later = ScriptedRun(store, config())
        later.step({"items": [*later.values["items"], 1], "short": "new"})
        later.stored[-1].check(store)
        run.stored[-1].check(store)


# ---- who can write the file


MINE = "(SELECT s.space_pk FROM spaces s JOIN threads t USING (thread_pk) WHERE t.thread_id = 't')"
ITEMS = f"space_pk = {MINE} AND seq > 0"
PLAIN = "x'93010203'"
FIRST, SECOND = (
    f"(SELECT data FROM payloads WHERE {ITEMS} ORDER BY seq LIMIT 1)",
    f"(SELECT data FROM payloads WHERE {ITEMS} ORDER BY seq DESC LIMIT 1)",
)
HEAD = f"rev = (SELECT max(rev) FROM checkpoints WHERE space_pk = {MINE})"
EDITS = {
    "delta of another position": f"UPDATE payloads SET data = {SECOND} WHERE {ITEMS} AND seq = 1",
    "delta of another thread": "UPDATE payloads SET data = (SELECT o.data FROM payloads o WHERE o.chan = payloads.chan "
    f"AND o.seq = payloads.seq AND o.space_pk <> payloads.space_pk) WHERE {ITEMS} AND seq = 2",
    "value of another channel": "UPDATE payloads SET (tag, data) = (SELECT o.tag, o.data FROM payloads o WHERE "
    f"o.space_pk = payloads.space_pk AND o.chan <> payloads.chan AND o.part = 0) WHERE space_pk = {MINE} AND seq = 0 "
    "AND chan = (SELECT chan FROM payloads WHERE seq > 0 LIMIT 1)",
    "plain delta": f"UPDATE payloads SET tag = NULL, data = {PLAIN} WHERE {ITEMS} AND seq = 3",
    "plain value with a tag": f"UPDATE payloads SET tag = 'm1', data = {PLAIN} WHERE {ITEMS} AND seq = 3",
    "other format tag": f"UPDATE payloads SET tag = replace(tag, 'm1', 'bytes') WHERE {ITEMS}",
    "other key in the tag": f"UPDATE payloads SET tag = 'm1+test:00000000' WHERE {ITEMS}",
    "cut delta": f"UPDATE payloads SET data = substr(data, 1, length(data) - 1) WHERE {ITEMS} AND seq = 1",
    "empty delta": f"UPDATE payloads SET data = x'' WHERE {ITEMS} AND seq = 1",
    "missing part": f"DELETE FROM payloads WHERE space_pk = {MINE} AND part = (SELECT max(part) FROM payloads)",
    "missing delta in the middle": f"DELETE FROM payloads WHERE {ITEMS} AND seq = 2",
    "missing last delta": f"DELETE FROM payloads WHERE {ITEMS} AND seq = 4",
    "header of another revision": "UPDATE checkpoints SET header = (SELECT o.header FROM checkpoints o WHERE o.space_pk "
    f"= checkpoints.space_pk AND o.rev < checkpoints.rev ORDER BY o.rev DESC) WHERE space_pk = {MINE} AND {HEAD}",
    "header of another thread": "UPDATE checkpoints SET header = (SELECT o.header FROM checkpoints o WHERE o.space_pk <> "
    f"checkpoints.space_pk AND o.step = checkpoints.step) WHERE space_pk = {MINE} AND {HEAD}",
    "header left out of the chain": f"DELETE FROM checkpoints WHERE space_pk = {MINE} AND step = 1",
    "header chain begun later": f"UPDATE checkpoints SET header_root = rev WHERE space_pk = {MINE} AND {HEAD}",
    "plain header": f"UPDATE checkpoints SET header = x'97909090909090c0' WHERE space_pk = {MINE} AND {HEAD}",
    "cut header": f"UPDATE checkpoints SET header = substr(header, 1, length(header) - 1) WHERE space_pk = {MINE}",
    "header of two bytes": f"UPDATE checkpoints SET header = x'c1ff' WHERE space_pk = {MINE}",
    "plain metadata": f"UPDATE checkpoints SET metadata = '{{\"by\": 1}}' WHERE space_pk = {MINE} AND {HEAD}",
    "metadata of another revision": "UPDATE checkpoints SET metadata = (SELECT o.metadata FROM checkpoints o WHERE "
    f"o.space_pk = checkpoints.space_pk AND o.rev < checkpoints.rev) WHERE space_pk = {MINE} AND {HEAD}",
    "metadata removed": f"UPDATE checkpoints SET metadata = NULL WHERE space_pk = {MINE} AND {HEAD}",
    "step edited": f"UPDATE checkpoints SET step = step + 1 WHERE space_pk = {MINE} AND {HEAD}",
    "source edited": f"UPDATE checkpoints SET source = 4 WHERE space_pk = {MINE} AND {HEAD}",
    "run id edited": f"UPDATE checkpoints SET run_id = 'r' WHERE space_pk = {MINE} AND {HEAD}",
    "metadata that is a text": f"UPDATE checkpoints SET metadata = '\"json\"' WHERE space_pk = {MINE} AND {HEAD}",
    "metadata that is broken": f"UPDATE checkpoints SET metadata = '\"x' WHERE space_pk = {MINE} AND {HEAD}",
    "task row of another task": "UPDATE task_writes SET (tag, data) = (SELECT o.tag, o.data FROM task_writes o WHERE "
    f"o.space_pk = task_writes.space_pk AND o.slot = -1) WHERE space_pk = {MINE} AND slot = 0",
    "task row of another slot": f"UPDATE task_writes SET slot = -4 WHERE space_pk = {MINE} AND slot = -1",
    "plain task row": f"UPDATE task_writes SET tag = NULL, data = {PLAIN} WHERE space_pk = {MINE} AND slot = 0",
    "task row without its last part": f"DELETE FROM task_writes WHERE space_pk = {MINE} AND slot = -3 AND part = "
    "(SELECT max(part) FROM task_writes)",
    "salt of another thread": "UPDATE threads SET salt = salt + 1 WHERE thread_id = 't'",
    "namespace renamed": f"UPDATE spaces SET ns = 'x' WHERE space_pk = {MINE}",
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("cipher", CIPHERS)
def test_edited_files_are_errors_and_never_data(tmp_path, edit, cipher):
    path = tmp_path / "threads.sqlite"
    with SqliteSaver(path, serde=EncryptedSerializer(CIPHERS[cipher](b"key"))) as saver:
        for thread_id in ("t", "u"):
            run = filled(saver, thread_id)
            meta = {"source": "loop", "by": NEEDLE}
            last = run.prepare({"short": "z"}, metadata=meta, writes=())
            saver.commit(last)
            last = run.prepare({"short": "y"}, metadata=dict(meta))
            saver.commit(last)
            run.tasks(
                run.task("task-1", [("items", [NEEDLE])]),
                run.task("task-2", [("__interrupt__", NEEDLE * 100)], slot=-3),
                run.task("task-2", [("__error__", NEEDLE)], slot=-1),
            )
        before = saver.get_tuple(config("t"))
        assert before is not None
        assert before.metadata["by"] == NEEDLE  # type: ignore[typeddict-item]
    conn = sqlite3.connect(path)
    assert conn.execute(EDITS[edit]).rowcount > 0
    repair_checksums(conn)
    conn.commit()
    conn.close()
    ns = "x" if edit == "namespace renamed" else ""
    with SqliteSaver(path, serde=EncryptedSerializer(CIPHERS[cipher](b"key"))) as saver:
        for read in (saver.get_tuple, saver.load, lambda c: list(saver.list(c))):
            with pytest.raises(CheckpointError) as caught:
                read(config("t", ns))
            assert NEEDLE not in str(caught.value)
        # The other thread is as it was.
        other = saver.get_tuple(config("u"))
        assert other is not None
        assert other.checkpoint["channel_values"] == before.checkpoint["channel_values"]


def test_metadata_in_the_file_is_json_without_content(tmp_path):
    path = tmp_path / "threads.sqlite"
    with SqliteSaver(path, serde=EncryptedSerializer(BindingCipher(b"key"))) as saver:
        run = ScriptedRun(Store(saver, False))
        saver.commit(run.prepare({"a": 1}, metadata={"source": "input", "by": NEEDLE}))
    (text,) = sqlite3.connect(path).execute("SELECT metadata FROM checkpoints").fetchone()
    assert type(json.loads(text)) is str
    assert NEEDLE not in text


# ---- other keys


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("page", [1, 3, 500])
def test_rewrap_leaves_nothing_under_former_keys(kind, tmp_path, monkeypatch, colour, page):
    monkeypatch.setattr("checkpoint.rewrap.PAGE", page)
    path = tmp_path / "threads.sqlite"
    old, both = EncryptedSerializer(BindingCipher(b"old")), EncryptedSerializer(BindingCipher(b"new", b"old"))
    with saver_of(kind, path, old) as saver:
        store = Store(saver, colour)
        run, other = filled(saver), filled(saver, "u")
        nested = ScriptedRun(store, config("t", "inner"), claim=run.claim, up_rev=run.rev)
        nested.step({"nested": [NEEDLE * 30]})
        where = saver.put(config("p", ""), public_put("put"), {"source": "loop", "step": 1, "by": NEEDLE}, {})
        saver.put_writes(where, [("put", NEEDLE * 100)], "task")
        before = [store.get_tuple(stored.config) for stored in run.stored]
        saver.serde = both
        assert store._call("rewrap", "nobody") == 0
        n_rows = store._call("rewrap", "t")
        assert n_rows > 10
        assert store._call("rewrap", "t") == 0
        assert store._call("rewrap") > 5
        assert store._call("rewrap") == 0
        # A run that has the thread does not notice.
        run.step({"items": [*run.values["items"], "after"], "short": "after"})
        saver.serde = EncryptedSerializer(BindingCipher(b"new"))
        assert [store.get_tuple(stored.config) for stored in run.stored[:-1]] == before
        for stored in (*run.stored, *other.stored, *nested.stored):
            stored.check(store)
        assert store.get_tuple(where).pending_writes[0][2] == NEEDLE * 100
        assert len(store.list(None)) == len(run.stored) + len(other.stored) + 2
        later = ScriptedRun(store, config("u"))
        later.step({"items": [*later.values["items"], 1]})
        later.stored[-1].check(store)


def public_put(channel: str) -> Any:
    given = {"v": 4, "id": ids.checkpoint_id(9), "ts": "2026-01-02T03:04:05.000006+00:00"}
    return given | {"channel_values": {channel: NEEDLE * 9}, "channel_versions": {channel: 1}, "versions_seen": {}}


def test_rewrap_encrypts_what_was_stored_in_clear(kind, tmp_path):
    path = tmp_path / "threads.sqlite"
    with saver_of(kind, path, Serde()) as saver:
        run = filled(saver)
        store = Store(saver, False)
        run.stored[-1].check(store)
        saver.serde = EncryptedSerializer(BindingCipher(b"key"), accept_plaintext=True)
        assert saver.rewrap() > 10
        assert saver.rewrap() == 0
        saver.serde = EncryptedSerializer(BindingCipher(b"key"))
        for stored in run.stored:
            stored.check(store)
        run.step({"items": [*run.values["items"], 1]})
        run.stored[-1].check(store)
    if kind == "sqlite":
        conn = sqlite3.connect(path)
        conn.execute("VACUUM")
        conn.close()
        assert NEEDLE.encode() not in path.read_bytes()


def test_rewrap_refuses(kind, tmp_path):
    path = tmp_path / "threads.sqlite"
    with saver_of(kind, path, EncryptedSerializer(BindingCipher(b"old"))) as saver:
        run = filled(saver)
        run.stored[-1].check(Store(saver, False))
        saver.serde = EncryptedSerializer(BindingCipher(b"new"))
        with pytest.raises(CorruptCheckpointError):
            saver.rewrap()
        saver.serde = Serde()
        with pytest.raises(ValueError, match="encrypt"):
            saver.rewrap()
        saver.serde = EncryptedSerializer(BindingCipher(b"old"))
        run.stored[-1].check(Store(saver, False))
