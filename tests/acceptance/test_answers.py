"""What an answer must be, and until when (promises 39 and 40): types, JSON schemas, deadlines with defaults.

Each call happens on a graph that is built anew, and on a file that is opened again (`Life` in test_questions.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict

from pregel.errors import GraphInterrupt, InvalidAnswerError, UnknownInterruptError, is_invalid_resume
from pregel.graph import START, StateGraph
from pregel.pregel import _request
from pregel.types import Command, Interrupt, RetryPolicy, interrupt
from tests.acceptance.test_questions import PLACES, Life, asked
from tests.support.scenarios import Colour, Log, refused

YES_NO = {"type": "string", "enum": ["yes", "no"]}


class Approval(BaseModel):
    ok: bool
    n: int = 0


@dataclass
class Point:
    x: int


class Named(TypedDict):
    name: str


@pytest.fixture(params=["memory", "sqlite"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "threads.sqlite"


@pytest.fixture(params=[*PLACES, ("called", "async")], ids="-".join)
def life(request: pytest.FixtureRequest, colour: Colour, file: Path | None) -> Life:
    return Life(colour, request.param[0], file, request.param[1])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What runs take for the time, in Unix seconds; set the element to move it."""
    shown = [1_000_000.0]
    monkeypatch.setattr(_request, "clock", lambda: shown[0])
    return shown


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def ask(life: Life, *, taken: list[Any] | None = None, **options: Any) -> None:
    """The life's graph: n asks "q" and adds the answer; s runs beside it."""

    def n(state: Log) -> dict[str, Any]:
        life.calls.append("n")
        answer = interrupt("q", **options)
        if taken is not None:
            taken.append(answer)
        return {"l": ["n"]}

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log).add_node("n", life.colour.node(n)).add_node("s", life.colour.letter("s", life.calls))
        return builder.add_edge(START, "n").add_edge(START, "s")

    life.builder = build


# -------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("type_", "bad", "good", "taken"),
    [
        (Approval, {"ok": "perhaps"}, {"ok": True, "n": "3"}, Approval(ok=True, n=3)),
        (Approval, None, Approval(ok=False), Approval(ok=False)),
        (Point, "here", {"x": 1}, Point(1)),
        (Named, {"nam": "Ann"}, {"name": "Ann"}, {"name": "Ann"}),
        (int, "x", "3", 3),
        (list[int], [1, "b"], ("1", 2), [1, 2]),
        (Annotated[int, ["unhashable"]], "x", 3, 3),
        (int | None, "x", 5, 5),
    ],
    ids=str,
)
def test_an_answer_of_a_type(
    colour: Colour, saver: Any, thread: Any, type_: Any, bad: Any, good: Any, taken: Any
) -> None:
    seen: list[Any] = []

    def n(state: Log) -> dict[str, Any]:
        seen.append(interrupt("q", response_schema=type_))
        return {"l": ["n"]}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=saver)
    (question,) = colour.invoke(graph, {"l": []}, thread)["__interrupt__"]
    assert isinstance(question.response_schema, dict)
    if bad is not None:
        with pytest.raises(ValidationError):
            colour.invoke(graph, Command(resume=bad), thread)
    assert colour.invoke(graph, Command(resume=good), thread) == {"l": ["n"]}
    assert seen == [taken]
    assert type(seen[0]) is type(taken)


def test_a_bad_answer_of_a_type_leaves_everything_as_it_was(life: Life) -> None:
    """Promise 39; `is_invalid_resume` knows it, and the sibling that runs in the same step is not disturbed."""
    taken: list[Any] = []
    ask(life, response_schema=Approval, taken=taken)
    question = life.start()["q"]
    assert question.response_schema == Approval.model_json_schema()
    before = life.stored()
    for _ in range(2):
        with pytest.raises(ValidationError) as caught:
            life.answer({question.id: {"ok": "perhaps"}})
        assert is_invalid_resume(caught.value)
        assert caught.value.interrupt_id == question.id
        notes = " ".join(caught.value.__notes__)
        assert all(part in notes for part in (question.id, "'n'", "perhaps"))
        assert life.stored() == before
        assert life.state().interrupts == (question,)
    life.ran()
    assert life.answer({"ok": 1}) == {"l": ["n", "s"]}
    assert (taken, life.ran()) == ([Approval(ok=True)], ["n"])


