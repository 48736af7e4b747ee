"""Encryption of everything that a saver stores, and the cipher that does it.

Decides what an encrypted body looks like, what it is bound to, and which key opens it. Knows no rows: what calls
`encrypt_at` gives the *place* of a body as bytes, and gets the body back only for the same place (the places of stored
rows are made in `checkpoint.encryption`). Bodies without a place, as `dumps_typed` makes them, open in no place.

An encrypted body has the tag `<inner tag>+<cipher>`; the cipher of this module calls itself `aes-gcm:<key id>` and writes
a nonce of 12 bytes, the ciphertext, and a check value of 16 bytes. Tag and place are authenticated with the body.

Invariants
1. A body that was not encrypted for exactly this tag and place, with one of the keys, is an error and never data.
2. What is not encrypted is refused, unless `accept_plaintext` says that old rows may be.
3. No error text holds a key or plain text.

Not covered: that rows are there at all. Who can write the file can take it back to an earlier state, or remove the
newest checkpoints, and sees thread ids, namespaces, task ids, times, steps and sizes.

Source: AES-GCM as in NIST SP 800-38D. One key must not encrypt more than 2**32 bodies: rotate before.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self

from checkpoint.base import CorruptCheckpointError
from checkpoint.serde.base import CipherProtocol, SerializerProtocol
from checkpoint.serde.jsonplus import JsonPlusSerializer
from checkpoint.serde.msgpack import Serde

KEY_VARIABLE: Final = "LANGGRAPH_AES_KEY"
_KEY_SIZES: Final = (16, 24, 32)
_NONCE: Final = 12
_CHECK: Final = 16
_NAME: Final = "aes-gcm"
# pycryptodome's numbers of the modes that authenticate: CCM, EAX, SIV, GCM, OCB. Programs pass them as `mode=`.
_AUTHENTICATED_MODES: Final = frozenset({8, 9, 10, 11, 12})

Coding = Callable[[bytes, bytes, bytes], bytes]
"""(nonce, text, associated data) -> text; the encrypted side ends with the check value. Raises if that is wrong."""


class AesGcm:
    """AES-GCM under one or several keys: the first encrypts, all of them open. Thread-safe.

    Uses `cryptography`, or `pycryptodome` if only that is installed; both read what the other wrote.
    """

    def __init__(self, keys: bytes | Iterable[bytes] | Mapping[str, bytes]) -> None:
        """
        Args:
            keys: one key or several, each of 16, 24 or 32 bytes. A mapping gives the keys ids of your own (letters,
                digits, `_.-`); without, an id is made from the key.

        Raises:
            ValueError: no key, or one of another size, or an id that cannot be stored.
            ImportError: neither library is installed.
        """
        if isinstance(keys, Mapping):
            named = dict(keys)
        else:
            several = [keys] if isinstance(keys, (bytes, bytearray)) else list(keys)
            named = {_key_id(key): key for key in map(_checked_key, several)}
        if not named:
            raise ValueError("AesGcm got no key; pass at least one of 16, 24 or 32 random bytes")
        for key_id, key in named.items():
            if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", key_id):
                raise ValueError(
                    f"AesGcm got the key id {key_id!r:.60}, which is stored in every row; use 1 to 32 letters, digits, "
                    f"'_', '.' or '-'"
                )
            _checked_key(key)
        self._keys = {f"{_NAME}:{key_id}": _coding(bytes(key)) for key_id, key in named.items()}
        self.name: str = next(iter(self._keys))
        """What `encrypt` returns as the name of the cipher: method and key id."""

    def encrypt_bound(self, plaintext: bytes, associated: bytes) -> tuple[str, bytes]:
        """Plain bytes -> (name of cipher and key, bytes that only open with the same `associated`)."""
        nonce = os.urandom(_NONCE)
        encrypt, _ = self._keys[self.name]
        return self.name, nonce + encrypt(nonce, plaintext, _bound(self.name, associated))

    def decrypt_bound(self, ciphername: str, ciphertext: bytes, associated: bytes) -> bytes:
        """The plain bytes. Raises `CorruptCheckpointError` for another key, other associated data or edited bytes."""
        found = self._keys.get(ciphername)
        if found is None:
            raise CorruptCheckpointError(
                f"it is encrypted as {ciphername!r:.60}, and this serializer has the keys "
                f"{', '.join(repr(name) for name in self._keys)}; add the key it was written with"
            )
        if len(ciphertext) < _NONCE + _CHECK:
            raise CorruptCheckpointError(f"an encrypted body of {len(ciphertext)} bytes is cut off")
        nonce = bytes(ciphertext[:_NONCE])
        try:
            return found[1](nonce, bytes(ciphertext[_NONCE:]), _bound(ciphername, associated))
        except Exception as error:
            raise CorruptCheckpointError(
                "an encrypted body does not open: it was changed, belongs to another place, or to another key of the "
                "same id"
            ) from error

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        """`encrypt_bound` bound to nothing."""
        return self.encrypt_bound(plaintext, b"")

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        """`decrypt_bound` of what `encrypt` returned."""
        return self.decrypt_bound(ciphername, ciphertext, b"")

    def __repr__(self) -> str:
        return f"AesGcm({', '.join(self._keys)})"


class EncryptedSerializer:
    """A serializer whose output only opens with the key; savers also encrypt headers and metadata with it. Thread-safe.

    Savers of this package bind every body to its row, refuse metadata filters, and store `SecretStr`. Other savers
    call `dumps_typed` and `loads_typed`, which protect the values only.
    """

    def __init__(
        self, cipher: CipherProtocol, serde: SerializerProtocol | None = None, *, accept_plaintext: bool = False
    ) -> None:
        """
        Args:
            cipher: an `AesGcm`, or anything that encrypts and decrypts; other ciphers should authenticate.
            serde: how values become bytes; a `JsonPlusSerializer` if None.
            accept_plaintext: read rows that were stored before there was encryption; for the time of a migration,
                because then anybody who can write the file can plant rows.
        """
        self.cipher = cipher
        self.serde: Any = JsonPlusSerializer() if serde is None else serde
        """The serializer as given."""
        self.inner: Any = self.serde.storing_secrets() if isinstance(self.serde, Serde) else self.serde
        """What makes the bytes that are encrypted."""
        self.accept_plaintext = accept_plaintext
        self._binds = hasattr(cipher, "encrypt_bound") and hasattr(cipher, "decrypt_bound")

    @classmethod
    def from_pycryptodome_aes(
        cls,
        serde: SerializerProtocol | None = None,
        *,
        key: bytes | None = None,
        previous_keys: Iterable[bytes] = (),
        mode: int | None = None,
        accept_plaintext: bool = False,
    ) -> Self:
        """A serializer with an `AesGcm`, by the name that LangGraph-style code uses.

        Args:
            serde: as for the constructor.
            key: 16, 24 or 32 bytes; the environment variable LANGGRAPH_AES_KEY, as text, if None.
            previous_keys: keys that older rows were written with.
            mode: accepted if it is one of pycryptodome's modes that authenticate; what is used is always GCM.
            accept_plaintext: as for the constructor.

        Raises:
            ValueError: no key, or one of another size, or a mode that does not authenticate.
            ImportError: neither `cryptography` nor `pycryptodome` is installed.
        """
        if mode is not None and mode not in _AUTHENTICATED_MODES:
            raise ValueError(
                f"from_pycryptodome_aes got mode={mode!r:.20}, which does not notice edited data; leave `mode` out: "
                f"AES-GCM is used"
            )
        if key is None:
            text = os.environ.get(KEY_VARIABLE)
            if not text:
                raise ValueError(
                    f"from_pycryptodome_aes got no key and {KEY_VARIABLE} is not set; pass key= with 16, 24 or 32 "
                    f"random bytes, or set the variable"
                )
            key = text.encode()
        return cls(AesGcm([key, *previous_keys]), serde, accept_plaintext=accept_plaintext)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """(tag, encrypted bytes) of a value, bound to no place."""
        tag, body = self.inner.dumps_typed(obj)
        return self.encrypt_at(tag, body)

    def loads_typed(self, data: tuple[str, bytes], *, opaque: bool = False) -> Any:
        """The value of what `dumps_typed` returned. `opaque` as in `Serde`. Raises `CorruptCheckpointError`."""
        tag, body = self.decrypt_at(*data)
        return self.inner.loads_typed((tag, body), opaque=True) if opaque else self.inner.loads_typed((tag, body))

    def with_msgpack_allowlist(self, extra_allowlist: Any) -> EncryptedSerializer:
        """One whose inner serializer also takes these classes; this one if that has no list of classes."""
        widen = getattr(self.serde, "with_msgpack_allowlist", None)
        if widen is None:
            return self
        return EncryptedSerializer(self.cipher, widen(extra_allowlist), accept_plaintext=self.accept_plaintext)

    # ---- bodies

    def encrypt_at(self, tag: str, body: bytes, place: bytes = b"") -> tuple[str, bytes]:
        """(tag, body) as they are to be stored at a place."""
        if self._binds:
            name, encrypted = self.cipher.encrypt_bound(body, _bound(tag, place))  # type: ignore[attr-defined]
        else:
            # A cipher that knows no associated data: what it encrypts says where it belongs.
            name, encrypted = self.cipher.encrypt(_digest(tag, place) + body if place else body)
        if "+" in name:
            raise ValueError(f"the cipher calls itself {name!r:.60}; a name with '+' cannot be part of a tag")
        return f"{tag}+{name}", encrypted

    def decrypt_at(self, tag: str, body: bytes, place: bytes = b"") -> tuple[str, bytes]:
        """What was given to `encrypt_at`. Raises `CorruptCheckpointError` if it was encrypted otherwise, or not at all."""
        inner_tag, plus, name = tag.rpartition("+")
        if not plus:
            if self.accept_plaintext:
                return tag, body
            raise CorruptCheckpointError(
                f"a body with the tag {tag!r:.60} is not encrypted, and this serializer takes encrypted ones only; if "
                f"it was stored before there was encryption, read it with EncryptedSerializer(accept_plaintext=True)"
            )
        if self._binds:
            return inner_tag, self.cipher.decrypt_bound(name, body, _bound(inner_tag, place))  # type: ignore[attr-defined]
        try:
            plain = self.cipher.decrypt(name, body)
        except CorruptCheckpointError:
            raise
        except Exception as error:
            raise CorruptCheckpointError(f"an encrypted body does not open with {name!r:.60}") from error
        if not place:
            return inner_tag, plain
        digest = _digest(inner_tag, place)
        if plain[: len(digest)] != digest:
            raise CorruptCheckpointError("an encrypted body was changed, or belongs to another place")
        return inner_tag, plain[len(digest) :]

    def is_current(self, tag: str) -> bool:
        """Was a body of this tag encrypted with the key that encrypts now? False if the cipher does not say."""
        return tag.rpartition("+")[2] == getattr(self.cipher, "name", None)

    def rewrap(self, data: tuple[str, bytes], place: bytes = b"") -> tuple[str, bytes]:
        """The same body encrypted with the current key. Neither decodes the value nor needs its class."""
        return data if self.is_current(data[0]) else self.encrypt_at(*self.decrypt_at(*data, place), place)


def _bound(name: str, associated: bytes) -> bytes:
    """Associated data that also names the tag; no two pairs make the same bytes."""
    named = name.encode("utf-8", "surrogatepass")
    return len(named).to_bytes(4, "big") + named + associated


def _digest(tag: str, place: bytes) -> bytes:
    return hashlib.sha256(_bound(tag, place)).digest()


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"id of a key of checkpoint.serde.encrypted\0" + key).hexdigest()[:8]


def _checked_key(key: Any) -> bytes:
    if not isinstance(key, (bytes, bytearray)) or len(key) not in _KEY_SIZES:
        got = f"{len(key)} bytes" if isinstance(key, (bytes, bytearray)) else f"a {type(key).__qualname__}"
        raise ValueError(f"an AES key must be 16, 24 or 32 bytes, got {got}; make one with os.urandom(32)")
    return bytes(key)


def _coding(key: bytes) -> tuple[Coding, Coding]:
    """AES-GCM with this key, from the library that is installed."""
    try:
        aead = importlib.import_module("cryptography.hazmat.primitives.ciphers.aead")
    except ImportError:
        pass
    else:
        box = aead.AESGCM(key)
        return box.encrypt, box.decrypt
    try:
        aes: Any = importlib.import_module("Crypto.Cipher.AES")
    except ImportError:
        raise ImportError(
            "EncryptedSerializer: neither 'cryptography' nor 'pycryptodome' is installed, and AES comes from one of "
            "them; run: pip install cryptography"
        ) from None

    def encrypt(nonce: bytes, text: bytes, associated: bytes) -> bytes:
        cipher = aes.new(key, aes.MODE_GCM, nonce=nonce, mac_len=_CHECK)
        cipher.update(associated)
        encrypted, check = cipher.encrypt_and_digest(text)
        return bytes(encrypted + check)

    def decrypt(nonce: bytes, text: bytes, associated: bytes) -> bytes:
        cipher = aes.new(key, aes.MODE_GCM, nonce=nonce, mac_len=_CHECK)
        cipher.update(associated)
        return bytes(cipher.decrypt_and_verify(text[:-_CHECK], text[-_CHECK:]))

    return encrypt, decrypt
