"""Bytes that should be UTF-8 and are not quite."""

from __future__ import annotations

import codecs
from typing import Final

_LATIN_1: Final = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}


class Mended:
    """UTF-8 in pieces, in which bytes that are none are read as Latin-1: ejabberd writes the names of its
    hosts so into files that are UTF-8 otherwise.

    `count` is the number of such bytes so far, and what comes out is longer by as much; `first` is where the
    first of them is, in bytes.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first = -1
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._given = 0

    def feed(self, data: bytes, is_last: bool = False) -> bytes:
        """What these bytes are in UTF-8; a letter that is cut off waits for its rest."""
        text = self._decoder.decode(data, is_last)
        try:
            out = text.encode()
        except UnicodeEncodeError as error:
            if self.first < 0:
                self.first = self._given + len(text[: error.start].encode())
            out = text.translate(_LATIN_1).encode()
            self.count += len(out) - len(text.encode("utf-8", "surrogateescape"))
        self._given += len(out)
        return out
