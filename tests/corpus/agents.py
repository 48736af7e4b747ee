"""Agents: loops over tools, supervisors, hand-offs, reflection, plans."""

import json
import operator
from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypedDict

from pregel.errors import GraphRecursionError
from pregel.graph import END, START, MessagesState, StateGraph
from pregel.graph.message import add_messages
from pregel.managed.is_last_step import IsLastStep, RemainingSteps
from pregel.types import Command, Send
from tests.support.scenarios import Colour


def said(result: Any) -> list[tuple[str, Any]]:
    """Type and content of each message of a result."""
    return [(message.type, message.content) for message in result["messages"]]


def tool_agent(colour: Colour) -> None:
    tools = {"add": lambda a, b: a + b, "mul": lambda a, b: a * b}

    def call(name: str, number: int, **args: int) -> dict[str, Any]:
        return {"name": name, "args": args, "id": f"call_{number}", "type": "tool_call"}

    script = [
        {"role": "ai", "content": "", "tool_calls": [call("add", 1, a=2, b=3)], "id": "a1"},
        {"role": "ai", "content": "", "tool_calls": [call("mul", 2, a=5, b=4), call("add", 3, a=1, b=1)], "id": "a2"},
        {"role": "ai", "content": "it is 20", "id": "a3"},
    ]

    def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [script[sum(m.type == "ai" for m in state["messages"])]]}

    def run_tools(state: MessagesState) -> dict[str, Any]:
        return {
            "messages": [
                {
                    "role": "tool",
                    "content": json.dumps(tools[c["name"]](**c["args"])),
                    "tool_call_id": c["id"],
                    "name": c["name"],
                    "id": "t" + c["id"],
                }
                for c in state["messages"][-1].tool_calls
            ]
        }

    def should_continue(state: MessagesState) -> Literal["tools", "__end__"]:
        return "tools" if state["messages"][-1].tool_calls else END

    builder = StateGraph(MessagesState)
    builder.add_node("agent", colour.node(agent))
    builder.add_node("tools", colour.node(run_tools))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", should_continue)
    builder.add_edge("tools", "agent")
    graph = builder.compile()
    question = {"messages": [{"role": "user", "content": "what is (2+3)*4?", "id": "u1"}]}
    result = colour.invoke(graph, question)
    assert said(result) == [
        ("human", "what is (2+3)*4?"),
        ("ai", ""),
        ("tool", "5"),
        ("ai", ""),
        ("tool", "20"),
        ("tool", "2"),
        ("ai", "it is 20"),
    ]
    assert [m.id for m in result["messages"]] == ["u1", "a1", "tcall_1", "a2", "tcall_2", "tcall_3", "a3"]
    assert [m.tool_call_id for m in result["messages"] if m.type == "tool"] == ["call_1", "call_2", "call_3"]
    chunks = colour.stream(graph, question, stream_mode="updates")
    assert [name for chunk in chunks for name in chunk] == ["agent", "tools", "agent", "tools", "agent"]


def chatbot_that_takes_messages_in_any_form(colour: Colour) -> None:
    def bot(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("assistant", f"you said {state['messages'][-1].content}")]}

    builder = StateGraph(MessagesState).add_node("bot", colour.node(bot))
    graph = builder.add_edge(START, "bot").add_edge("bot", END).compile()
    for given in ("hello", ("user", "hello"), ["hello"], [("human", "hello")], {"role": "user", "content": "hello"}):
        assert said(colour.invoke(graph, {"messages": given})) == [("human", "hello"), ("ai", "you said hello")]
    result = colour.invoke(graph, {"messages": [("system", "be brief"), ("ai", "hi"), "x"]})
    assert [m.type for m in result["messages"]] == ["system", "ai", "human", "ai"]
    assert all(m.id for m in result["messages"])


