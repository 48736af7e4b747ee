"""XXH3, the 128 bit form, with the default secret: the hash in LangGraph's task ids.

Decides nothing. Needed to tell whose results a file holds when it does not say: a task's id is the hash of what
identifies the task, so a guess can be proved. Written for that only: plain Python, inputs of 17 bytes and more.

Source: the published specification of the algorithm (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
"""

from __future__ import annotations

from typing import Final

SECRET: Final = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e"
    "e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d"
    "8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc"
    "8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
SHORTEST: Final = 17

_MASK: Final = (1 << 64) - 1
_LOW: Final = (1 << 32) - 1
_P32: Final = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
_P64: Final = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
_STRIPE: Final = 64
_PER_BLOCK: Final = (len(SECRET) - _STRIPE) // 8
_BLOCK: Final = _STRIPE * _PER_BLOCK


def xxh3_128(data: bytes) -> str:
    """The hash as 32 hex characters. Raises `ValueError` for less than 17 bytes."""
    if len(data) < SHORTEST:
        raise ValueError(f"xxh3_128: {len(data)} bytes; this form of the algorithm is for {SHORTEST} and more")
    if len(data) <= 128:
        low, high = _short(data)
    elif len(data) <= 240:
        low, high = _medium(data)
    else:
        low, high = _long(data)
    return f"{high:016x}{low:016x}"


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _folded(a: int, b: int) -> int:
    product = a * b
    return (product & _MASK) ^ (product >> 64)


def _avalanche(h: int) -> int:
    h ^= h >> 37
    h = h * 0x165667919E3779F9 & _MASK
    return h ^ (h >> 32)


def _mixed(data: bytes, at: int, secret: int) -> int:
    return _folded(_word(data, at) ^ _word(SECRET, secret), _word(data, at + 8) ^ _word(SECRET, secret + 8))


def _mixed_pair(low: int, high: int, data: bytes, a: int, b: int, secret: int) -> tuple[int, int]:
    low = (low + _mixed(data, a, secret)) & _MASK
    low ^= (_word(data, b) + _word(data, b + 8)) & _MASK
    high = (high + _mixed(data, b, secret + 16)) & _MASK
    high ^= (_word(data, a) + _word(data, a + 8)) & _MASK
    return low, high


def _ended(low: int, high: int, length: int) -> tuple[int, int]:
    ended = (low * _P64[0] + high * _P64[3] + length * _P64[1]) & _MASK
    return _avalanche((low + high) & _MASK), -_avalanche(ended) & _MASK


def _short(data: bytes) -> tuple[int, int]:
    length = len(data)
    low, high = length * _P64[0] & _MASK, 0
    for part in range((length - 1) // 32, -1, -1):
        low, high = _mixed_pair(low, high, data, 16 * part, length - 16 * (part + 1), 32 * part)
    return _ended(low, high, length)


def _medium(data: bytes) -> tuple[int, int]:
    length = len(data)
    low, high = length * _P64[0] & _MASK, 0
    for part in range(4):
        low, high = _mixed_pair(low, high, data, 32 * part, 32 * part + 16, 32 * part)
    low, high = _avalanche(low), _avalanche(high)
    for part in range(4, length // 32):
        low, high = _mixed_pair(low, high, data, 32 * part, 32 * part + 16, 3 + 32 * (part - 4))
    low, high = _mixed_pair(low, high, data, length - 16, length - 32, 136 - 17 - 16)
    return _ended(low, high, length)


def _long(data: bytes) -> tuple[int, int]:
    length = len(data)
    lanes = [_P32[2], _P64[0], _P64[1], _P64[2], _P64[3], _P32[1], _P64[4], _P32[0]]
    n_blocks = (length - 1) // _BLOCK
    for block in range(n_blocks):
        for stripe in range(_PER_BLOCK):
            _accumulate(lanes, data, block * _BLOCK + _STRIPE * stripe, 8 * stripe)
        for lane, value in enumerate(lanes):
            lanes[lane] = (value ^ value >> 47 ^ _word(SECRET, len(SECRET) - _STRIPE + 8 * lane)) * _P32[0] & _MASK
    for stripe in range((length - 1 - _BLOCK * n_blocks) // _STRIPE):
        _accumulate(lanes, data, n_blocks * _BLOCK + _STRIPE * stripe, 8 * stripe)
    _accumulate(lanes, data, length - _STRIPE, len(SECRET) - _STRIPE - 7)
    low = _merged(lanes, 11, length * _P64[0] & _MASK)
    return low, _merged(lanes, len(SECRET) - _STRIPE - 11, ~(length * _P64[1]) & _MASK)


def _accumulate(lanes: list[int], data: bytes, at: int, secret: int) -> None:
    for lane in range(8):
        value = _word(data, at + 8 * lane)
        keyed = value ^ _word(SECRET, secret + 8 * lane)
        lanes[lane ^ 1] = (lanes[lane ^ 1] + value) & _MASK
        lanes[lane] = (lanes[lane] + (keyed & _LOW) * (keyed >> 32)) & _MASK


def _merged(lanes: list[int], secret: int, start: int) -> int:
    for pair in range(4):
        at = secret + 16 * pair
        start += _folded(lanes[2 * pair] ^ _word(SECRET, at), lanes[2 * pair + 1] ^ _word(SECRET, at + 8))
    return _avalanche(start & _MASK)
