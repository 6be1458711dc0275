"""ejabberd's SQL in both schemas: dumps of all databases, SQLite files, and export2sql.

The tables are read side by side in the order of accounts. The old schema has no domain: an operator says it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

from xmppd.migrate.blocks import PrivacyItem, blocks_of_privacy
from xmppd.migrate.formats.ejabberd_rows import (
    Roster,
    last_of,
    offline_of,
    password_of,
    privacy_item,
    tree_of,
)
from xmppd.migrate.record import Account, Unreadable
from xmppd.migrate.source import Options, Reader, SourceError
from xmppd.migrate.sql.base import Dump
from xmppd.migrate.sql.join import Beside, Key, TooMuch, size_of
from xmppd.migrate.sql.text import database, tables_of
from xmppd.migrate.stamps import moment
from xmppd.migrate.vcards import NODES, vcard_of_nodes

_FLAGS: Final = ("match_all", "match_iq", "match_message", "match_presence_in", "match_presence_out")
_NAME: Final = "ifnull(CAST(username AS TEXT), '')"
_USER: Final = ("username", "server_host")
TABLES: Final[Mapping[str, Sequence[str]]] = {
    "users": (*_USER, "type", "password", "serverkey", "salt", "iterationcount", "created_at"),
    "rosterusers": (*_USER, "jid", "nick", "subscription", "ask", "askmessage", "approved", "subscribe"),
    "rostergroups": (*_USER, "jid", "grp"),
    "vcard": (*_USER, "vcard"),
    "private_storage": (*_USER, "namespace", "data"),
    "spool": (*_USER, "xml", "seq"),
    "last": (*_USER, "seconds", "state"),
    "privacy_default_list": (*_USER, "name"),
    "privacy_list": (*_USER, "name", "id"),
    "privacy_list_data": ("id", "t", "value", "action", "ord", *_FLAGS),
    "pubsub_node": ("host", "node", "nodeid"),
    "pubsub_item": ("nodeid", "itemid", "modification", "payload"),
    "sr_group": ("name", "server_host"),
    "sr_user": ("jid", "server_host", "grp"),
} | dict.fromkeys(
    (
        "archive",
        "archive_prefs",
        "mix_channel",
        "mix_pam",
        "motd",
        "mqtt_pub",
        "muc_registered",
        "muc_room",
        "muc_room_subscribers",
        "oauth_client",
        "oauth_token",
        "push_session",
    ),
    (),
)
"""Tables that are read, and those that are counted. Left out is what a server makes anew; `subscribe` is
there so that a copy of a live database is recognised.
"""

MOST_ROWS: Final = 100
"""Rows of `users` that one account may have; four are meant."""

MIM_TABLES: Final = frozenset(
    {
        "mam_message",
        "mam_server_user",
        "mam_user",
        "offline_message",
        "auth_token",
        "inbox",
        "domain_settings",
    }
)
"""Tables that MongooseIM has and ejabberd has not."""


class _EjabberdSql:
    name: Final = "ejabberd-sql"
    tables: Final = TABLES

    def recognises(self, path: Path, head: bytes) -> bool:
        """Tables of ejabberd, and none of MongooseIM."""
        tables = tables_of(path, head) if head else {}
        users, roster = tables.get("users", frozenset()), tables.get("rosterusers", frozenset())
        if "pass_details" in users or tables.keys() & MIM_TABLES:
            return False
        if "rosterusers" in tables:
            return not roster or bool(roster & {"subscribe", "server_host", "type"})
        return (
            b"-- Mnesia table: " in head or "serverkey" in users or "bare_peer" in tables.get("archive", ())
        )

    def open(self, path: Path, options: Options) -> Reader:
        """Load the tables into the scratch folder. SourceError."""
        dump = database(path, options.scratch, TABLES, options.losses)
        try:
            return EjabberdReader(dump, options)
        except BaseException:
            dump.close()
            raise


FORMAT: Final = _EjabberdSql()


class EjabberdReader:
    """The accounts of one database, by domain and name.

    `host` is the column that says the domain, `users` the columns of accounts (the last one is the moment of
    creation), `waiting` the table of messages.
    """

    server = "ejabberd"
    host = "server_host"
    users = "type, password, serverkey, salt, iterationcount, created_at"
    waiting = "spool"

    def __init__(self, dump: Dump, options: Options) -> None:
        self._dump, self._options, self._losses = dump, options, options.losses
        self._old = not any(self.host in columns for columns in dump.present.values())
        self._check()
        self.total: int | None = next(dump.rows(f"SELECT count(*) FROM ({self._accounts_sql()})"))[0]

    def close(self) -> None:
        """Let go of the database."""
        self._dump.close()

    def _check(self) -> None:
        dump = self._dump
        if not dump.present.keys() & {"users", "rosterusers"}:
            raise SourceError(f"has neither accounts nor rosters of {self.server}", file=dump.path)
        if self._old and not self._options.domain:
            host = dump.path.name.removesuffix(".gz").removesuffix(".sql").removesuffix(".sqlite")
            hint = "name it by --domain" + (f", perhaps {host}" if "." in host else "")
            raise SourceError("the tables of this schema do not say the domain", file=dump.path, hint=hint)
        if dump.marks and "passwd" in dump.marks and "roster" not in dump.marks:
            there = ", ".join(dict.fromkeys(dump.marks))
            hint = "export again with mod_muc loaded and an SQL connection configured"
            why = f"the export stopped early: it has the tables {there[:200]}, and no roster"
            raise SourceError(why, file=dump.path, hint=hint)

    def __iter__(self) -> Iterator[Account | Unreadable]:
        """Each account once, in the order of domains and names."""
        self._tell_tables()
        beside = {name: self._beside(name, sql) for name, sql in self._queries().items()}
        for key, rows in self._accounts():
            yield self._account(key, rows, beside)
        for table in beside.values():
            table.end()

    # The tables in order.

    def _domain(self, table: str) -> str:
        """The expression for the domain of a row."""
        if self.host in self._dump.present.get(table, ()):
            return f"ifnull(CAST({self.host} AS TEXT), '')"
        return "'" + self._options.domain.replace("'", "''") + "'"

    def _select(self, table: str, columns: str, order: str, source: str = "") -> str:
        domain = self._domain(table)
        size = size_of(columns.split(", "))
        select = f"SELECT {domain}, {_NAME}, {size}, {columns}"
        return f"{select} FROM {source or table} ORDER BY 1, 2, {order}"

    def _queries(self) -> dict[str, str]:
        flags = ", ".join(_FLAGS)
        return {
            "rosterusers": self._select(
                "rosterusers", "jid, nick, subscription, ask, askmessage, approved", "jid, subscription, ask"
            ),
            "rostergroups": self._select("rostergroups", "jid, grp", "jid, grp"),
            "vcard": self._select("vcard", "vcard", "vcard"),
            "private_storage": self._select("private_storage", "namespace, data", "namespace, data"),
            self.waiting: self._waiting(),
            "last": self._select("last", "seconds, state", "seconds"),
            "privacy_default_list": self._select("privacy_default_list", "name", "name"),
            "privacy_list": self._select(
                "privacy_list",
                f"name, t, value, action, ord, {flags}",
                "name, value",
                "privacy_list LEFT JOIN privacy_list_data USING (id)",
            ),
            "pep": self._pep(),
        }

    def _waiting(self) -> str:
        """Messages in their order, which in an export2sql is that of the file."""
        has_number = "seq" in self._dump.present.get("spool", ())
        return self._select("spool", "xml", "CAST(seq AS INTEGER)" if has_number else "rowid")

    def _pep(self) -> str:
        return self._nodes("host", "node", "modification", "pubsub_node LEFT JOIN pubsub_item USING (nodeid)")

    def _nodes(self, owner: str, node: str, order: str, source: str) -> str:
        """Nodes of users, with the payloads of those that make a vCard; the newest item last."""
        nodes = ", ".join(f"'{node}'" for node in NODES)
        domain = self._domain("") if self._old else f"substr({owner}, instr({owner}, '@') + 1)"
        local = f"substr({owner}, 1, instr({owner}, '@') - 1)"
        payload = f"CASE WHEN {node} IN ({nodes}) THEN payload END"
        return (
            f"SELECT {domain}, {local}, {size_of([payload])}, {node}, itemid, {payload} FROM {source}"
            f" WHERE instr({owner}, '@') > 0 ORDER BY 1, 2, {node}, {order}, itemid"
        )

    def _beside(self, table: str, sql: str) -> Beside:
        def orphans(owner: str, count: int) -> None:
            self._losses.add("orphan", owner, f"{table}: {count} rows", count)

        return Beside(self._dump.rows(sql), orphans)

    # Accounts.

    def _has_users(self) -> bool:
        return bool(next(self._dump.rows("SELECT EXISTS (SELECT 1 FROM users)"))[0])

    def _accounts_sql(self) -> str:
        if self._has_users():
            return f"SELECT DISTINCT {self._domain('users')}, {_NAME} FROM users"
        return f"SELECT DISTINCT {self._domain('rosterusers')}, {_NAME} FROM rosterusers"

    def _accounts(self) -> Iterator[tuple[Key, list[Any]]]:
        """Each account with its rows of `users`; those with a roster where an external service has the
        accounts.
        """
        if self._has_users():
            sql = self._select("users", self.users, self.users)
        else:
            sql = f"{self._accounts_sql()} ORDER BY 1, 2"
        for key, rows in groupby(self._dump.rows(sql), key=lambda row: (row[0], row[1])):
            yield key, [row[3:] for row in islice(rows, MOST_ROWS)]

    def _account(self, key: Key, rows: list[Any], beside: Mapping[str, Beside]) -> Account | Unreadable:
        domain, local = key
        account = Account(local or "", domain or "", f"{self._dump.path.name}: users")
        try:
            found = {name: table.of(key) for name, table in beside.items()}
        except TooMuch as error:
            return Unreadable(account.name, str(error), account.where)
        if not local or not domain:
            return Unreadable(account.name, "an account without a name or a domain", account.where)
        if rows and rows[0]:
            account.created = _time(rows[0][-1])
            self._password(rows, account)
        else:
            self._losses.add("external-account", account.name, "it has a roster and no row of users")
        Roster(account, self._losses).take(found["rosterusers"], found["rostergroups"])
        for *_, seconds, state in found["last"][:1]:
            last_of(seconds, state, account)
        for row in found[self.waiting]:
            self._message(row, account)
        for *_, data in found["private_storage"]:
            if (tree := tree_of(data, "private", account, self._losses)) is not None:
                account.private.append(tree)
        self._privacy(account, found["privacy_list"], found["privacy_default_list"])
        self._vcard(account, found["vcard"], found["pep"])
        return account

    def _password(self, rows: list[Any], account: Account) -> None:
        password_of((row[:5] for row in rows), account, self._losses)

    def _message(self, row: Any, account: Account) -> None:
        offline_of(row[3], account, self._losses)

    def _privacy(self, account: Account, rows: list[Any], default: list[Any]) -> None:
        lists: dict[str, list[PrivacyItem]] = {}
        for _, _, _, name, *item in rows:
            items = lists.setdefault(str(name), [])
            if item[0] is not None:
                items.append(privacy_item(tuple(item)))
        name = str(default[0][3]) if default else None
        account.blocks = blocks_of_privacy(lists, name, account.name, self._losses)

    def _vcard(self, account: Account, cards: list[Any], pep: list[Any]) -> None:
        if cards and cards[0][3]:
            account.vcard = tree_of(cards[0][3], "vcard", account, self._losses)
        has_card = account.vcard is not None
        nodes: dict[str, list[Any]] = {}
        for *_, node, item, payload in pep:
            entry = nodes.setdefault(str(node), [])
            if item is None:
                continue
            tree = tree_of(payload, "item", account, self._losses) if payload and not has_card else None
            entry.append((str(item), tree))
        if not has_card:
            trees = {
                node: [(item, tree) for item, tree in items if tree is not None]
                for node, items in nodes.items()
                if node in NODES
            }
            account.vcard = vcard_of_nodes(trees)
        for node, items in nodes.items():
            if has_card or node not in NODES:
                self._losses.add("pep-node", account.name, f"{node}: {len(items)} items")

    # What is left.

    def _tell_tables(self) -> None:
        for table, count in self._dump.counts.items():
            if count:
                self._losses.add(f"table-{table}", "", f"{count} rows", count)
        for name, count in self._dump.rows(self._shared()):
            detail = f"{name}: {count} members, who are in no roster"
            self._losses.add("shared-roster-group", "", detail)

    def _shared(self) -> str:
        """Shared groups, and how many are named as their members."""
        members = "sr_group AS g LEFT JOIN sr_user AS u ON u.grp = g.name"
        return f"SELECT g.name, count(u.grp) FROM {members} GROUP BY g.name ORDER BY g.name"


def _time(text: Any) -> float | None:
    """A moment of SQL, as if it were of UTC."""
    return moment(str(text).replace(" ", "T", 1) + "Z") if text else None
