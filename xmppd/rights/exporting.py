"""All that is kept of a person as one file: a zip of JSON, made while it is given."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from xmppd import __version__
from xmppd.moments import utc_stamp
from xmppd.rights.persons import Persons, columns_of, person_of
from xmppd.store.table import Stored, Table, Value

FORMAT: Final = "xmppd-person"
VERSION: Final = 1
PIECE: Final = 65_536
"""Bytes that are given together, but for what one step makes."""
NOTE: Final = (
    "What was written while this file was made may be in it or not. Secrets are described in schema.json, "
    "not given. Rows of other people that name this one (their contacts, block lists and archives) are "
    "theirs, and not in this file; rows that are nobody's and name this one are below mentions/."
)


class Sink(io.RawIOBase):
    """Keeps what was written until it is taken; a zip does not go back in it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        """It may be written to."""
        return True

    def write(self, data: Any) -> int:
        """Keep it."""
        piece = bytes(data)
        self._pieces.append(piece)
        self.size += len(piece)
        return len(piece)

    def take(self) -> bytes:
        """What was written since it was taken last."""
        found, self._pieces, self.size = b"".join(self._pieces), [], 0
        return found


class Exporting:
    """Makes such files of what `persons` finds. `now` gives seconds since the epoch."""

    def __init__(self, persons: Persons, now: Callable[[], float] = time.time) -> None:
        self._persons = persons
        self._now = now

    async def pieces(self, account: str) -> AsyncIterator[bytes]:
        """The file of one account, some bytes at a time."""
        sink, begun, counts = Sink(), self._now(), dict[str, int]()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            await self._persons.look()
            tables = self._persons.tables
            await asyncio.to_thread(archive.writestr, *_file("schema.json", schema_of(tables)))
            for table in tables:
                person = person_of(table)
                if person.is_owner:
                    name, pages = f"tables/{table.name}.json", self._persons.pages(table, account)
                elif person.mentions:
                    name, pages = f"mentions/{table.name}.json", self._persons.mentions(table, account)
                else:
                    continue
                count = 0
                info = zipfile.ZipInfo(name, _moment(begun).timetuple()[:6])
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w", force_zip64=True) as file:
                    file.write(b"[")
                    async for entries in pages:
                        data = _lines(table, entries, is_first=not count)
                        count += len(entries)
                        await asyncio.to_thread(file.write, data)
                        if sink.size >= PIECE:
                            yield sink.take()
                    file.write(b"\n]\n")
                counts[name] = count
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "server": f"xmppd {__version__}",
                "account": account,
                "begun": utc_stamp(begun),
                "ended": utc_stamp(self._now()),
                "rows": counts,
                "not looked at": self._persons.unknown,
                "note": NOTE,
            }
            archive.writestr(*_file("manifest.json", manifest))
        yield sink.take()


def schema_of(tables: Sequence[Table]) -> dict[str, Any]:
    """What stands in each file: columns with their types, and what is left out."""
    found: dict[str, Any] = {}
    for table in tables:
        person = person_of(table)
        if not (person.is_owner or person.mentions):
            continue
        folder = "tables" if person.is_owner else "mentions"
        found[f"{folder}/{table.name}.json"] = {
            "key": list(table.key),
            "columns": {name: kind for name, kind in columns_of(table) if name not in person.secret},
            "not given": dict(person.secret),
        }
    return {
        "format": FORMAT,
        "version": VERSION,
        "types": {
            "text": "a string",
            "blob": 'a string, or {"base64": "..."} where it is no UTF-8',
            "int": "a whole number of 64 bits",
            "float": "a number",
            "bool": "true or false",
            "timestamp": "seconds since 1970-01-01T00:00:00Z",
        },
        "rows": "a list of objects; a column that is not there has no value; `expires:` is when the row ends",
        "files": found,
    }


def _lines(table: Table, entries: Sequence[Stored], *, is_first: bool) -> bytes:
    """Rows as they stand in a list, one in a line."""
    secret, some = person_of(table).secret, list[str]()
    for stored in entries:
        named = zip(table.key, stored.key, strict=False)
        row = {name: _json(value) for name, value in (*named, *stored.values.items()) if name not in secret}
        if stored.expires is not None:
            row["expires:"] = stored.expires
        some.append(json.dumps({name: it for name, it in row.items() if it is not None}, ensure_ascii=False))
    return (("\n" if is_first else ",\n") + ",\n".join(some)).encode("utf-8", "replace")


def _json(value: Value) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _file(name: str, content: dict[str, Any]) -> tuple[str, str]:
    return name, json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
