"""Which format a source has."""

from __future__ import annotations

from pathlib import Path

from xmppd.migrate.formats import FORMATS
from xmppd.migrate.source import Options, Reader, SourceError, head_of


def open_source(path: Path, *, format: str = "", options: Options) -> Reader:
    """Begin to read a source; SourceError."""
    if not path.exists():
        raise SourceError("is not there", file=path)
    head = head_of(path)
    for it in FORMATS:
        if (format and it.name == format) or (not format and it.recognises(path, head)):
            return it.open(path, options)
    raise SourceError("is in no format that is known", file=path)
