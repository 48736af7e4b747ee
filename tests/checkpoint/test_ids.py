"""Ids and times: bits, order, round trips."""

import sys
import threading
import time
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoint import ids
from checkpoint.uuid6 import uuid6

NODES = st.integers(0, 2**48 - 1)


@pytest.mark.parametrize(("step", "group"), [(-1, "bfff"), (0, "8000"), (-2, "bffe"), (5, "8005"), (2**14 + 3, "8003")])
def test_the_step_is_the_fourth_group(step, group):
    made = uuid6(clock_seq=step)
    assert str(made).split("-")[3] == group
    assert ids.checkpoint_id(step).split("-")[3] == group
    assert made.version == 6
    assert made.variant == uuid.RFC_4122


@pytest.mark.parametrize("step", [-2, -1, 0, 1, 8191])
def test_step_reads_back(step):
    assert ids.step_of(ids.checkpoint_id(step)) == step


@given(NODES)
def test_node_field(node):
    assert uuid6(node=node, clock_seq=1).node == node


@given(rev=NODES, salt=NODES)
def test_rev_reads_back_through_the_salt(rev, salt):
    assert ids.rev_of(ids.checkpoint_id(3, ids.node_of(rev, salt)), salt) == rev


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "x" * 36,
        "1EF4D8D2-3C1F-6C8E-8001-0242AC120002",
        "1ef4d8d23c1f6c8e80010242ac120002",
        "1ef4d8d2-3c1f-6c8e-80010242-ac120002",
        "1ef4d8d2-3c1f-6c8e-8001-0242ac12  02",
        "1ef4d8d2-3c1f-6c8e-8001-0242ac12000\u0662",
        "1ef4d8d2-3c1f-6c8e-8001-0242ac120002\n",
    ],
)
def test_other_texts_are_not_ids(text):
    assert ids.rev_of(text, 0) is None
    assert ids.id_to_bytes(text) is None


@given(st.uuids())
def test_bytes_and_text(made):
    assert ids.id_to_bytes(str(made)) == made.bytes
    assert ids.id_from_bytes(made.bytes) == str(made)


@pytest.mark.parametrize("drift", ["stuck", "backwards"])
def test_ids_increase_whatever_the_clock_does(monkeypatch, drift):
    start = time.time_ns() + 10**9
    ticks = iter(range(start, start - 10**12, -(10**9)))
    monkeypatch.setattr(ids.time, "time_ns", lambda: start if drift == "stuck" else next(ticks))
    made = [ids.checkpoint_id(0) for _ in range(500)]
    assert made == sorted(set(made))
    assert [ids.id_to_bytes(text) for text in made] == sorted({ids.id_to_bytes(text) for text in made})


def test_threads_get_different_ids_in_order():
    made: list[list[str]] = [[] for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [
            threading.Thread(target=lambda own=own: own.extend(ids.checkpoint_id(1, 7) for _ in range(3000)))
            for own in made
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert all(own == sorted(own) for own in made)
    assert len({text for own in made for text in own}) == 8 * 3000


def test_time_field_is_now():
    before = time.time_ns()
    made = uuid6()
    since_epoch = ((made.int >> 80) << 12 | (made.int >> 64) & 0xFFF) - 0x01B21DD213814000
    # Ids of earlier tests may have pushed the clock of this process ahead.
    assert since_epoch * 100 >= before - 100


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_times_round_trip(us):
    text = ids.timestamp_from_us(us)
    assert ids.timestamp_to_us(text) == us
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is UTC
    assert len(text) == 32


@pytest.mark.parametrize(
    "text",
    ["2024-01-01T00:00:00+00:00", "2024-01-01T00:00:00.000000+01:00", "2024-13-01T00:00:00.000000+00:00", "", "now"],
)
def test_times_that_would_not_come_back_as_they_are(text):
    assert ids.timestamp_to_us(text) is None


def test_timestamp_is_now_and_sorts():
    before = ids.now_us()
    texts = [ids.timestamp() for _ in range(100)]
    assert texts == sorted(texts)
    first = ids.timestamp_to_us(texts[0])
    assert first is not None
    assert before <= first <= ids.now_us()


def test_salts_have_48_bits():
    salts = {ids.new_salt() for _ in range(50)}
    assert len(salts) == 50
    assert all(0 <= salt < 2**48 for salt in salts)
