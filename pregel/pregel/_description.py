"""`Described`: how a compiled graph looks from outside: its drawing, and the schemas of what goes in and comes out.

Decides which types stand for several channels. Runs and stores nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pregel.pregel._graph import Graph
from pregel.warnings import PregelDeprecationWarning

if TYPE_CHECKING:
    from pregel.drawing.draw import Graph as Drawing


class Described(Graph):
    """The part of a graph that describes it."""

    # ---- pictures

    def get_graph(self, config: Any = None, *, xray: bool | int = False) -> Drawing:
        """The drawing of this graph; with `xray` nested graphs are drawn in place, n levels deep or all the way."""
        draw = _draw()
        drawing: Drawing = draw.build_channel_graph(
            [
                draw.NodeInfo(
                    name,
                    data=node.bound.subject if node.bound is not None else node,
                    metadata=node.metadata,
                    subgraph=partial(_inner_drawing, node.subgraphs[0]) if node.subgraphs else None,
                )
                for name, node in self.nodes.items()
            ],
            triggers={name: node.triggers for name, node in self.nodes.items()},
            writes={name: [e[0] for e in getattr(node.write, "entries", ())] for name, node in self.nodes.items()},
            input_channels=[self.input_channels] if isinstance(self.input_channels, str) else self.input_channels,
            interrupt_before=self.interrupt_before_nodes,
            interrupt_after=self.interrupt_after_nodes,
            xray=xray,
        )
        return drawing

    async def aget_graph(self, config: Any = None, *, xray: bool | int = False) -> Drawing:
        """Async form of `get_graph`."""
        return self.get_graph(config, xray=xray)

    def _repr_mimebundle_(self, **_kwargs: object) -> dict[str, str]:
        """Notebooks show the drawing, made here; terminals the ordinary repr."""
        return {"image/svg+xml": self.get_graph().draw_svg(), "text/plain": repr(self)}

    # ---- schemas

    @property
    def InputType(self) -> Any:
        """Type of the input: of the single input channel, or a dict."""
        if isinstance(self.input_channels, str):
            return self.channels[self.input_channels].UpdateType
        return dict[str, Any]

    @property
    def OutputType(self) -> Any:
        """Type of the output: of the single output channel, or a dict."""
        if isinstance(self.output_channels, str):
            return self.channels[self.output_channels].ValueType
        return dict[str, Any]

    def get_input_schema(self, config: Any = None) -> type[Any]:
        """A pydantic model class for the input, named after the graph."""
        model: type[Any] = _jsonschema().model_of(
            self._types(self.input_channels, "UpdateType"), self.get_name("Input")
        )
        return model

    def get_output_schema(self, config: Any = None) -> type[Any]:
        """A pydantic model class for the output, named after the graph."""
        types = self._types(self.output_channels, "ValueType")
        model: type[Any] = _jsonschema().model_of(types, self.get_name("Output"))
        return model

    def get_input_jsonschema(self, config: Any = None) -> dict[str, Any]:
        """JSON schema of the input."""
        found: dict[str, Any] = self.get_input_schema(config).model_json_schema()
        return found

    def get_output_jsonschema(self, config: Any = None) -> dict[str, Any]:
        """JSON schema of the output."""
        found: dict[str, Any] = self.get_output_schema(config).model_json_schema()
        return found

    def get_context_jsonschema(self) -> dict[str, Any] | None:
        """JSON schema of the context, or None if the graph declares none.

        Raises:
            ValueError: the context schema is neither a model, a dataclass nor a TypedDict.
        """
        found: dict[str, Any] | None = _jsonschema().context_schema(self._context_type())
        return found

    def config_schema(self, *, include: Sequence[str] | None = None) -> type[Any]:
        """A pydantic model of the config, with the context as `configurable`; LangGraph's former form of
        `get_context_jsonschema`. `include` has no effect there either."""
        warnings.warn(
            "config_schema() is deprecated; get_context_jsonschema() describes what a run is given",
            PregelDeprecationWarning,
            stacklevel=2,
        )
        model: type[Any] = _jsonschema().config_model(self._context_type())
        return model

    def get_config_jsonschema(self, *, include: Sequence[str] | None = None) -> dict[str, Any]:
        """JSON schema of `config_schema`; deprecated like it."""
        warnings.warn(
            "get_config_jsonschema() is deprecated; get_context_jsonschema() describes what a run is given",
            PregelDeprecationWarning,
            stacklevel=2,
        )
        found: dict[str, Any] = _jsonschema().config_model(self._context_type()).model_json_schema()
        return found

    def _context_type(self) -> Any:
        """The declared context, as pydantic takes it."""
        return self.context_schema

    @property
    def input_schema(self) -> type[Any]:
        """The same as `get_input_schema()`."""
        return self.get_input_schema()

    @property
    def output_schema(self) -> type[Any]:
        """The same as `get_output_schema()`."""
        return self.get_output_schema()

    def _types(self, names: str | Sequence[str], kind: str) -> Any:
        """The type of one channel, or of several by name."""
        if isinstance(names, str):
            return getattr(self.channels[names], kind)
        return {name: getattr(self.channels[name], kind) for name in names}


def _draw() -> Any:
    """What draws graphs, imported when somebody asks for a picture."""
    from pregel.drawing import draw  # noqa: PLC0415 - a lazy door

    return draw


def _inner_drawing(graph: Any, xray: bool | int) -> Drawing:
    drawing: Drawing = graph.get_graph(xray=xray)
    return drawing


def _jsonschema() -> Any:
    """The module of JSON schemas, imported when somebody asks: it loads pydantic (D36)."""
    from pregel.pregel import _jsonschema  # noqa: PLC0415 - a lazy door

    return _jsonschema