def test_bad_and_good_answers_in_one_resume(life: Life) -> None:
    """The good ones count, whether their node is the same or another one."""

    def two(state: Log) -> dict[str, Any]:
        life.calls.append("two")
        return {"l": [interrupt("first", response_schema=int), interrupt("second", response_schema=int)]}

    def one(state: Log) -> dict[str, Any]:
        life.calls.append("one")
        return {"l": [interrupt("other", response_schema=int)]}

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log).add_node("two", life.colour.node(two)).add_node("one", life.colour.node(one))
        return builder.add_edge(START, "two").add_edge(START, "one")

    life.builder = build
    questions = life.start()
    second = asked(life.answer({questions["first"].id: "1"}))["second"]
    with pytest.raises(ValidationError):
        life.answer({second.id: "x", questions["other"].id: 3})
    assert {q.value for q in life.state().interrupts} == {"second"}
    life.ran()
    assert life.answer("2") == {"l": [3, 1, 2]}
    assert life.ran() == ["two"]


def test_a_node_that_fails_after_its_answer_does_not_ask_again(life: Life) -> None:
    """An answer of a type is stored when the node has taken it, also if the node then fails."""
    failing = [True]

    def n(state: Log) -> dict[str, Any]:
        answer = interrupt("q", response_schema=int)
        if failing:
            failing.clear()
            raise RuntimeError("boom")
        return {"l": [answer]}

    life.builder = lambda: StateGraph(Log).add_node("n", life.colour.node(n)).add_edge(START, "n")
    life.start()
    with refused(RuntimeError, "boom"):
        life.answer("3")
    assert life.state().interrupts == ()
    assert life.invoke(None) == {"l": [3]}


def test_a_bad_answer_is_not_a_failure(colour: Colour, saver: Any, thread: Any) -> None:
    """Neither retried nor handled."""
    seen: list[str] = []

    def n(state: Log) -> dict[str, Any]:
        seen.append("n")
        return {"l": [interrupt("q", response_schema=int)]}

    def handle(state: Log) -> dict[str, Any]:
        seen.append("handler")
        return {"l": ["handled"]}

    policy = RetryPolicy(initial_interval=0.0, jitter=False, retry_on=Exception)
    builder = StateGraph(Log).add_node("n", colour.node(n), retry_policy=policy, error_handler=colour.node(handle))
    graph = builder.add_edge(START, "n").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    with pytest.raises(ValidationError):
        colour.invoke(graph, Command(resume="x"), thread)
    assert seen == ["n", "n"]
    assert colour.invoke(graph, Command(resume=3), thread) == {"l": [3]}


