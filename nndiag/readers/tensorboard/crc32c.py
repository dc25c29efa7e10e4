"""CRC-32C (Castagnoli), the checksum of event files, for many records at once.

In plain Python a checksum costs more than all the rest of reading; here numpy takes two bytes of
each of many records of one length in a step.

Sources: RFC 3720, appendix B.4 (polynomial, test vectors); TFRecord's mask is that of
tensorflow/core/lib/hash/crc32c.h: rotate right by 15 bits, add 0xa282ead8.
"""

from __future__ import annotations

from functools import cache

import numpy as np

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits reversed
_MASK_DELTA = 0xA282EAD8
_BLOCK = 1024  # bytes of a long buffer that are one row


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """((256,), (65536,)) uint32: the register after 1 and after 2 zero bytes, by its low bits."""
    one: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        one = (one >> 1) ^ np.where(one & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    two: np.ndarray = np.arange(65536, dtype=np.uint32)
    for _ in range(2):
        two = one[two & 0xFF] ^ (two >> 8)
    return one, two


@cache
def _list() -> list[int]:
    table: list[int] = _tables()[0].tolist()
    return table


def masked_of_rows(rows: np.ndarray) -> np.ndarray:
    """(n,) uint32: the masked checksum of each row of (n, length) uint8; no gaps within a row."""
    return masked(of_rows(rows))


def of_rows(rows: np.ndarray) -> np.ndarray:
    """(n,) uint32: the checksum of each row of (n, length) uint8; no gaps within a row."""
    return ~_register(np.full(len(rows), 0xFFFFFFFF, np.uint32), rows)


def masked(crc: np.ndarray) -> np.ndarray:
    """(n,) uint32: checksums as TFRecord stores them."""
    rotated: np.ndarray = (crc >> 15) | (crc << 17)
    return rotated + np.uint32(_MASK_DELTA)


def masked_of(data: bytes) -> int:
    """The masked checksum of some bytes."""
    crc = 0xFFFFFFFF
    table = _list()
    whole = len(data) // _BLOCK * _BLOCK
    if whole:
        crc = _of_blocks(crc, np.frombuffer(data, np.uint8, whole).reshape(-1, _BLOCK))
    for byte in data[whole:]:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _register(crc: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n,) uint32: the registers `crc` after the bytes of their rows."""
    one, two = _tables()
    odd = rows.shape[1] % 2
    if odd:
        crc = one[(crc ^ rows[:, 0]) & 0xFF] ^ (crc >> 8)
    pairs = rows[:, odd:].view("<u2")
    for i in range(pairs.shape[1]):
        crc = two.take(crc.astype(np.uint16) ^ pairs[:, i]) ^ (crc >> 16)
    return crc


def _of_blocks(crc: int, blocks: np.ndarray) -> int:
    """The register after (k, _BLOCK) uint8: that of each block by itself, then put together.

    The register is linear in what went in: that after a block is the block's own, begun at 0, plus
    (XOR) that of the register before after `_BLOCK` zero bytes.
    """
    own = _register(np.zeros(len(blocks), np.uint32), blocks).tolist()
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    shifted = _register(bits, np.zeros((32, _BLOCK), np.uint8)).tolist()
    for block in own:
        after, bit = block, 0
        while crc:
            if crc & 1:
                after ^= shifted[bit]
            crc, bit = crc >> 1, bit + 1
        crc = after
    return crc
