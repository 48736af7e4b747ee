"""A store's file is for its owner's eyes only, as a saver's is."""

import os
from pathlib import Path

from pregel.store.sqlite import SqliteStore


def test_only_the_owner_reads_a_file(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with SqliteStore(str(tmp_path / "store")) as store:
            store.put(("a",), "k", {"n": 1})
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert modes == {"store": 0o600, "store-wal": 0o600, "store-shm": 0o600}


def test_a_store_in_memory_makes_no_file(tmp_path: Path) -> None:
    place = Path.cwd()
    os.chdir(tmp_path)
    try:
        with SqliteStore(":memory:") as store:
            store.put(("a",), "k", {"n": 1})
    finally:
        os.chdir(place)
    assert not [*tmp_path.iterdir()]
