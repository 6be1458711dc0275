"""Rosters as bytes, for caches outside of this process.

    format   1 byte, `FORMAT`
    version  16 decimal digits, so that a script can compare them
    check    CRC-32 of all that follows, 4 bytes
    lengths  5 numbers of 4 bytes: followers, following (`SAME`: as the followers), requests' contacts,
             requests, shelf
    parts    in the same order; contacts are joined by newlines (no JID holds one), each request begins with
             its length, 4 bytes

All numbers are big-endian. Nothing here is executed when it is read, whoever wrote it.
"""

from __future__ import annotations

import struct
import sys
import zlib

from xmppd.core.roster.cache import Roster

FORMAT = b"\x01"
"""Of what is written. Anything else is not read: another release wrote it."""

SAME = 0xFFFFFFFF

_HEAD = struct.Struct(">c16sI5I")
_CHECKED = 21
"""Where the bytes begin that the check is of."""

_LENGTH = struct.Struct(">I")


def pack(roster: Roster) -> bytes:
    """The roster as bytes, without its account."""
    followers = _joined(roster.followers)
    is_same = roster.following is roster.followers or roster.following == roster.followers
    following = b"" if is_same else _joined(roster.following)
    asking = _joined(tuple(contact for contact, _ in roster.requests))
    requests = b"".join(_LENGTH.pack(len(request)) + request for _, request in roster.requests)
    lengths = (
        len(followers),
        SAME if is_same else len(following),
        len(asking),
        len(requests),
        len(roster.shelf),
    )
    body = struct.pack(">5I", *lengths) + followers + following + asking + requests + roster.shelf
    return FORMAT + b"%016d" % roster.version + _LENGTH.pack(zlib.crc32(body)) + body


def unpack(account: str, data: bytes) -> Roster | None:
    """The account's roster, or None where the bytes are not what `pack` writes."""
    try:
        form, version, check, followed, follows, asked, requested, shelved = _HEAD.unpack_from(data)
        if form != FORMAT or zlib.crc32(memoryview(data)[_CHECKED:]) != check:
            return None
        start = _HEAD.size
        followers = _split(data[start : (start := start + followed)])
        is_same = follows == SAME
        following = followers if is_same else _split(data[start : (start := start + follows)])
        contacts = _split(data[start : (start := start + asked)])
        requests = _requests(contacts, data[start : (start := start + requested)])
        if len(data) != start + shelved:
            return None
        return Roster(account, int(version), followers, following, requests, data[start:])
    except (struct.error, ValueError):  # ValueError: no number, no UTF-8
        return None


def _joined(contacts: tuple[str, ...]) -> bytes:
    return "\n".join(contacts).encode()


def _split(joined: bytes) -> tuple[str, ...]:
    return tuple(map(sys.intern, joined.decode().split("\n"))) if joined else ()


def _requests(contacts: tuple[str, ...], packed: bytes) -> tuple[tuple[str, bytes], ...]:
    requests: list[tuple[str, bytes]] = []
    start = 0
    for contact in contacts:
        (length,) = _LENGTH.unpack_from(packed, start)
        start += _LENGTH.size
        requests.append((contact, packed[start : start + length]))
        start += length
    if start != len(packed):
        raise ValueError("the requests do not end where they should")
    return tuple(requests)