def class_based_agent(colour: Colour) -> None:
    class Agent:
        def __init__(self, system: str) -> None:
            self.system = system
            graph = StateGraph(MessagesState)
            graph.add_node("llm", colour.node(self.call_model))
            graph.add_node("action", colour.node(self.take_action))
            graph.add_conditional_edges("llm", self.exists_action, {True: "action", False: END})
            graph.add_edge("action", "llm")
            graph.set_entry_point("llm")
            self.graph = graph.compile()

        def exists_action(self, state: MessagesState) -> bool:
            return len(state["messages"][-1].tool_calls) > 0

        def call_model(self, state: MessagesState) -> dict[str, Any]:
            count = len(state["messages"])
            if count >= 3:
                return {"messages": [{"role": "assistant", "content": f"{self.system} done"}]}
            calls = [{"name": "look", "args": {"at": count}, "id": f"c{count}"}]
            return {"messages": [{"role": "assistant", "content": "", "tool_calls": calls}]}

        def take_action(self, state: MessagesState) -> dict[str, Any]:
            return {
                "messages": [
                    {"role": "tool", "tool_call_id": c["id"], "name": c["name"], "content": str(c["args"]["at"])}
                    for c in state["messages"][-1].tool_calls
                ]
            }

    result = colour.invoke(Agent("sys").graph, {"messages": [("user", "q")]})
    assert said(result) == [("human", "q"), ("ai", ""), ("tool", "1"), ("ai", "sys done")]


def reflection_loop(colour: Colour) -> None:
    class State(TypedDict):
        topic: str
        draft: str
        critique: NotRequired[str]
        rounds: int
        history: Annotated[list[str], operator.add]

    def generate(state: State) -> dict[str, Any]:
        critique = state.get("critique")
        draft = f"essay on {state['topic']}" + (f" ({critique})" if critique else "")
        return {"draft": draft, "rounds": state["rounds"] + 1, "history": [f"gen {draft}"]}

    def reflect(state: State) -> dict[str, Any]:
        return {"critique": f"c{state['rounds']}", "history": [f"ref c{state['rounds']}"]}

    builder = StateGraph(State)
    builder.add_node("generate", colour.node(generate))
    builder.add_node("reflect", colour.node(reflect))
    builder.set_entry_point("generate")
    builder.add_conditional_edges(
        "generate", lambda s: "done" if s["rounds"] >= 3 else "again", {"done": END, "again": "reflect"}
    )
    builder.add_edge("reflect", "generate")
    graph = builder.compile(name="reflector")
    result = colour.invoke(graph, {"topic": "x", "rounds": 0})
    assert result == {
        "topic": "x",
        "draft": "essay on x (c2)",
        "critique": "c2",
        "rounds": 3,
        "history": ["gen essay on x", "ref c1", "gen essay on x (c1)", "ref c2", "gen essay on x (c2)"],
    }
    assert graph.name == "reflector"


def plan_and_execute(colour: Colour) -> None:
    class State(TypedDict):
        input: str
        plan: list[str]
        past_steps: Annotated[list[tuple[str, str]], operator.add]
        response: str

    def planner(state: State) -> dict[str, Any]:
        return {"plan": ["search", "read", "write"]}

    def execute(state: State) -> dict[str, Any]:
        return {"past_steps": [(state["plan"][0], f"did {state['plan'][0]}")]}

    def replan(state: State) -> dict[str, Any]:
        rest = state["plan"][1:]
        return {"plan": rest} if rest else {"response": f"{len(state['past_steps'])} steps"}

    workflow = StateGraph(State)
    workflow.add_node("planner", colour.node(planner))
    workflow.add_node("agent", colour.node(execute))
    workflow.add_node("replan", colour.node(replan))
    workflow.add_edge(START, "planner")
    workflow.add_edge("planner", "agent")
    workflow.add_edge("agent", "replan")
    workflow.add_conditional_edges("replan", lambda s: END if s.get("response") else "agent", ["agent", END])
    chunks = colour.stream(workflow.compile(), {"input": "q"}, {"recursion_limit": 50})
    assert chunks == [
        {"planner": {"plan": ["search", "read", "write"]}},
        {"agent": {"past_steps": [("search", "did search")]}},
        {"replan": {"plan": ["read", "write"]}},
        {"agent": {"past_steps": [("read", "did read")]}},
        {"replan": {"plan": ["write"]}},
        {"agent": {"past_steps": [("write", "did write")]}},
        {"replan": {"response": "3 steps"}},
    ]


