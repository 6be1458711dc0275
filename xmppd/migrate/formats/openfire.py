"""Openfire's SQL (`ofUser`, `ofRoster` and the rest), of all its databases. It holds one domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

from xmppd.core.roster.subscription import Subscription
from xmppd.migrate.blocks import PrivacyItem, blocks_of_privacy, items_of, number
from xmppd.migrate.formats.ejabberd_rows import offline_of, tree_of
from xmppd.migrate.formats.openfire_password import Passwords
from xmppd.migrate.record import Account, Contact, Unreadable
from xmppd.migrate.source import Options, Reader, SourceError
from xmppd.migrate.sql.base import Dump
from xmppd.migrate.sql.join import Beside, Key, TooMuch, size_of
from xmppd.migrate.sql.text import database, tables_of

TABLES: Final[Mapping[str, Sequence[str]]] = {
    "ofUser": (
        "username",
        "storedKey",
        "serverKey",
        "salt",
        "iterations",
        "plainPassword",
        "encryptedPassword",
        "creationDate",
    ),
    "ofUserScram": ("username", "mechanism", "storedKey", "serverKey", "salt", "iterations"),
    "ofUserFlag": ("username", "name", "endTime"),
    "ofPresence": ("username", "offlinePresence", "offlineDate"),
    "ofRoster": ("rosterID", "username", "jid", "sub", "ask", "recv", "nick", "stanza"),
    "ofRosterGroups": ("rosterID", "rank", "groupName"),
    "ofVCard": ("username", "vcard"),
    "ofPrivate": ("username", "name", "namespace", "privateData"),
    "ofOffline": ("username", "messageID", "creationDate", "stanza"),
    "ofPrivacyList": ("username", "name", "isDefault", "list"),
    "ofProperty": ("name", "propValue"),
    "ofGroupProp": ("groupName", "name", "propValue"),
    "ofGroupUser": ("groupName", "username"),
} | dict.fromkeys(("ofMessageArchive", "ofMucRoom", "ofMucConversationLog", "ofPubsubItem"), ())
"""Tables that are read, and those that are counted."""

SUBSCRIPTIONS: Final[Mapping[int, Subscription]] = {0: "none", 1: "to", 2: "from", 3: "both"}
REMOVED: Final = -1
LONGEST_NICK: Final = 255
"""Letters of `nick`, at which longer names are cut."""

_NAME: Final = "ifnull(CAST(username AS TEXT), '')"
_LATEST: Final = 10**14
_SHARED: Final = ("nobody", "false", "")
"""What `sharedRoster.showInRoster` says of a group that is not shared."""


class _OpenfireSql:
    name: Final = "openfire-sql"
    tables: Final = TABLES

    def recognises(self, path: Path, head: bytes) -> bool:
        """Any table that Openfire alone has."""
        known = {name.lower() for name in TABLES} | {"ofversion", "ofid", "ofconversation"}
        return bool(head) and bool(tables_of(path, head).keys() & known)

    def open(self, path: Path, options: Options) -> Reader:
        """Load the tables into the scratch folder. SourceError."""
        dump = database(path, options.scratch, TABLES, options.losses)
        try:
            return OpenfireReader(dump, options)
        except BaseException:
            dump.close()
            raise


FORMAT: Final = _OpenfireSql()


class OpenfireReader:
    """The accounts of one server, by name."""

    def __init__(self, dump: Dump, options: Options) -> None:
        self._dump, self._losses = dump, options.losses
        if "ofUser" not in dump.present:
            raise SourceError("has no accounts of Openfire (table ofUser)", file=dump.path)
        self._domain = options.domain or self._property("xmpp.domain")
        if not self._domain:
            why = "no table says the domain: there is no property xmpp.domain"
            raise SourceError(why, file=dump.path, hint="name it by --domain")
        self._passwords = Passwords(self._property("passwordKey"), options.losses)
        self.total: int | None = next(dump.rows(f"SELECT count(DISTINCT {_NAME}) FROM ofUser"))[0]

    def close(self) -> None:
        """Let go of the database."""
        self._dump.close()

    def __iter__(self) -> Iterator[Account | Unreadable]:
        """Each account once, by name."""
        self._tell_rest()
        beside = {name: self._beside(name, sql) for name, sql in self._queries().items()}
        columns = "storedKey, serverKey, salt, iterations, plainPassword, encryptedPassword, creationDate"
        users = self._dump.rows(f"SELECT {_NAME}, {columns} FROM ofUser ORDER BY 1, {columns}")
        for local, rows in groupby(users, key=lambda row: row[0]):
            found = list(islice(rows, 2))
            if len(found) > 1:
                self._losses.add(
                    "duplicate-account", f"{local}@{self._domain}", "the first row of ofUser counts"
                )
            yield self._account(str(local), found[0][1:], beside)
        for table in beside.values():
            table.end()

    def _property(self, name: str) -> str:
        rows = self._dump.rows("SELECT propValue FROM ofProperty WHERE name = ? LIMIT 1", name)
        return next((str(value or "") for (value,) in rows), "")

    def _queries(self) -> dict[str, str]:
        scram = "mechanism, storedKey, serverKey, salt, iterations"
        roster = "rosterID, jid, sub, ask, recv, nick, stanza"
        groups = "ofRosterGroups AS g JOIN ofRoster AS r ON g.rosterID = r.rosterID"
        return {
            "ofUserScram": self._select("ofUserScram", scram, scram),
            "ofUserFlag": self._select("ofUserFlag", "name, endTime", "name"),
            "ofPresence": self._select("ofPresence", "offlinePresence, offlineDate", "offlineDate"),
            "ofRoster": self._select("ofRoster", roster, "CAST(rosterID AS INTEGER)"),
            "ofRosterGroups": self._select(
                groups,
                "g.rosterID, groupName",
                "CAST(g.rosterID AS INTEGER), CAST(rank AS INTEGER), groupName",
            ),
            "ofVCard": self._select("ofVCard", "vcard", "vcard"),
            "ofPrivate": self._select("ofPrivate", "privateData", "namespace, name"),
            "ofOffline": self._select(
                "ofOffline",
                "stanza, creationDate",
                "CAST(creationDate AS INTEGER), CAST(messageID AS INTEGER)",
            ),
            "ofPrivacyList": self._select("ofPrivacyList", "name, isDefault, list", "name"),
        }

    def _select(self, source: str, columns: str, order: str) -> str:
        domain = "'" + self._domain.replace("'", "''") + "'"
        size = size_of(columns.split(", "))
        return f"SELECT {domain}, {_NAME}, {size}, {columns} FROM {source} ORDER BY 1, 2, {order}"

    def _beside(self, table: str, sql: str) -> Beside:
        def orphans(owner: str, count: int) -> None:
            self._losses.add("orphan", owner, f"{table}: {count} rows", count)

        return Beside(self._dump.rows(sql), orphans)

    def _account(self, local: str, user: Sequence[Any], beside: Mapping[str, Beside]) -> Account | Unreadable:
        account = Account(local, self._domain, f"{self._dump.path.name}: ofUser")
        key: Key = (self._domain, local)
        try:
            found = {name: table.of(key) for name, table in beside.items()}
        except TooMuch as error:
            return Unreadable(account.name, str(error), account.where)
        if not local:
            return Unreadable(account.name, "an account without a name", account.where)
        *password, created = user
        self._passwords.take(account, password, [row[3:] for row in found["ofUserScram"]])
        account.created = moment_of(created)
        for *_, name, end in found["ofUserFlag"]:
            account.disabled = account.disabled or (name == "lockout" and not end)
        for *_, presence, at in found["ofPresence"][:1]:
            account.last = moment_of(at)
            if presence and (tree := tree_of(presence, "presence", account, self._losses)) is not None:
                account.last_status = tree.findtext("{*}status") or ""
        self._roster(account, found["ofRoster"], found["ofRosterGroups"])
        for *_, stanza, created in found["ofOffline"]:
            offline_of(stanza, account, self._losses, moment_of(created))
        for *_, card in found["ofVCard"][:1]:
            account.vcard = tree_of(card, "vcard", account, self._losses)
        for *_, data in found["ofPrivate"]:
            if (tree := tree_of(data, "private", account, self._losses)) is not None:
                account.private.append(tree)
        self._privacy(account, found["ofPrivacyList"])
        return account

    def _roster(self, account: Account, rows: list[Any], groups: list[Any]) -> None:
        contacts: dict[Any, Contact] = {}
        for _, _, _, number_, jid, sub, ask, recv, nick, stanza in rows:
            if number(sub) == REMOVED:
                self._losses.add("removed-contact", account.name, str(jid))
                continue
            contact = contacts[number_] = self._contact(account, str(jid or ""), sub, ask, recv, nick)
            if contact.pending and stanza:
                contact.request = tree_of(stanza, "request", account, self._losses)
            account.roster.append(contact)
        for _, _, _, number_, group in groups:
            known = contacts.get(number_)
            if known is not None and group and str(group) not in known.groups:
                known.groups.append(str(group))
        for contact in account.roster:
            if contact.pending and contact.subscription == "none" and not contact.ask:
                contact.listed = contact.name is not None or bool(contact.groups)

    def _contact(self, account: Account, jid: str, sub: Any, ask: Any, recv: Any, nick: Any) -> Contact:
        subscription = SUBSCRIPTIONS.get(number(sub)) if sub is not None else None
        if subscription is None:
            self._losses.add("unknown-subscription", account.name, f"{jid}: taken as none")
        name = None if nick is None else str(nick)
        if name is not None and len(name) >= LONGEST_NICK:
            self._losses.add("cut-name", account.name, f"{jid}: Openfire keeps {LONGEST_NICK} letters")
        is_asking = ask is not None and number(ask) == 0
        return Contact(jid, subscription or "none", is_asking, number(recv) == 1, name=name)

    def _privacy(self, account: Account, rows: list[Any]) -> None:
        lists: dict[str, list[PrivacyItem]] = {}
        default = None
        for *_, name, is_default, text in rows:
            tree = tree_of(text, "privacy", account, self._losses)
            if tree is not None:
                lists[str(name)] = items_of(tree)
                default = str(name) if str(is_default).lower() in ("1", "t", "true") else default
        account.blocks = blocks_of_privacy(lists, default, account.name, self._losses)

    def _tell_rest(self) -> None:
        """Shared groups, groups of nobody, and tables that are not taken over."""
        for table, count in self._dump.counts.items():
            if count:
                self._losses.add(f"table-{table}", "", f"{count} rows", count)
        sql = "SELECT count(*) FROM ofRosterGroups WHERE rosterID NOT IN (SELECT rosterID FROM ofRoster)"
        if count := next(self._dump.rows(sql))[0]:
            self._losses.add("orphan-group", "", f"{count} rows of ofRosterGroups", count)
        members = "SELECT groupName, count(*) AS members FROM ofGroupUser GROUP BY groupName"
        sql = (
            "SELECT p.groupName, p.propValue, ifnull(m.members, 0) FROM ofGroupProp AS p"
            f" LEFT JOIN ({members}) AS m ON m.groupName = p.groupName"
            " WHERE p.name = 'sharedRoster.showInRoster' ORDER BY p.groupName"
        )
        for name, shown, count in self._dump.rows(sql):
            if str(shown or "").lower() not in _SHARED:
                detail = f"{name}: {count} members, who are in no roster"
                self._losses.add("shared-roster-group", "", detail)


def moment_of(text: Any) -> float | None:
    """Milliseconds since the epoch, as 15 digits."""
    digits = str(text or "").strip()
    return int(digits) / 1000 if digits.isdecimal() and 0 < int(digits[:20]) < _LATEST else None