def test_a_type_that_changes_under_a_stored_answer_asks_again(colour: Colour, saver: Any, thread: Any) -> None:
    """As after a redeploy: what was stored does not fit any more, so it is asked for once more."""
    types: list[Any] = [int]

    def n(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q", response_schema=types[0]), interrupt("next")]}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=saver)
    first = asked(colour.invoke(graph, {"l": []}, thread))["q"]
    colour.invoke(graph, Command(resume=3), thread)
    types[0] = Point
    again = asked(colour.invoke(graph, None, thread))
    assert again["q"].id == first.id
    colour.invoke(graph, Command(resume={"x": 1}), thread)
    assert colour.invoke(graph, Command(resume="B"), thread) == {"l": [Point(1), "B"]}


def test_no_type(colour: Colour) -> None:
    class Anything:
        pass

    def n(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q", response_schema=Anything)]}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile()
    with refused(TypeError, "Anything"):
        colour.invoke(graph, {"l": []})


# ------------------------------------------------------------------------------------------------------- JSON schemas


def test_an_answer_to_a_json_schema(life: Life) -> None:
    """It is checked before any node runs, in a process that has seen no node of the graph run."""
    ask(life, response_schema=YES_NO)
    question = life.start()["q"]
    assert question.response_schema == YES_NO
    life.ran()
    before = life.stored()
    for resume in ("perhaps", {question.id: 3}):
        with refused(InvalidAnswerError, question.id, "'n'", "$") as caught:
            life.answer(resume)
        assert is_invalid_resume(caught.value)
        assert caught.value.interrupt_id == question.id
    assert (life.stored(), life.ran()) == (before, [])
    assert life.answer("yes") == {"l": ["n", "s"]}


def test_one_bad_answer_of_several_refuses_them_all(life: Life) -> None:
    def asker(name: str) -> Any:
        def ask_(state: Log) -> dict[str, Any]:
            life.calls.append(name)
            return {"l": [interrupt(name, response_schema={"type": "integer"})]}

        return life.colour.node(ask_)

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log).add_node("a", asker("a")).add_node("b", asker("b"))
        return builder.add_edge(START, "a").add_edge(START, "b")

    life.builder = build
    questions = life.start()
    life.ran()
    before = life.stored()
    with refused(InvalidAnswerError, questions["b"].id, "'x'"):
        life.answer({questions["a"].id: 1, questions["b"].id: "x"})
    assert (life.stored(), life.ran()) == (before, [])
    assert life.answer({questions["a"].id: 1, questions["b"].id: 2}) == {"l": [1, 2]}


def test_an_answer_that_came_before_its_question_is_checked_in_the_node(
    colour: Colour, saver: Any, thread: Any
) -> None:
    """After an edit of the state nothing is asked until the node runs, so only then it is known what fits."""

    def n(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q", response_schema=YES_NO)]}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    colour.update_state(graph, thread, {"l": ["up"]})
    with refused(InvalidAnswerError, "'n'", "'perhaps'"):
        colour.invoke(graph, Command(resume="perhaps"), thread)
    assert list(asked(colour.invoke(graph, None, thread))) == ["q"]
    assert colour.invoke(graph, Command(resume="no"), thread) == {"l": ["up", "no"]}


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"requierd": []}, {"unevaluatedItems": False}], ids=str)
def test_a_schema_that_cannot_be_checked_is_refused_when_it_is_asked(
    colour: Colour, saver: Any, thread: Any, schema: Any
) -> None:
    def n(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q", response_schema=schema)]}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=saver)
    with refused(ValueError, next(iter(schema))) as caught:
        colour.invoke(graph, {"l": []}, thread)
    assert not is_invalid_resume(caught.value)
    assert colour.get_state(graph, thread).interrupts == ()


# ---------------------------------------------------------------------------------------------------------- deadlines


EXPIRIES = [60, 60.0, timedelta(minutes=1), at(1_000_060.0), at(1_000_060.0).astimezone()]


@pytest.mark.parametrize("expires", EXPIRIES, ids=repr)
def test_the_default_counts_from_the_deadline_on(
    colour: Colour, saver: Any, durability: str, thread: Any, clock: list[float], expires: Any
) -> None:
    def n(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q", expires=expires, default="no")]}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=saver)
    question = asked(colour.invoke(graph, {"l": []}, thread, durability=durability))["q"]
    assert (question.expires, question.default, question.asked_at) == (at(1_000_060.0), "no", at(1_000_000.0))
    clock[0] += 59.9
    again = asked(colour.invoke(graph, None, thread, durability=durability))["q"]
    assert (again, again.expires, again.asked_at) == (question, question.expires, question.asked_at)
    clock[0] += 0.1
    assert colour.invoke(graph, None, thread, durability=durability) == {"l": ["no"]}


def test_a_deadline_does_not_move(life: Life, clock: list[float]) -> None:
    """Run again, in other processes, by trying again and because another question was answered."""

    def a(state: Log) -> dict[str, Any]:
        life.calls.append("a")
        return {"l": [interrupt("a", expires=100, default="A")]}

    def b(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("b")]}

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log).add_node("a", life.colour.node(a)).add_node("b", life.colour.node(b))
        return builder.add_edge(START, "a").add_edge(START, "b")

    life.builder = build
    question = life.start()["a"]
    for _ in range(3):
        clock[0] += 30
        assert asked(life.invoke(None))["a"].expires == question.expires == at(1_000_100.0)
    clock[0] += 30
    rest = life.invoke(None)
    assert list(asked(rest)) == ["b"]
    assert life.answer("B") == {"l": ["A", "B"]}


