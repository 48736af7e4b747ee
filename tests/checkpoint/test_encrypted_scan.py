"""What tools see of encrypted threads: sound ones are sound, every edit is found, and a repair leaves a thread usable."""

import sqlite3

import pytest

from checkpoint.serde.encrypted import EncryptedSerializer
from checkpoint.sqlite import SqliteSaver
from tests.checkpoint.ciphers import BindingCipher
from tests.checkpoint.runs import ScriptedRun, Store, config
from tests.checkpoint.tampering import repair_checksums
from tests.checkpoint.test_encrypted import EDITS, NEEDLE, filled, saver_of

pytestmark = pytest.mark.skipif(not hasattr(SqliteSaver, "verify"), reason="savers cannot verify yet")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_sound_threads_are_sound(kind, tmp_path):
    with saver_of(kind, tmp_path / "threads.sqlite", EncryptedSerializer(BindingCipher(b"key"))) as saver:
        filled(saver)
        filled(saver, "u")
        assert saver.verify() == saver.verify(deep=True) == saver.verify(config("u"), deep=True) == []
        assert saver.stats(config()) is not None
        saver.copy_thread("t", "copy")
        assert saver.verify(deep=True) == []
        saver.serde = EncryptedSerializer(BindingCipher(b"new", b"key"))
        saver.rewrap()
        assert saver.verify(deep=True) == []
        saver.serde = EncryptedSerializer(BindingCipher(b"key"))
        assert saver.verify(config()) != []


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_is_found_and_can_be_repaired(tmp_path, edit):
    path, serde = tmp_path / "threads.sqlite", EncryptedSerializer(BindingCipher(b"key"))
    with SqliteSaver(path, serde=serde) as saver:
        for thread_id in ("t", "u"):
            run = filled(saver, thread_id)
            meta = {"source": "loop", "by": NEEDLE}
            saver.commit(run.prepare({"short": "z"}, metadata=meta))
            saver.commit(run.prepare({"short": "y"}, metadata=dict(meta)))
            run.tasks(
                run.task("task-1", [("items", [NEEDLE])]),
                run.task("task-2", [("__interrupt__", NEEDLE * 100)], slot=-3),
                run.task("task-2", [("__error__", NEEDLE)], slot=-1),
            )
    conn = sqlite3.connect(path)
    assert conn.execute(EDITS[edit]).rowcount > 0
    repair_checksums(conn)
    conn.commit()
    conn.close()
    with SqliteSaver(path, serde=serde) as saver:
        problems = saver.verify(config(), deep=True)
        assert problems
        assert NEEDLE not in repr(problems)
        assert saver.verify(config("u"), deep=True) == []
        saver.repair(config())
        assert saver.verify(config(), deep=True) == []
        run = ScriptedRun(Store(saver, False))
        run.step({"items": [1]})
        run.stored[-1].check(Store(saver, False))
