"""Formats of other servers. Each module has a `FORMAT` (or `FORMATS`); the tuple here has all of them in the
order in which a source is looked at.
"""

from __future__ import annotations

from typing import Final

from xmppd.migrate.formats import (
    csvfile,
    ejabberd_sql,
    jsonl,
    mnesia,
    mongooseim,
    openfire,
    pie,
    prosody,
    prosody_sql,
    tigase,
)
from xmppd.migrate.source import Format

FORMATS: Final[tuple[Format, ...]] = (
    jsonl.FORMAT,
    csvfile.FORMAT,
    mnesia.FORMAT,
    pie.FORMAT,
    prosody.FORMAT,
    prosody_sql.FORMAT,
    ejabberd_sql.FORMAT,
    mongooseim.FORMAT,
    openfire.FORMAT,
    tigase.FORMAT,
)
