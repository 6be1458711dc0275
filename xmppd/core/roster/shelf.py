"""The packed items of one roster as they are kept: in blocks, so that a change touches one of them."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from dataclasses import dataclass

from xmppd.xml.roster import contact_of, count_items, find_item, replace_item, split_items

BLOCK = 8192
"""About how many bytes of packed items are kept together; a block of more than twice that becomes two."""

_WORTH_IT = 1024
"""Bytes of packed items from which on they are kept compressed (those of 50 contacts to an eighth), unless
that saves less than a quarter: what a client makes up to be dear is then at least not unpacked again.
"""

_COMPRESSED = b"x"
"""What zlib's output begins with; packed items begin with `<`."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Packed items by contact. `starts` are the contacts that each block but the first begins with; within a
    block there is no order. `count` are the items, `length` their bytes.
    """

    starts: tuple[str, ...] = ()
    blocks: tuple[bytes, ...] = ()
    count: int = 0
    length: int = 0

    @property
    def packed(self) -> bytes:
        """All items, as XML."""
        return b"".join(map(_opened, self.blocks))

    def find(self, contact: str) -> bytes:
        """The contact's item, b"" for none."""
        if not self.blocks:
            return b""
        return find_item(_opened(self.blocks[bisect_right(self.starts, contact)]), contact)

    def put(self, contact: str, item: str) -> Shelf:
        """The shelf with the contact's item replaced ("": removed)."""
        index = bisect_right(self.starts, contact)
        before = _opened(self.blocks[index]) if self.blocks else b""
        after = replace_item(before, contact, item)
        parts = _halves(after) if len(after) > 2 * BLOCK else [("", after)] if after else []
        blocks = (*self.blocks[:index], *(_closed(part) for _, part in parts), *self.blocks[index + 1 :])
        starts = list(self.starts)
        if len(parts) > 1:
            starts.insert(index, parts[1][0])
        elif not parts and starts:
            del starts[max(index - 1, 0)]
        count = self.count + count_items(after) - count_items(before)
        return Shelf(tuple(starts), blocks, count, self.length + len(after) - len(before))


EMPTY = Shelf()


class ShelfBuilder:
    """A shelf in the making."""

    def __init__(self) -> None:
        self._starts: list[str] = []
        self._blocks: list[bytes] = []
        self._open: list[str] = []
        self._first = ""
        self._letters = self._count = self._length = 0

    def add(self, contact: str, item: str) -> None:
        """Add the item of a contact that comes behind all that were added."""
        if self._letters >= BLOCK:
            self._close()
        if not self._open:
            self._first = contact
        self._open.append(item)
        self._letters += len(item)
        self._count += 1

    def done(self) -> Shelf:
        """The shelf."""
        if self._open:
            self._close()
        if not self._blocks:
            return EMPTY
        return Shelf(tuple(self._starts), tuple(self._blocks), self._count, self._length)

    def _close(self) -> None:
        packed = "".join(self._open).encode()
        if self._blocks:
            self._starts.append(self._first)
        self._blocks.append(_closed(packed))
        self._length += len(packed)
        self._open = []
        self._letters = 0


def _halves(packed: bytes) -> list[tuple[str, bytes]]:
    """The items of a block in two of about the same length, each with its first contact; one for one item."""
    items = sorted((contact_of(item), item) for item in split_items(packed))
    cut = length = 0
    while length * 2 < len(packed):
        length += len(items[cut][1])
        cut += 1
    cut = min(cut, len(items) - 1)
    halves = items[:cut], items[cut:]
    return [(half[0][0], b"".join(item for _, item in half)) for half in halves if half]


def _closed(packed: bytes) -> bytes:
    """Packed items as they are kept while nobody asks for them."""
    if len(packed) < _WORTH_IT:
        return packed
    compressed = zlib.compress(packed, 1)
    return compressed if len(compressed) * 4 < len(packed) * 3 else packed


def _opened(block: bytes) -> bytes:
    return zlib.decompress(block) if block.startswith(_COMPRESSED) else block
