"""What a serializer and a cipher are, and the two values that exist only because data was stored.

Decides the interfaces that savers call; knows no format. `Opaque` keeps a stored value of a class that is not needed
or not known; `StoredError` is what an exception reads back as.
"""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable

from checkpoint.base import UnknownTypeError


class UntypedSerializerProtocol(Protocol):
    """A serializer in the manner of `pickle`."""

    def dumps(self, obj: Any) -> bytes:
        """Value -> bytes."""
        ...

    def loads(self, data: bytes) -> Any:
        """Bytes -> value."""
        ...


@runtime_checkable
class SerializerProtocol(Protocol):
    """What a saver needs: bytes with a tag that names their format."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Value -> (format tag, bytes)."""
        ...

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """(format tag, bytes) -> value."""
        ...


@runtime_checkable
class CipherProtocol(Protocol):
    """What turns bytes into unreadable bytes and back."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        """Plain bytes -> (name of the cipher, bytes)."""
        ...

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        """(Name of the cipher, bytes) -> plain bytes."""
        ...


class SerializerCompat:
    """A serializer with only `dumps` and `loads`, given tags: the class name of the value, ignored on load."""

    def __init__(self, serde: UntypedSerializerProtocol) -> None:
        self.serde = serde

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Value -> (class name, bytes)."""
        return type(obj).__name__, self.serde.dumps(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """(Anything, bytes) -> value."""
        return self.serde.loads(data[1])


def maybe_add_typed_methods(serde: SerializerProtocol | UntypedSerializerProtocol) -> SerializerProtocol:
    """The serializer itself if it writes tags, else a wrapper that adds them."""
    if isinstance(serde, SerializerProtocol):
        return serde
    return SerializerCompat(serde)


class ChangedTypeError(UnknownTypeError):
    """A stored value does not fit the class that its name stands for now; its bytes are sound."""

    def __init__(self, name: str, reason: str, *, channel: str | None = None) -> None:
        super().__init__(name, channel=channel)
        place = f" in channel {channel!r}" if channel is not None else ""
        self.args = (
            f"stored value{place} is a {name} that does not fit the class of that name any more: {reason}; give new "
            f"fields a default, or register a decode function for the old ones with checkpoint.registry.register_codec",
        )
        self.reason = reason


class Opaque:
    """A stored value whose class was not asked for. Stores back to the same bytes.

    Two are equal if they stand for the same bytes of the same class.
    """

    __slots__ = ("_body", "_kind", "payload", "type")

    def __init__(self, type: str, payload: Any, kind: int, body: bytes) -> None:
        self.type = type
        """The stored name, usually `module:qualname`."""
        self.payload = payload
        """The stored parts, for display: a dict of fields, name and value of an enum member, ... Not written back."""
        self._kind = kind
        self._body = body

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and (self._kind, self._body) == (other._kind, other._body)

    def __hash__(self) -> int:
        return hash((self._kind, self._body))

    def __repr__(self) -> str:
        return f"Opaque(type={self.type!r}, payload={self.payload!r})"


class StoredError(str):
    """An exception as it reads back from storage: the text of its `repr`, and what else is worth keeping."""

    __slots__ = ("class_name", "text", "traceback")

    class_name: str
    """`module.qualname` of the exception's class; built-in classes without module."""
    text: str
    """What `str(exception)` was."""
    traceback: str
    """The formatted traceback, newest frame last; empty if there was none."""

    def __new__(cls, representation: str, class_name: str = "", text: str = "", traceback: str = "") -> Self:
        """`representation` is the string this value equals."""
        error = super().__new__(cls, representation)
        error.class_name = class_name
        error.text = text
        error.traceback = traceback
        return error

    def __getnewargs__(self) -> tuple[str, str, str, str]:  # type: ignore[override]
        return str(self), self.class_name, self.text, self.traceback