def test_an_answer_in_time_wins(life: Life, clock: list[float]) -> None:
    ask(life, expires=60, default="no", taken=(taken := []))
    life.start()
    clock[0] += 59
    life.answer("yes")
    assert taken == ["yes"]


def test_an_answer_that_was_given_in_time_stays(life: Life, clock: list[float]) -> None:
    """Although its node failed, and the deadline has passed when it runs again."""
    failing = [True]

    def n(state: Log) -> dict[str, Any]:
        answer = interrupt("q", expires=60, default="no")
        if failing:
            failing.clear()
            raise RuntimeError("boom")
        return {"l": [answer]}

    life.builder = lambda: StateGraph(Log).add_node("n", life.colour.node(n)).add_edge(START, "n")
    life.start()
    with refused(RuntimeError, "boom"):
        life.answer("yes")
    clock[0] += 100
    assert life.invoke(None) == {"l": ["yes"]}


def test_an_answer_that_comes_too_late_is_refused(life: Life, clock: list[float]) -> None:
    """The default counts as the answer: to replace it, or to drop the late one in silence, would both be wrong."""
    ask(life, expires=60, default="no", taken=(taken := []))
    question = life.start()["q"]
    life.ran()
    clock[0] += 60
    before = life.stored()
    for resume in ("yes", {question.id: "yes"}):
        with refused(UnknownInterruptError, question.id, "'no'", "'q'") as caught:
            life.answer(resume)
        assert (caught.value.reason, caught.value.interrupt_ids) == ("expired", (question.id,))
    assert (life.stored(), life.ran()) == (before, [])
    assert life.invoke(None) == {"l": ["n", "s"]}
    assert taken == ["no"]


def test_an_expired_question_counts_as_answered(life: Life, clock: list[float]) -> None:
    """D43: its task runs when another one is answered."""

    def a(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("a", expires=60, default="A")]}

    def b(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("b")]}

    def build() -> StateGraph[Any]:
        builder = StateGraph(Log).add_node("a", life.colour.node(a)).add_node("b", life.colour.node(b))
        return builder.add_edge(START, "a").add_edge(START, "b")

    life.builder = build
    questions = life.start()
    clock[0] += 60
    assert life.answer({questions["b"].id: "B"}) == {"l": ["A", "B"]}


def test_without_a_default_the_question_stays_open(life: Life, clock: list[float]) -> None:
    ask(life, expires=60, taken=(taken := []))
    question = life.start()["q"]
    clock[0] += 1000
    assert asked(life.invoke(None))["q"] == question
    life.answer("late")
    assert taken == ["late"]


@pytest.mark.parametrize("default", [None, False, {"ok": False}, Approval(ok=False)], ids=repr)
def test_any_value_is_a_default(colour: Colour, saver: Any, thread: Any, clock: list[float], default: Any) -> None:
    seen: list[Any] = []

    def n(state: Log) -> dict[str, Any]:
        seen.append(interrupt("q", expires=60, default=default))
        return {"l": []}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=saver)
    assert asked(colour.invoke(graph, {"l": []}, thread))["q"].default == default
    clock[0] += 60
    colour.invoke(graph, None, thread)
    assert seen == [default]