def supervisor_with_commands(colour: Colour) -> None:
    class State(MessagesState):
        next: str

    members = ["researcher", "coder"]

    def supervisor(state: State) -> Command[Literal["researcher", "coder", "__end__"]]:
        done = {m.name for m in state["messages"]}
        for member in members:
            if member not in done:
                return Command(goto=member, update={"next": member})
        return Command(goto=END, update={"next": "FINISH"})

    def worker(name: str) -> Any:
        def act(state: State) -> Command[Literal["supervisor"]]:
            return Command(
                update={"messages": [{"role": "user", "content": f"{name} result", "name": name}]}, goto="supervisor"
            )

        return colour.node(act)

    builder = StateGraph(State)
    builder.add_edge(START, "supervisor")
    builder.add_node("supervisor", colour.node(supervisor))
    for member in members:
        builder.add_node(member, worker(member))
    graph = builder.compile()
    result = colour.invoke(graph, {"messages": [("user", "go")]})
    assert [m.content for m in result["messages"]] == ["go", "researcher result", "coder result"]
    assert result["next"] == "FINISH"
    edges = {(edge.source, edge.target, edge.conditional) for edge in graph.get_graph().edges}
    assert edges == {
        ("__start__", "supervisor", False),
        ("supervisor", "researcher", True),
        ("supervisor", "coder", True),
        ("supervisor", "__end__", True),
        ("researcher", "supervisor", True),
        ("coder", "supervisor", True),
    }


def swarm_that_hands_off_to_its_parent(colour: Colour) -> None:
    class State(MessagesState):
        active: str

    def agent(name: str, other: str) -> Any:
        def model(state: State) -> dict[str, Any]:
            turn = sum(m.type == "ai" for m in state["messages"])
            text = "hands off" if turn < 2 else "done"
            return {"messages": [{"role": "ai", "content": f"{name} {text}", "id": f"{name}{turn}"}]}

        def handoff(state: State) -> Command[Any]:
            return Command(goto=other, graph=Command.PARENT, update={"active": other, "messages": state["messages"]})

        builder = StateGraph(State)
        builder.add_node("model", colour.node(model))
        builder.add_node("handoff", colour.node(handoff))
        builder.add_edge(START, "model")
        builder.add_conditional_edges(
            "model", lambda s: "handoff" if "hands off" in s["messages"][-1].content else END, ["handoff", END]
        )
        return builder.compile(name=name)

    parent = StateGraph(State)
    parent.add_node("alice", agent("alice", "bob"), destinations=("bob",))
    parent.add_node("bob", agent("bob", "alice"), destinations=("alice",))
    parent.add_conditional_edges(START, lambda s: s.get("active") or "alice", ["alice", "bob"])
    result = colour.invoke(parent.compile(), {"messages": [{"role": "user", "content": "hi", "id": "u"}]})
    assert [m.content for m in result["messages"]] == ["hi", "alice hands off", "bob hands off", "alice done"]
    assert result["active"] == "alice"


def teams_of_teams(colour: Colour) -> None:
    class State(TypedDict):
        messages: Annotated[list[Any], add_messages]
        next: str

    def supervisor(members: list[str]) -> Any:
        def choose(state: State) -> Command[Any]:
            names = {m.name for m in state["messages"]}
            goto = next((member for member in members if member not in names), END)
            return Command(goto=goto, update={"next": goto})

        return colour.node(choose)

    def member(name: str) -> Any:
        def act(state: State) -> Command[Any]:
            return Command(
                update={"messages": [{"role": "user", "content": name, "name": name, "id": name}]}, goto="supervisor"
            )

        return colour.node(act)

    def team(*members: str) -> Any:
        builder = StateGraph(State).add_node("supervisor", supervisor(list(members)), destinations=members)
        for name in members:
            builder.add_node(name, member(name), destinations=("supervisor",))
        return builder.add_edge(START, "supervisor").compile()

    def call(graph: Any, name: str) -> Any:
        def act(state: State) -> Any:
            result = yield graph, {"messages": state["messages"][-1]}
            text = result["messages"][-1].content
            return Command(
                update={"messages": [{"role": "user", "content": text, "name": name, "id": name}]}, goto="supervisor"
            )

        return colour.script(act)

    builder = StateGraph(State).add_node("supervisor", supervisor(["research", "paper"]))
    builder.add_node("research", call(team("search", "scrape"), "research"))
    builder.add_node("paper", call(team("writer", "notes"), "paper"))
    builder.add_edge(START, "supervisor")
    result = colour.invoke(builder.compile(), {"messages": "go"}, {"recursion_limit": 50})
    assert [(m.name, m.content) for m in result["messages"]][1:] == [("research", "scrape"), ("paper", "notes")]
    assert result["next"] == END


