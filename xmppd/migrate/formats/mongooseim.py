"""MongooseIM's SQL: tables of ejabberd, with a column `server` since version 5, and passwords of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from xmppd.migrate.formats.ejabberd_rows import offline_of
from xmppd.migrate.formats.ejabberd_sql import MIM_TABLES, TABLES, EjabberdReader
from xmppd.migrate.keys import from_base64, keys_of
from xmppd.migrate.record import Account, Keys
from xmppd.migrate.source import Options, Reader
from xmppd.migrate.sql.text import database, tables_of

_USER: Final = ("username", "server")
MIM: Final[Mapping[str, Sequence[str]]] = {
    "users": (*_USER, "password", "pass_details", "created_at"),
    "rosterusers": (*_USER, "jid", "nick", "subscription", "ask", "askmessage", "approved"),
    "rostergroups": (*_USER, "jid", "grp"),
    "vcard": (*_USER, "vcard"),
    "private_storage": (*_USER, "namespace", "data"),
    "offline_message": (*_USER, "timestamp", "id", "packet"),
    "last": (*_USER, "seconds", "state"),
    "privacy_default_list": (*_USER, "name"),
    "privacy_list": (*_USER, "name", "id"),
    "privacy_list_data": TABLES["privacy_list_data"],
    "pubsub_nodes": ("nid", "p_key", "name"),
    "pubsub_items": ("nid", "itemid", "modified_at", "payload"),
} | dict.fromkeys(
    (
        "event_pusher_push_subscription",
        "inbox",
        "mam_message",
        "mam_muc_message",
        "muc_light_rooms",
        "muc_rooms",
        "muc_registered",
        "users_blocked",
    ),
    (),
)
"""Tables that are read, and those that are counted."""

MULTI: Final = "==MULTI_SCRAM=="
OLD: Final = "==SCRAM=="
_TAG: Final = re.compile(r"=+(SHA\d+)=+")
_TAG_SIZE: Final = 10


class Mongooseim(EjabberdReader):
    """The accounts of one database, by domain and name."""

    server = "MongooseIM"
    host = "server"
    users = "password, pass_details, created_at"
    waiting = "offline_message"

    def _waiting(self) -> str:
        columns = "packet, CAST(timestamp AS INTEGER)"
        return self._select("offline_message", columns, "CAST(timestamp AS INTEGER), CAST(id AS INTEGER)")

    def _message(self, row: Any, account: Account) -> None:
        micros = row[4]
        at = micros / 1e6 if isinstance(micros, int) and micros > 0 else None
        offline_of(row[3], account, self._losses, at)

    def _pep(self) -> str:
        source = "pubsub_nodes LEFT JOIN pubsub_items USING (nid)"
        return self._nodes("p_key", "name", "modified_at", source)

    def _shared(self) -> str:
        return "SELECT 1, 1 WHERE 0"

    def _password(self, rows: list[Any], account: Account) -> None:
        password, details = rows[0][:2]
        if not details:
            account.password = str(password) if password else None
            return
        bad = False
        for found in keys_in(str(details)):
            if found is None:
                bad = True
            else:
                account.keys.setdefault(*found)
        if bad or not account.keys:
            self._losses.add(
                "unusable-keys", account.name, "not two keys of one hash with salt and iterations"
            )
        if any(name != "sha1" for name in account.keys):
            why = "MongooseIM 4.1 to 6.3.1 with OpenSSL 3.4.1 or newer computed wrong keys of all but SHA-1"
            self._losses.add("doubtful-keys", account.name, why)


def keys_in(details: str) -> Iterator[tuple[str, Keys] | None]:
    """The keys of `pass_details`, by hash; None for what is none."""
    kind, *parts = details.split(",")
    if kind == OLD and len(parts) == 4:
        stored, server, salt, iterations = parts
        yield keys_of(from_base64(stored), from_base64(server), from_base64(salt), iterations)
        return
    if kind != MULTI or len(parts) < 2:
        yield None
        return
    common = ""
    if not _TAG.match(parts[1]):  # builds before 3.7.0 have one salt for all
        common, *parts = parts
    iterations, *tagged = parts
    for text in tagged:
        tag, values = _TAG.match(text[:_TAG_SIZE]), text[_TAG_SIZE:].split("|")
        if common:
            values.insert(0, common)
        if tag is None or len(values) != 3:
            yield None
            continue
        parsed = [from_base64(value) for value in values]
        found = keys_of(parsed[1], parsed[2], parsed[0], iterations)
        yield found if found and found[0] == tag[1].lower() else None


class _Format:
    name: Final = "mongooseim"
    tables: Final = MIM

    def recognises(self, path: Path, head: bytes) -> bool:
        """Tables that MongooseIM alone has, or its form of those that ejabberd has, too."""
        tables = tables_of(path, head) if head else {}
        if b"-- Mnesia table: " in head:
            return False
        if "pass_details" in tables.get("users", ()) or tables.keys() & MIM_TABLES:
            return True
        roster = tables.get("rosterusers", frozenset())
        return bool(roster) and not roster & {"subscribe", "server_host", "type"}

    def open(self, path: Path, options: Options) -> Reader:
        """Load the tables into the scratch folder. SourceError."""
        dump = database(path, options.scratch, MIM, options.losses)
        try:
            return Mongooseim(dump, options)
        except BaseException:
            dump.close()
            raise


FORMAT: Final = _Format()