@pytest.mark.parametrize(
    ("schema", "default", "taken"), [(Approval, {"ok": "no"}, Approval(ok=False)), (YES_NO, "no", "no")]
)
def test_a_default_fits_its_schema(
    colour: Colour, saver: Any, thread: Any, clock: list[float], schema: Any, default: Any, taken: Any
) -> None:
    seen: list[Any] = []

    def n(state: Log) -> dict[str, Any]:
        seen.append(interrupt("q", response_schema=schema, expires=60, default=default))
        return {"l": []}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=saver)
    colour.invoke(graph, {"l": []}, thread)
    clock[0] += 60
    colour.invoke(graph, None, thread)
    assert seen == [taken]


@pytest.mark.parametrize("schema", [Approval, YES_NO], ids=["type", "json"])
def test_a_default_that_does_not_fit_is_refused_when_it_is_asked(colour: Colour, schema: Any) -> None:
    def n(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q", response_schema=schema, expires=60, default="perhaps")]}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile()
    with refused(ValueError, "'n'", "'perhaps'") as caught:
        colour.invoke(graph, {"l": []})
    assert not is_invalid_resume(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "named"),
    [
        ({"default": 1}, ValueError, ["default=1", "expires"]),
        ({"expires": 0}, ValueError, ["expires", "0"]),
        ({"expires": -1.5}, ValueError, ["expires", "-1.5"]),
        ({"expires": float("inf")}, ValueError, ["inf"]),
        ({"expires": float("nan")}, ValueError, ["nan"]),
        ({"expires": timedelta(0)}, ValueError, ["expires"]),
        ({"expires": datetime(2026, 1, 1)}, ValueError, ["2026", "time zone"]),
        ({"expires": True}, TypeError, ["True"]),
        ({"expires": "tomorrow"}, TypeError, ["'tomorrow'", "str"]),
    ],
    ids=str,
)
def test_deadlines_that_mean_nothing(colour: Colour, options: Any, kind: Any, named: Any) -> None:
    def n(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q", **options)]}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile()
    with refused(kind, *named):
        colour.invoke(graph, {"l": []})


# ------------------------------------------------------------------------------------------------ how it is shown


def test_events_show_what_is_set_and_nothing_else(colour: Colour, memory: Any, thread: Any, clock: list[float]) -> None:
    """D50."""

    def n(state: Log) -> dict[str, Any]:
        return {"l": [interrupt("q", response_schema=YES_NO, expires=60, default="no")]}

    graph = StateGraph(Log).add_node("n", colour.node(n)).add_edge(START, "n").compile(checkpointer=memory)
    chunks = colour.stream(graph, {"l": []}, thread, stream_mode="tasks")
    (event,) = chunks[-1]["interrupts"]
    assert event == {
        "value": "q",
        "id": event["id"],
        "response_schema": YES_NO,
        "expires": "1970-01-12T13:47:40+00:00",
    }
    assert Interrupt("q", "i").as_event() == {"value": "q", "id": "i"}
    assert repr(Interrupt("q", "i")) == "Interrupt(value='q', id='i')"
    shown = repr(Interrupt("q", "i", {}, expires=at(0), default=3))
    assert all(part in shown for part in ("response_schema={}", "expires=", "default=3"))


def test_a_refusal_survives_pickling() -> None:
    import pickle

    error = InvalidAnswerError("text", interrupt_id="i", node="n", problem="p")
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.interrupt_id, twin.node, twin.problem) == ("text", "i", "n", "p")
    assert is_invalid_resume(twin)


@pytest.mark.parametrize("error", [ValueError("x"), GraphInterrupt(()), InvalidAnswerError], ids=repr)
def test_what_is_no_refusal(error: Any) -> None:
    assert not is_invalid_resume(error)
