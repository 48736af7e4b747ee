"""What of a value is searched by meaning, and who turns it into vectors.

Decides which texts a path finds in a value and how a user's function or object becomes `Embeddings`. Knows no store and
no measure of similarity. Invariant: under the async API a plain function never runs on the event loop.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, get_args

from pregel.errors import shown

__all__ = [
    "AEmbeddingsFunc",
    "Embeddings",
    "EmbeddingsFunc",
    "EmbeddingsLambda",
    "Measure",
    "ensure_embeddings",
    "get_text_at_path",
    "indexed_texts",
    "measure_of",
    "text_fields",
    "tokenize_path",
]

EmbeddingsFunc = Callable[[Sequence[str]], list[list[float]]]
"""Texts to vectors, in order."""
AEmbeddingsFunc = Callable[[Sequence[str]], Awaitable[list[list[float]]]]
Measure = Literal["cosine", "inner_product", "l2"]
"""How near two vectors are, higher is nearer: cosine, inner product, or the distance (below 0)."""
MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)


class Embeddings(ABC):
    """Turns texts into vectors. The async methods run the others on a worker unless overridden."""

    @abstractmethod
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per stored text, in order."""

    @abstractmethod
    def embed_query(self, text: str) -> list[float]:
        """The vector of a search text."""

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Async form of `embed_documents`."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Async form of `embed_query`."""
        return await asyncio.to_thread(self.embed_query, text)


def ensure_embeddings(embed: Embeddings | EmbeddingsFunc | AEmbeddingsFunc | str | None) -> Embeddings:
    """Make embeddings of an object with `embed_documents` and `embed_query`, or of a function from texts to vectors.

    An object that has the async methods too is returned as it is. A text names a provider and its model, such as
    `"openai:text-embedding-3-small"`, and is left to the package `langchain`, which the program has to bring.

    Raises:
        ValueError: neither of these; or a text, and no `langchain`.
    """
    if isinstance(embed, str) and embed:
        return ensure_embeddings(_of_provider(embed))
    if hasattr(embed, "embed_documents") and hasattr(embed, "embed_query"):
        whole = hasattr(embed, "aembed_documents") and hasattr(embed, "aembed_query")
        return embed if whole else _ObjectEmbeddings(embed)  # type: ignore[return-value]
    if callable(embed):
        return EmbeddingsLambda(embed)
    raise ValueError(
        f"index got embed={shown(embed)}, which cannot embed texts; expected a function from a list of texts to a list "
        f"of vectors, or an object with embed_documents() and embed_query()"
    )


def _of_provider(name: str) -> Any:
    try:
        langchain = importlib.import_module("langchain.embeddings")
    except ImportError as error:
        raise ValueError(
            f"index got embed={shown(name)}, the name of a provider, which only the package langchain can load, and that "
            f"is not installed; install it, or pass a function from a list of texts to a list of vectors"
        ) from error
    return langchain.init_embeddings(name)


class _ObjectEmbeddings(Embeddings):
    """An object that has only the plain methods."""

    def __init__(self, embed: Any) -> None:
        self._embed = embed

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._embed.embed_documents(texts)
        return vectors

    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = self._embed.embed_query(text)
        return vector


