"""Rosters as bytes, for caches outside of this process.

    format   1 byte, `FORMAT`
    version  16 decimal digits, so that a script can compare them
    check    CRC-32 of all that follows, 4 bytes
    items    2 numbers of 4 bytes: how many there are, and their bytes unpacked
    lengths  6 numbers of 4 bytes: followers, following (`SAME`: as the followers), requests' contacts,
             requests, first contacts of the blocks of items, blocks
    parts    in the same order; contacts are joined by newlines (no JID holds one), each request and each
             block begins with its length, 4 bytes

All numbers are big-endian. Nothing here is executed when it is read, whoever wrote it.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterable
from itertools import accumulate, pairwise

from xmppd.core.roster.cache import Roster
from xmppd.core.roster.shelf import EMPTY, Shelf

FORMAT = b"\x02"
"""Of what is written. Anything else is not read: another release wrote it."""

SAME = 0xFFFFFFFF

_HEAD = struct.Struct(">c16sI8I")
_CHECKED = 21
"""Where the bytes begin that the check is of."""

_LENGTH = struct.Struct(">I")


def pack(roster: Roster) -> bytes:
    """The roster as bytes, without its account."""
    followers = _joined(roster.followers)
    is_same = roster.following is roster.followers or roster.following == roster.followers
    following = b"" if is_same else _joined(roster.following)
    shelf = roster.shelf
    parts = (
        followers,
        following,
        _joined(tuple(contact for contact, _ in roster.requests)),
        _listed(request for _, request in roster.requests),
        _joined(shelf.starts),
        _listed(shelf.blocks),
    )
    lengths = [len(part) for part in parts]
    if is_same:
        lengths[1] = SAME
    body = struct.pack(">8I", shelf.count, shelf.length, *lengths) + b"".join(parts)
    return FORMAT + b"%016d" % roster.version + _LENGTH.pack(zlib.crc32(body)) + body


def unpack(account: str, data: bytes) -> Roster | None:
    """The account's roster, or None where the bytes are not what `pack` writes."""
    try:
        form, version, check, count, length, *lengths = _HEAD.unpack_from(data)
        if form != FORMAT or zlib.crc32(memoryview(data)[_CHECKED:]) != check:
            return None
        is_same = lengths[1] == SAME
        ends = list(accumulate([_HEAD.size, *(0 if size == SAME else size for size in lengths)]))
        if ends[-1] != len(data):
            return None
        parts = [data[start:end] for start, end in pairwise(ends)]
        followers = _split(parts[0])
        following = followers if is_same else _split(parts[1])
        contacts, requests = _split(parts[2]), _list(parts[3])
        starts, blocks = _split(parts[4]), _list(parts[5])
        if len(contacts) != len(requests) or len(starts) != max(len(blocks) - 1, 0):
            return None
        asking = tuple(zip(contacts, requests, strict=True))
        shelf = Shelf(starts, blocks, count, length) if blocks else EMPTY
        return Roster(account, int(version), followers, following, asking, shelf)
    except (struct.error, ValueError):  # ValueError: no number, no UTF-8
        return None


def _joined(contacts: tuple[str, ...]) -> bytes:
    return "\n".join(contacts).encode()


def _split(joined: bytes) -> tuple[str, ...]:
    return tuple(map(sys.intern, joined.decode().split("\n"))) if joined else ()


def _listed(values: Iterable[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(value)) + value for value in values)


def _list(listed: bytes) -> tuple[bytes, ...]:
    values: list[bytes] = []
    start = 0
    while start < len(listed):
        (length,) = _LENGTH.unpack_from(listed, start)
        start += _LENGTH.size
        values.append(listed[start : start + length])
        start += length
    if start != len(listed):
        raise ValueError("the list does not end where it should")
    return tuple(values)
