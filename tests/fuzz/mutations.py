"""Bytes as accidents and attackers change them."""

from __future__ import annotations

from random import Random


def mutated(data: bytes, rng: Random) -> bytes:
    """The bytes with one to six changes."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        _change(found, rng)
    return bytes(found)


def _change(data: bytearray, rng: Random) -> None:
    begin = rng.randrange(len(data) + 1)
    end = min(len(data), begin + rng.choice((1, 2, 4, 16, 512)))
    match rng.randrange(6):
        case 0 if begin < len(data):
            data[begin] ^= 1 << rng.randrange(8)
        case 1:
            data[begin:end] = bytes([rng.choice((0, 0x7F, 0x80, 0xFF))]) * (end - begin)
        case 2:
            del data[begin:end]
        case 3:
            data[begin:begin] = data[begin:end]
        case 4:
            data[begin:end] = rng.randbytes(end - begin)
        case _ if rng.random() < 0.2:
            del data[begin:]
