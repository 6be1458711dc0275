"""What is remembered of managed sessions that have ended (XEP-0198 5)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Final

SECONDS: Final = 3600
"""How long it is known how many stanzas of a session were handled, after its end."""
GROUPS: Final = 2048
GROUP: Final = 8
"""Of so many sessions in a group, the last ones: by chance each belongs to one of the groups."""

ENTRY: Final = struct.Struct("<QII")
"""Which session, its count, and in which second it ended, from 1 on."""


class Past:
    """How many stanzas of each were handled (modulo 2^32), in one block of memory: an object for each session
    would be among those of others that were there with it, and keep their pages when these have gone. `clock`
    gives seconds that never jump.
    """

    __slots__ = ("_block", "_clock")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._block = bytearray(GROUPS * GROUP * ENTRY.size)

    def note(self, id: str, account: str, handled: int) -> None:
        """A session of the account has ended, or more of it was handled after that."""
        name = name_of(id, account)
        entries = {offset: self._entry(offset) for offset in offsets(name)}
        offset = min(entries, key=lambda offset: (entries[offset][0] != name, entries[offset][2]))
        ENTRY.pack_into(self._block, offset, name, handled, int(self._clock()) + 1)

    def handled(self, id: str, account: str) -> int | None:
        """How many of one that has ended, if that is known."""
        name, since = name_of(id, account), self._clock() - SECONDS
        for offset in offsets(name):
            known, handled, second = self._entry(offset)
            if known == name and second > since:
                return handled
        return None

    def _entry(self, offset: int) -> tuple[int, int, int]:
        name, handled, second = ENTRY.unpack_from(self._block, offset)
        return name, handled, second


def name_of(id: str, account: str) -> int:
    """What tells it from others."""
    return int.from_bytes(hashlib.blake2b(f"{id} {account}".encode(), digest_size=8).digest(), "little")


def offsets(name: int) -> range:
    """Where it may stand."""
    first = name % GROUPS * GROUP * ENTRY.size
    return range(first, first + GROUP * ENTRY.size, ENTRY.size)
