"""What the runnables of langchain-core find when a node calls them: the task's config, and somebody who hears tokens.

A program that calls a chat model inside a node passes no config, and still expects that the model's tokens are streamed,
that callbacks given to the graph are called, and that tags, metadata and configurable values arrive (frontends.md 4.3 and
7.7 d). langchain-core looks for all of this in a context variable of its own. So once a program has loaded that library,
each body is given the task's config there, before it is called. Never imports it: what is not in `sys.modules` is not in
use, and then nothing of this costs anything.

Knows of a task what its `TaskScope` says; of the library the name of that variable and the methods of a callback handler.

Invariants
1. A task hears the models that were called under its own config, never those of a run nested in it: the handler of an
   outer task is taken out of whatever config comes along.
2. What a model says after its task's attempt is over is refused like everything else the task does then (D29).

Source: langchain-core's documentation of callback handlers and of `RunnableConfig`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from pregel._scope import TaskScope
from pregel.constants import TAG_NOSTREAM

RUNNABLES: Final = "langchain_core.runnables.config"
MANAGERS: Final = "langchain_core.callbacks.manager"
modules: Final = sys.modules
"""`RUNNABLES in modules`: does the program use the library?"""

INTERNAL_TAG: Final = "seq:step"
"""How the tags begin that the library gives to the steps of its own sequences."""


class Lend:
    """An injector that puts the task's config where the library looks for it, then injects what the body asks for."""

    __slots__ = ("inject", "lend")

    def __init__(self, inject: Callable[[TaskScope], dict[str, Any]] | None, variable: Any) -> None:
        self.inject = inject
        self.lend: Callable[[Any], object] = variable.set

    def __call__(self, scope: TaskScope) -> dict[str, Any]:
        self.lend(Lent(scope))
        return {} if self.inject is None else self.inject(scope)


class Lent(dict[str, Any]):
    """The config of a task, made when somebody looks into it: most bodies call no runnable."""

    __slots__ = ("_scope",)

    def __init__(self, scope: TaskScope) -> None:
        self._scope: TaskScope | None = scope

    def made(self) -> Lent:
        """Itself, filled."""
        scope = self._scope
        if scope is not None:
            dict.update(self, scope.config)
            self._scope = None  # only now: other threads of the body may be looking, too
        return self

    def __len__(self) -> int:
        return dict.__len__(self.made())

    def __iter__(self) -> Any:  # also what makes dict(self) and {**self} ask
        return dict.__iter__(self.made())

    def __getitem__(self, key: str) -> Any:
        return dict.__getitem__(self.made(), key)

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self.made(), key)

    def __eq__(self, other: object) -> bool:
        return dict.__eq__(self.made(), other)

    __hash__ = None

    def __or__(self, other: Any) -> Any:
        return dict.__or__(dict(self.made()), other)

    def get(self, key: str, default: Any = None) -> Any:
        """As of a dict."""
        return dict.get(self.made(), key, default)

    def keys(self) -> Any:
        """As of a dict."""
        return dict.keys(self.made())

    def items(self) -> Any:
        """As of a dict."""
        return dict.items(self.made())

    def values(self) -> Any:
        """As of a dict."""
        return dict.values(self.made())

    def copy(self) -> dict[str, Any]:
        """A plain dict."""
        return dict(self.made())


def lend_to_all(nodes: dict[str, Any]) -> None:
    """Have the bodies of a compiled graph find their config: in order, so the last one tells whether all do."""
    for node in reversed(nodes.values()):
        if node.spec.bound is not None:
            if type(node.inject) is Lend:
                return
            break
    for node in nodes.values():
        lend_to(node)


def lend_to(node: Any) -> None:
    """Have the bodies of a compiled node, and its routers, find their config; once is enough."""
    variable = getattr(modules.get(RUNNABLES), "var_child_runnable_config", None)
    if variable is None:  # another thread is in the middle of importing it
        return
    for taker in (*([] if node.spec.bound is None else [node]), *(router.call for router in node.routers)):
        if type(taker.inject) is not Lend:
            taker.inject = Lend(taker.inject, variable)


# ---- tokens