class EmbeddingsLambda(Embeddings):
    """A function, plain or async, for both kinds of text. An async one serves the async methods only."""

    def __init__(self, function: Callable[[Sequence[str]], Any]) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - its kind is asked, not whether there is one
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """See `Embeddings`. Raises `ValueError` for an async function."""
        if self._is_async:
            raise ValueError(
                f"embedding function {shown(self._function)} is async and was needed by a sync method of a store; use "
                f"the store's async methods (aput, asearch, abatch), or give it a plain function"
            )
        vectors: list[list[float]] = self._function(texts)
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """See `Embeddings`. Raises `ValueError` for an async function."""
        return _only(self.embed_documents([text]))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Async form of `embed_documents`, for both kinds of function."""
        if not self._is_async:
            return await super().aembed_documents(texts)
        vectors: list[list[float]] = await self._function(texts)
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """Async form of `embed_query`, for both kinds of function."""
        return _only(await self.aembed_documents([text]))


def _only(vectors: Sequence[list[float]]) -> list[float]:
    if len(vectors) != 1:
        raise ValueError(f"embedding of 1 text gave {len(vectors)} vectors; expected one per text, in order")
    return vectors[0]


def tokenize_path(path: str) -> list[str]:
    """The parts of a path: names, `[...]` and `{...}`. Dots within brackets and braces do not divide."""
    tokens: list[str] = []
    at = 0
    while at < len(path):
        end = _end_of_token(path, at)
        if end > at:
            tokens.append(path[at:end])
        at = end + (end == at)  # an empty token is a dot
    return tokens


def _end_of_token(path: str, start: int) -> int:
    opening = path[start]
    if opening in _CLOSING:
        depth = 0
        for end in range(start, len(path)):
            depth += (path[end] == opening) - (path[end] == _CLOSING[opening])
            if not depth:
                return end + 1
        return len(path)
    return next((end for end in range(start, len(path)) if path[end] in ".[{"), len(path))


_CLOSING = {"[": "]", "{": "}"}


def text_fields(index: Mapping[str, Any] | None) -> list[list[str]]:
    """The tokens of the paths that an index config names; nothing without a config."""
    if not index:
        return []
    return [tokenize_path(path) for path in index.get("fields") or index.get("text_fields") or ["$"]]


def measure_of(index: Mapping[str, Any] | None) -> Measure:
    """The measure that an index config names. Raises `ValueError` if there is none of that name."""
    measure: Measure = (index or {}).get("distance_type") or "cosine"
    if measure not in MEASURES:
        raise ValueError(f"index got distance_type={shown(measure)}; expected one of {', '.join(MEASURES)}")
    return measure


def indexed_texts(value: Any, index: Any, fields: list[list[str]]) -> list[str]:
    """The texts of a value that are embedded, in order: those of `fields`, or of the paths that its put names instead."""
    if value is None or index is False:
        return []
    paths = fields if index is None else [tokenize_path(path) for path in index]
    return [text for tokens in paths for text in get_text_at_path(value, tokens)]


def get_text_at_path(obj: Any, path: str | list[str]) -> list[str]:
    """The texts that a path finds, in the order of the value.

    `a.b` goes into mappings, `a[0]` and `a[-1]` into lists, `*` and `[*]` into every element of either, `{x,y.z}` into
    several paths. Text is given as it is, numbers and bools as `str`, lists and mappings as JSON. None, and a path that
    leads nowhere or makes no sense, give nothing.

    Args:
        obj: any value.
        path: `""` and `"$"` are the whole value, as JSON with sorted keys. A list holds tokens of `tokenize_path`.
    """
    tokens = tokenize_path(path) if isinstance(path, str) else path
    if not tokens or tokens == ["$"]:
        return [_as_json(obj)]
    return [text for found in _walk(obj, tokens, 0) for text in _as_text(found)]


def _walk(value: Any, tokens: Sequence[str], at: int) -> Iterator[Any]:
    if at == len(tokens):
        yield value
        return
    token = tokens[at]
    for found, rest in _enter(value, token):
        for tail in _walk(found, rest, 0) if rest else (found,):
            yield from _walk(tail, tokens, at + 1)


def _enter(value: Any, token: str) -> Iterator[tuple[Any, Sequence[str]]]:
    """What a token leads to, each with what is left to walk before the next token."""
    is_list = isinstance(value, (list, tuple))
    if token == "*":
        elements = value.values() if isinstance(value, Mapping) else value if is_list else ()
        yield from ((element, ()) for element in elements)
    elif token.startswith("["):
        if is_list and token.endswith("]"):
            yield from ((element, ()) for element in _elements(value, token[1:-1].strip()))
    elif not isinstance(value, Mapping):
        return
    elif not token.startswith("{"):
        if token in value:
            yield value[token], ()
    elif token.endswith("}"):
        yield from ((value, part) for field in token[1:-1].split(",") if (part := tokenize_path(field.strip())))


def _elements(values: Sequence[Any], index: str) -> Sequence[Any]:
    if index == "*":
        return values
    try:
        return (values[int(index)],)
    except (ValueError, IndexError):
        return ()


def _as_text(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (bool, int, float)):
        return (str(value),)
    return (_as_json(value),) if isinstance(value, (list, tuple, Mapping)) else ()


def _as_json(value: Any) -> str:
    # Values need not be JSON: what is not becomes text, since a text to search is all that is wanted.
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