def agent_that_counts_its_remaining_steps(colour: Colour) -> None:
    class State(TypedDict):
        log: Annotated[list[tuple[int, bool]], operator.add]
        remaining_steps: RemainingSteps
        last: IsLastStep

    def work(state: State) -> dict[str, Any]:
        return {"log": [(state["remaining_steps"], state["last"])]}

    builder = StateGraph(State).add_node("work", colour.node(work)).add_edge(START, "work")
    builder.add_conditional_edges("work", lambda s: END if s["remaining_steps"] <= 2 else "work")
    result = colour.invoke(builder.compile(), {"log": []}, {"recursion_limit": 5})
    assert result == {"log": [(4, False), (3, False), (2, False)]}


def loop_that_hits_the_recursion_limit(colour: Colour) -> None:
    class State(TypedDict):
        n: int

    builder = StateGraph(State).add_node("inc", colour.node(lambda s: {"n": s["n"] + 1})).add_edge(START, "inc")
    builder.add_conditional_edges("inc", lambda s: "inc" if s["n"] < 10 else END)
    graph = builder.compile()
    assert colour.invoke(graph, {"n": 0}, {"recursion_limit": 11}) == {"n": 10}
    chunks, error = colour.outcome(graph, {"n": 0}, {"recursion_limit": 4}, stream_mode="updates")
    assert isinstance(error, GraphRecursionError)
    assert isinstance(error, RecursionError)
    assert chunks == [{"inc": {"n": n}} for n in (1, 2, 3, 4)]
    _, error = colour.outcome(graph.with_config({"recursion_limit": 4}), {"n": 0})
    assert isinstance(error, GraphRecursionError)


def research_interviews(colour: Colour) -> None:
    class State(TypedDict):
        topic: str
        analysts: list[dict[str, str]]
        sections: Annotated[list[str], operator.add]
        report: str

    class Interview(MessagesState):
        turns: int
        context: Annotated[list[str], operator.add]
        analyst: dict[str, str]
        sections: list[str]

    def ask(state: Interview) -> dict[str, Any]:
        return {"messages": [{"role": "ai", "content": f"{state['analyst']['name']} asks", "name": "analyst"}]}

    def answer(state: Interview) -> dict[str, Any]:
        return {"messages": [{"role": "ai", "content": "+".join(state["context"]), "name": "expert"}]}

    def save(state: Interview) -> dict[str, Any]:
        return {"sections": [" / ".join(m.content for m in state["messages"])]}

    def route(state: Interview, name: str = "expert") -> str:
        return "save" if sum(m.name == name for m in state["messages"]) >= state.get("turns", 2) else "ask"

    interview = StateGraph(Interview)
    interview.add_node("ask", colour.node(ask))
    interview.add_node("web", colour.node(lambda state: {"context": ["web"]}))
    interview.add_node("wiki", colour.node(lambda state: {"context": ["wiki"]}))
    interview.add_node("answer", colour.node(answer))
    interview.add_node("save", colour.node(save))
    interview.add_edge(START, "ask")
    interview.add_edge("ask", "web")
    interview.add_edge("ask", "wiki")
    interview.add_edge("web", "answer")
    interview.add_edge("wiki", "answer")
    interview.add_conditional_edges("answer", route, ["ask", "save"])

    def start_all(state: State) -> list[Send]:
        return [
            Send("conduct", {"analyst": a, "messages": [("user", f"on {state['topic']}")], "turns": 1})
            for a in state["analysts"]
        ]

    builder = StateGraph(State)
    builder.add_node("create", colour.node(lambda state: {"analysts": [{"name": "A"}, {"name": "B"}]}))
    builder.add_node("conduct", interview.compile())
    builder.add_node("write", colour.node(lambda state: {"report": "\n".join(state["sections"])}))
    builder.add_edge(START, "create")
    builder.add_conditional_edges("create", start_all, ["conduct"])
    builder.add_edge("conduct", "write")
    result = colour.invoke(builder.compile(), {"topic": "LLMs"})
    assert result["report"] == "on LLMs / A asks / web+wiki\non LLMs / B asks / web+wiki"