def manager_for(scope: TaskScope, given: Any, config: dict[str, Any], *, hears: bool) -> Any:
    """The callbacks of a task's config, as the library passes them on: whatever config a body gives to a model of its
    own, the model still gets these handlers, and the tags and metadata of the task.

    Args:
        scope: the attempt that the config is for.
        given: the callbacks of the run: None, handlers, or a manager of the library, which is copied.
        config: the task's config so far, with `tags` and `metadata`.
        hears: does somebody listen to mode messages?

    Returns:
        A manager; `given` while another thread is in the middle of importing the library.
    """
    kind = getattr(modules.get(MANAGERS), "CallbackManager", None)
    if kind is None:
        return given
    handlers = given if isinstance(given, (list, tuple)) else getattr(given, "handlers", ())
    # Handlers that are no langchain handlers are for us alone.
    kept = [
        handler for handler in handlers if hasattr(handler, "ignore_llm") and type(handler) not in (Tokens, Progress)
    ]
    if hears:
        kept.append(Tokens(scope))
    if scope.is_watched():
        kept.append(Progress(scope))
    parent = getattr(given, "parent_run_id", None)
    manager = kind(handlers=kept, inheritable_handlers=list(kept), parent_run_id=parent)
    manager.add_tags(list(dict.fromkeys([*getattr(given, "inheritable_tags", ()), *config["tags"]])))
    manager.add_metadata({**getattr(given, "inheritable_metadata", {}), **config["metadata"]})
    return manager


class Tokens:
    """A callback handler of langchain-core, by its methods alone: shows what chat models say in one attempt of a task."""

    raise_error = True
    run_inline = True
    """Called where the model is called, in order: never on an executor of the library's."""
    ignore_llm = False
    ignore_chat_model = False
    ignore_chain = True
    ignore_agent = True
    ignore_retriever = True
    ignore_retry = True
    ignore_custom_event = True

    __slots__ = ("calls", "scope")

    def __init__(self, scope: TaskScope) -> None:
        self.scope = scope
        self.calls: dict[Any, dict[str, Any]] = {}
        """Id of a call that is going on -> metadata of its chunks."""

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: Any, tags: Any = None, metadata: Any = None, **more: Any
    ) -> None:
        """A model is asked."""
        tags = tags or ()
        if TAG_NOSTREAM in tags:
            return
        about = dict(metadata or {})
        shown = [tag for tag in tags if not tag.startswith(INTERNAL_TAG)]
        if shown:
            about["tags"] = shown
        self.calls[run_id] = about

    def on_llm_start(self, *args: Any, **more: Any) -> None:
        """A model is asked that is no chat model: it says no messages."""

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: Any, **more: Any) -> None:
        """It says something."""
        about = self.calls.get(run_id)
        message = getattr(chunk, "message", None)
        if about is not None and message is not None:
            self.scope.say(message, about)

    def on_llm_end(self, response: Any, *, run_id: Any, **more: Any) -> None:
        """It has said everything: shown only if it came in one piece."""
        about = self.calls.pop(run_id, None)
        if about is None:
            return
        for generation in response.generations[0][:1] if response.generations else ():
            message = getattr(generation, "message", None)
            if message is not None:
                self.scope.say(message, about, once=True)

    def on_llm_error(self, error: BaseException, *, run_id: Any, **more: Any) -> None:
        """It has failed."""
        self.calls.pop(run_id, None)

    def on_stream_event(self, *args: Any, **more: Any) -> None:
        """A part of a content block, of models that are asked for such events; the tokens come as well."""

    def tap_output_iter(self, run_id: Any, output: Any) -> Any:
        """That there is such a method tells a model to stream even if it is asked for the whole; changes nothing."""
        return output

    def tap_output_aiter(self, run_id: Any, output: Any) -> Any:
        """Async form of `tap_output_iter`."""
        return output


class Progress:
    """A callback handler of langchain-core, by its methods alone: whatever a model, chain, tool or retriever does that an
    attempt has called keeps the attempt from being idle (frontends.md 2.2)."""

    raise_error = True
    run_inline = True
    ignore_llm = False
    ignore_chat_model = False
    ignore_chain = False
    ignore_agent = False
    ignore_retriever = False
    ignore_retry = False
    ignore_custom_event = False

    __slots__ = ("scope",)

    def __init__(self, scope: TaskScope) -> None:
        self.scope = scope

    def on_llm_start(self, *args: Any, **more: Any) -> None:
        """Something has begun, gone on or ended."""
        self.scope.progress()

    on_chat_model_start = on_llm_new_token = on_llm_end = on_llm_error = on_stream_event = on_llm_start
    on_chain_start = on_chain_end = on_chain_error = on_agent_action = on_agent_finish = on_llm_start
    on_tool_start = on_tool_end = on_tool_error = on_retriever_start = on_retriever_end = on_llm_start
    on_retriever_error = on_text = on_retry = on_custom_event = on_llm_start
