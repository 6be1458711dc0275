"""Lines of a file in binary, each with its place, and never more of one than fits."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Final

from xmppd.migrate.source import SourceError

PIECE: Final = 1 << 20
"""Bytes of a line that is too long, read at once to get past it."""

LONGEST_SKIPPED: Final = 256 << 20
"""Bytes of one line after which nobody looks for its end any more: that is no file of lines."""


def lines_of(file: BufferedReader, longest: int, path: Path) -> Iterator[tuple[int, int, bytes | None]]:
    """Each line as (number from 1, byte where it begins, text with its end); None instead of a text of more
    than `longest` bytes. SourceError for a line without an end.
    """
    number = byte = 0
    while line := file.readline(longest + 1):
        number += 1
        if len(line) > longest and not line.endswith(b"\n"):
            size = _past(file, len(line))
            if size > LONGEST_SKIPPED:
                raise SourceError("a line without an end", file=path, line=number, byte=byte)
            yield number, byte, None
            byte += size
            continue
        yield number, byte, line
        byte += len(line)


def _past(file: BufferedReader, size: int) -> int:
    """Read on to the end of a line of which `size` bytes were read; how long it is."""
    while size <= LONGEST_SKIPPED:
        piece = file.readline(PIECE)
        size += len(piece)
        if not piece or piece.endswith(b"\n"):
            break
    return size
