"""Ids of archived messages (XEP-0359): the time, in the order of time, and not to be guessed (XEP-0313 3)."""

from __future__ import annotations

import base64
import secrets
from binascii import b2a_base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct, iter_unpack
from typing import Final

TIME_BYTES: Final = 8
"""Microseconds since the epoch, big-endian: so ids are in order as bytes."""
RANDOM_BYTES: Final = 4
ID_BYTES: Final = TIME_BYTES + RANDOM_BYTES
ID_LETTERS: Final = 16
POOL: Final = 4096
"""Bytes of randomness fetched at once: a system call for each id would cost as much as the rest of it."""
MICROSECONDS: Final = 1_000_000
DAY: Final = 86_400 * MICROSECONDS
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST: Final = 1 << 62
"""A moment after all others."""
LAST_DAY: Final = 2_932_896
"""The last one of the year 9999."""
LAST_MINUTE: Final = (LAST_DAY + 1) * 1440 - 1
URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
"""The letters of base64 that are other ones in an id (RFC 4648 5)."""


_packed: Final = Struct(">Q").pack
_TIMES: Final = f">Q{RANDOM_BYTES}x"
"""The times of ids, one behind the other."""


class Pool:
    """Has random bytes in pieces of RANDOM_BYTES, each of which it gives once."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def new_id(self, at: int) -> bytes:
        """The id of what is archived at this microsecond, which no other of its archive has."""
        if not self._pieces:
            self._pieces = [piece for (piece,) in iter_unpack(f"{RANDOM_BYTES}s", secrets.token_bytes(POOL))]
        return _packed(at) + self._pieces.pop()


def to_letters(id: bytes) -> bytes:
    """As clients see it."""
    return b2a_base64(id, newline=False).translate(URL_SAFE)


def to_text(id: bytes) -> str:
    """The same as text."""
    return to_letters(id).decode()


def texts_of(ids: Sequence[bytes]) -> list[bytes]:
    """The same of many at once, as bytes: what has so many bytes needs no padding."""
    letters = b2a_base64(b"".join(ids), newline=False).translate(URL_SAFE)
    return [letters[at : at + ID_LETTERS] for at in range(0, len(letters), ID_LETTERS)]


def from_text(text: str) -> bytes | None:
    """The id of this text; None for what is none."""
    if len(text) != ID_LETTERS or not text.isascii():
        return None
    try:
        id = base64.urlsafe_b64decode(text)
    except ValueError:
        return None
    is_ours = len(id) == ID_BYTES and to_text(id) == text and at_of(id) < LAST
    return id if is_ours else None


def at_of(id: bytes) -> int:
    """The microsecond of an id, or of what an id begins with."""
    return int.from_bytes(id[:TIME_BYTES], "big")


def moment_of(text: str) -> int:
    """The microsecond of an id as clients see it; LAST for what is none."""
    id = from_text(text)
    return LAST if id is None else at_of(id)


def bound(at: int) -> bytes:
    """What is smaller than each id of this microsecond or a later one, and larger than all others."""
    return min(max(at, 0), LAST).to_bytes(TIME_BYTES, "big")


def day_of(id: bytes) -> int:
    """The day since the epoch that an id is of (UTC)."""
    return int.from_bytes(id[:TIME_BYTES], "big") // DAY


def month_of(id: bytes) -> int:
    """The month, counted from January 1970, that an id is of (UTC)."""
    return month_of_day(day_of(id))


@lru_cache(64)
def month_of_day(day: int) -> int:
    """The month that a day is of."""
    moment = EPOCH + timedelta(days=min(day, LAST_DAY))
    return 12 * (moment.year - 1970) + moment.month - 1


def stamp_of(id: bytes) -> str:
    """The moment of an id in the form of XEP-0082, to the millisecond."""
    minute, rest = divmod(int.from_bytes(id[:TIME_BYTES], "big") // 1000, 60_000)
    return f"{minute_of(minute)}{rest // 1000:02d}.{rest % 1000:03d}Z"


class Stamps:
    """Makes the stamps of many ids, each between the same two pieces: up to the second it is cheap where many
    are of one, and the rest is there.
    """

    def __init__(self, before: bytes, behind: bytes) -> None:
        self._before = before
        self._ends = [b"%03dZ%b" % (milli, behind) for milli in range(1000)]

    def of(self, ids: Sequence[bytes]) -> list[bytes]:
        """The stamps as `stamp_of` has them, with the pieces."""
        last, start, ends, stamps = -1, b"", self._ends, list[bytes]()
        for (at,) in iter_unpack(_TIMES, b"".join(ids)):
            second = at // MICROSECONDS
            if second != last:
                last = second
                minute, rest = divmod(second, 60)
                start = b"%b%b%02d." % (self._before, minute_of(minute).encode(), rest)
            stamps.append(start + ends[at // 1000 % 1000])
        return stamps


@lru_cache(1024)
def minute_of(minute: int) -> str:
    """A minute since the epoch in the same form, as far as its seconds."""
    return (EPOCH + timedelta(minutes=min(minute, LAST_MINUTE))).strftime("%Y-%m-%dT%H:%M:")
