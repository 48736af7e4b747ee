"""Ciphers for tests, of the standard library only: they hide and authenticate, and are not for use."""

from __future__ import annotations

import hashlib
import hmac
import os

from checkpoint.base import CorruptCheckpointError


def _mixed(key: bytes, nonce: bytes, text: bytes) -> bytes:
    stream = hashlib.shake_256(key + nonce).digest(len(text))
    return bytes(a ^ b for a, b in zip(text, stream, strict=True))


class BindingCipher:
    """Knows associated data, like `AesGcm`."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = {f"test:{hashlib.sha256(key).hexdigest()[:8]}": key for key in keys}
        self.name = next(iter(self.keys))

    def _check(self, name: str, nonce: bytes, text: bytes, associated: bytes) -> bytes:
        parts = nonce + len(text).to_bytes(8, "big") + text + name.encode() + b"\0" + associated
        return hmac.digest(self.keys[name], parts, "sha256")[:16]

    def encrypt_bound(self, plaintext: bytes, associated: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(12)
        text = _mixed(self.keys[self.name], nonce, plaintext)
        return self.name, nonce + text + self._check(self.name, nonce, text, associated)

    def decrypt_bound(self, ciphername: str, ciphertext: bytes, associated: bytes) -> bytes:
        if ciphername not in self.keys or len(ciphertext) < 28:
            raise CorruptCheckpointError(f"no key {ciphername!r}, or too short")
        nonce, text, check = ciphertext[:12], ciphertext[12:-16], ciphertext[-16:]
        if not hmac.compare_digest(check, self._check(ciphername, nonce, text, associated)):
            raise CorruptCheckpointError("does not open")
        return _mixed(self.keys[ciphername], nonce, text)

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return self.encrypt_bound(plaintext, b"")

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return self.decrypt_bound(ciphername, ciphertext, b"")


class PlainCipher:
    """Knows `encrypt` and `decrypt` only, as ciphers of other programs do."""

    def __init__(self, key: bytes = b"k") -> None:
        self._cipher = BindingCipher(key)

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "plain", self._cipher.encrypt_bound(plaintext, b"")[1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "plain"
        try:
            return self._cipher.decrypt_bound(self._cipher.name, ciphertext, b"")
        except CorruptCheckpointError as error:
            raise ValueError("wrong") from error
