"""SQL dumps as text, and files of SQLite, as a database that can be asked.

A dump is never executed: its CREATE TABLE, INSERT and COPY statements are read, all others are passed over.
Known are the shapes of pg_dump (COPY and INSERT), mysqldump and mariadb-dump, SQLite's `.dump`, and
ejabberd's export2sql.
"""

from __future__ import annotations

import codecs
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from xmppd.migrate.record import Losses
from xmppd.migrate.source import HEAD, SourceError, head_of, opened
from xmppd.migrate.sql import base
from xmppd.migrate.sql.base import SQLITE, Dump, Tables, fresh, of_file, read_only
from xmppd.migrate.sql.dump import CREATE, INSERT, Loader, created
from xmppd.migrate.sql.scan import QUALIFIED, names_of

_IN_HEAD = re.compile(
    rf"(?:CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?|INSERT\s+(?:IGNORE\s+)?INTO\s+|COPY\s+)({QUALIFIED})",
    re.IGNORECASE,
)


def database(path: Path, scratch: Path, tables: Tables, losses: Losses | None = None) -> Dump:
    """These tables of an SQLite file, which is only read, or of a dump, copied into a file without a name in
    the folder `scratch`. Names are compared without case.

    Values are as the dump means them: text, None, numbers. COPY knows text only. Text that is not of its
    encoding is mended as far as that goes; `losses` is told of it (`not-utf8`) and of what looks spoilt
    (`mojibake`, `question-marks`). SourceError.
    """
    with opened(path) as file:
        head = file.read(HEAD)
    if head.startswith(SQLITE):
        return of_file(path, tables)
    if not head.strip():
        raise SourceError(
            "is empty", file=path, hint="ejabberd writes such a file for a host it does not know"
        )
    dump = fresh(scratch)
    dump.path = path
    try:
        loader = Loader(dump, path, head, tables, losses or Losses())
        loader.load()
    except BaseException:
        dump.close()
        raise
    return dump


def tables_in(head: bytes) -> set[str]:
    """The tables that the beginning of a dump names, in lower case; of an SQLite file see `tables_of`."""
    text = head.decode(
        "utf-16" if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "latin-1", "replace"
    )
    return {names_of(match[1])[-1].lower() for match in _IN_HEAD.finditer(text)}


def tables_of(path: Path, head: bytes | None = None) -> dict[str, frozenset[str]]:
    """The tables that a dump or an SQLite file begins with, and their columns as far as they are known there,
    all in lower case; none where it is neither.
    """
    head = head_of(path) if head is None else head
    if head.startswith(SQLITE):
        try:
            with closing(read_only(path)) as dump:
                return {name.lower(): frozenset(base.columns_of(dump, name)) for name in base.tables_of(dump)}
        except (SourceError, sqlite3.Error):
            return {}
    found = dict.fromkeys(tables_in(head), frozenset[str]())
    text = head.decode("latin-1")
    for match in CREATE.finditer(text):
        columns = created(text, match.end())
        found[names_of(match[1])[-1].lower()] = frozenset(name.lower() for name in columns or ())
    for match in INSERT.finditer(text):
        name = names_of(match[1])[-1].lower()
        found[name] = found.get(name, frozenset()) | {column.lower() for column in names_of(match[2] or "")}
    return found
