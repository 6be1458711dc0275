"""SQL storage of Prosody."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from truth import SAMPLES, differences, unexplained

from xmppd.migrate.formats import prosody_sql
from xmppd.migrate.formats.prosody_sql import FORMAT
from xmppd.migrate.prosody import lua
from xmppd.migrate.prosody.lua import Flag, Table
from xmppd.migrate.prosody.stanza import Xml
from xmppd.migrate.prosody.values import BadValue, value_of
from xmppd.migrate.record import Account, Contact, Losses, Unreadable
from xmppd.migrate.source import HEAD, LONGEST_VALUE, Options, SourceError
from xmppd.xml.build import serialize

SAMPLE = SAMPLES / "prosody-0.12.3" / "sqlite-sha256"
HOST = "a.example"
KEYED = """CREATE TABLE prosody (
    host TEXT NOT NULL, "user" TEXT NOT NULL, store TEXT NOT NULL, "key" TEXT NOT NULL, type TEXT NOT NULL,
    value TEXT NOT NULL)"""
ARCHIVE = """CREATE TABLE prosodyarchive (
    sort_id INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT NOT NULL, "user" TEXT NOT NULL, store TEXT NOT NULL,
    "key" TEXT NOT NULL, "when" INTEGER NOT NULL, "with" TEXT NOT NULL, type TEXT NOT NULL,
    value TEXT NOT NULL)"""


class Database:
    """A database of Prosody, and what is read from it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.losses = Losses()
        self.run(KEYED)
        self.run(ARCHIVE)

    def run(self, sql: str, *values: Any) -> Database:
        with closing(sqlite3.connect(self.place)) as database:
            database.execute(sql, values)
            database.commit()
        return self

    def put(
        self, user: Any, store: str, key: str, value: Any, kind: str = "json", host: Any = HOST
    ) -> Database:
        if kind == "json" and not isinstance(value, str):
            value = json.dumps(value)
        return self.run("INSERT INTO prosody VALUES (?, ?, ?, ?, ?, ?)", host, user, store, key, kind, value)

    def account(self, user: Any, host: Any = HOST) -> Database:
        return self.put(user, "accounts", "password", "secret", "string", host)

    def archive(
        self, user: Any, store: str, value: str, when: Any = 5, kind: str = "xml", sort: Any = None
    ) -> Database:
        sql = "INSERT INTO prosodyarchive VALUES (?, ?, ?, ?, hex(randomblob(8)), ?, '', ?, ?)"
        return self.run(sql, sort, HOST, user, store, when, kind, value)

    def read(self) -> list[Account | Unreadable]:
        self.losses = Losses()
        reader = FORMAT.open(self.place, Options(losses=self.losses, scratch=self.place.parent))
        try:
            return list(reader)
        finally:
            reader.close()

    def one(self) -> Account:
        (account,) = self.read()
        assert isinstance(account, Account)
        return account

    def lost(self) -> dict[str, int]:
        return dict(self.losses.summary())


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(tmp_path / "prosody.sqlite")


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    place = tmp_path / "prosody.sqlite"
    with closing(sqlite3.connect(place)) as database:
        database.executescript((SAMPLE / "prosody.sql").read_text(encoding="utf-8"))
    return place


BLOCKED = {
    "account": "kira@chat.example",
    "what": "blocked",
    "expected": [],
    "found": ["tybalt@remote.example"],
}
"""What the default privacy list of one account denies altogether."""


def test_the_sample_is_its_truth(sample: Path) -> None:
    losses = Losses()
    reader = FORMAT.open(sample, Options(losses=losses))
    assert unexplained(differences(reader), SAMPLE / "differences.jsonl") == [BLOCKED]
    assert reader.total == 60
    assert losses.summary() == {"pep-configuration": 1, "pep-node": 3, "privacy-list": 4}
    names = [account.name for account in FORMAT.open(sample, Options())]
    assert names == sorted(names, key=lambda name: name.split("@")[::-1])


def test_the_dump_is_its_truth_too(tmp_path: Path, sample: Path) -> None:
    place = SAMPLE / "prosody.sql"
    assert FORMAT.recognises(place, head(place))
    losses = Losses()
    reader = FORMAT.open(place, Options(scratch=tmp_path, losses=losses))
    accounts = list(reader)
    assert unexplained(differences(accounts), SAMPLE / "differences.jsonl") == [BLOCKED]
    assert losses.summary() == {"pep-configuration": 1, "pep-node": 3, "privacy-list": 4}
    assert [account.name for account in accounts] == [
        account.name for account in FORMAT.open(sample, Options())
    ]


def test_numbers_of_copy_are_text_and_sorted_as_numbers(tmp_path: Path) -> None:
    place = tmp_path / "dump.sql"
    rows = "".join(
        f"{number}\t{HOST}\tu\toffline\tk{number}\t5\t\txml\t<message id='{number}'/>\n"
        for number in (10, 9, 100)
    )
    place.write_text(
        f'COPY public.prosody (host, "user", store, key, type, value) FROM stdin;\n'
        f"{HOST}\tu\taccounts\tpassword\tstring\tback\\\\slash\n\\.\n"
        'COPY public.prosodyarchive (sort_id, host, "user", store, key, "when", "with", type, value) '
        "FROM stdin;\n"
        f"{rows}\\.\n"
    )
    assert FORMAT.recognises(place, head(place))
    (account,) = FORMAT.open(place, Options(scratch=tmp_path))
    assert isinstance(account, Account)
    assert account.password == "back\\slash"
    assert [(waiting.message.get("id"), waiting.at) for waiting in account.offline] == [
        ("9", 5),
        ("10", 5),
        ("100", 5),
    ]


def test_other_dumps_are_not_recognised(tmp_path: Path) -> None:
    place = tmp_path / "dump.sql"
    for text in ("", "CREATE TABLE users (username text);", "CREATE TABLE prosody (id integer, bones text);"):
        place.write_text(text)
        assert not FORMAT.recognises(place, head(place))
    with pytest.raises(SourceError, match="the table of Prosody is not in it"):
        FORMAT.open(place, Options(scratch=tmp_path))


def test_a_value_that_is_too_long_costs_what_is_in_it(db: Database) -> None:
    db.account("a").put("a", "roster", "x@y", "x" * (LONGEST_VALUE + 1), "string").account("b")
    a, b = db.read()
    assert isinstance(a, Account) and isinstance(b, Account)
    assert db.lost() == {"unreadable-value": 1}


def test_the_file_is_only_read(sample: Path) -> None:
    before = sample.read_bytes()
    reader = FORMAT.open(sample, Options())
    assert len(list(reader)) == 60
    assert [place.name for place in sample.parent.iterdir()] == [sample.name]
    reader.close()
    reader.close()
    assert sample.read_bytes() == before


def head(place: Path) -> bytes:
    with place.open("rb") as file:
        return file.read(HEAD)


def test_what_is_recognised(db: Database, tmp_path: Path) -> None:
    assert FORMAT.recognises(db.place, head(db.place))
    assert FORMAT.recognises(tmp_path, b"")  # the data folder
    db.run("DROP TABLE prosody")
    assert not FORMAT.recognises(db.place, head(db.place))
    other = tmp_path / "other"
    other.mkdir()
    assert not FORMAT.recognises(other, b"")
    (other / "prosody.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    assert not FORMAT.recognises(other, b"")


def test_a_spoilt_file_is_one_sentence(db: Database) -> None:
    for number in range(300):
        db.account(f"u{number}")
    data = db.place.read_bytes()
    db.place.write_bytes(data[:8192] + b"\xff" * (len(data) - 8192))
    with pytest.raises(SourceError, match=r"prosody\.sqlite: cannot be read"):
        db.read()


def test_rows_are_in_no_order(db: Database) -> None:
    db.put("b", "roster", "x@y", {"subscription": "to"}).account("a").account("c").account("a", "b.example")
    db.archive("c", "offline", "<message id='2'/>", sort=12).account("b")
    db.archive("b", "offline", "<message id='1'/>", sort=2).archive(
        "c", "offline", "<message id='1'/>", sort=9
    )
    accounts = db.read()
    assert [account.name for account in accounts] == [
        "a@a.example",
        "b@a.example",
        "c@a.example",
        "a@b.example",
    ]
    _, b, c, _ = accounts
    assert isinstance(b, Account) and isinstance(c, Account)
    assert b.roster == [Contact("x@y", "to")]
    assert [waiting.message.get("id") for waiting in b.offline] == ["1"]
    assert [waiting.message.get("id") for waiting in c.offline] == ["1", "2"]
    assert b.offline[0].at == 5
    assert serialize(b.offline[0].message) == b"<message id='1'/>"


def test_there_may_be_no_archive(db: Database) -> None:
    db.account("u").run("DROP TABLE prosodyarchive")
    assert db.one().password == "secret"


def test_offline_messages_of_old_versions(db: Database) -> None:
    message = {"name": "message", "attr": {"stamp": "1970-01-01T00:00:07Z"}, "__array": []}
    db.account("u").put("u", "offline", "", [message, 5])
    account = db.one()
    assert [(waiting.at, waiting.message.attrib) for waiting in account.offline] == [(7, {})]
    assert db.lost() == {"unreadable-item": 1}


def test_what_has_no_key_of_text(db: Database) -> None:
    request = {"name": "presence", "attr": {"type": "subscribe"}}
    db.account("u").put("u", "roster", "", {"__hash": [False, {"version": 5, "pending": {"s@b": request}}]})
    db.put("u", "roster", "f@b", {"groups": {"__hash": ["__hash", True], "A": True}, "subscription": "both"})
    listed, asked = db.one().roster
    assert listed == Contact("f@b", "both", groups=["A", "__hash"])
    assert (asked.jid, asked.pending, asked.listed) == ("s@b", True, False)


def test_a_vcard_is_three_rows(db: Database) -> None:
    db.account("u").put("u", "vcard", "name", "vCard", "string").put(
        "u", "vcard", "attr", {"xmlns": "vcard-temp"}
    )
    db.put("u", "vcard", "", [{"name": "FN", "attr": {"xmlns": "vcard-temp"}, "__array": ["U"]}])
    vcard = db.one().vcard
    assert vcard is not None
    assert serialize(vcard) == b"<vCard xmlns='vcard-temp'><FN>U</FN></vCard>"


def test_private_elements_may_be_xml(db: Database) -> None:
    db.account("u").put("u", "private", "a:urn:x", "<a xmlns='urn:x'><b/></a>", "xml")
    (tree,) = db.one().private
    assert serialize(tree) == b"<a xmlns='urn:x'><b/></a>"


def test_a_bad_row_costs_what_is_in_it(db: Database) -> None:
    db.account("u").put("u", "roster", "a@b", "{", "json").put("u", "roster", "c@d", {}).put(
        "u", "roster", "", 5
    )
    db.put("u", "blocklist", "e@f", "soon", "number").put("u", "private", "x:y", "z", "blob")
    db.archive("u", "offline", "<message>").archive("u", "offline", "{", kind="json")
    account = db.one()
    assert account.roster == [Contact("c@d")] and not account.offline
    assert db.lost() == {"unreadable-item": 2, "unreadable-value": 4}


def test_a_bad_row_of_an_account_costs_the_account(db: Database) -> None:
    db.account("a").put("b", "accounts", "iteration_count", "many", "number").account("c")
    first, bad, last = db.read()
    assert isinstance(first, Account) and isinstance(last, Account)
    assert isinstance(bad, Unreadable)
    assert (bad.name, bad.why) == ("b@a.example", "accounts, iteration_count: no number")


def test_rows_of_one_account_are_bounded(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prosody_sql, "MOST_ROWS", 3)
    db.account("a").account("b").account("c")
    for number in range(3):
        db.put("b", "roster", f"{number}@b", {})
    db.archive("c", "offline", "<message/>")
    for _ in range(4):
        db.archive("a", "offline", "<message/>")
    a, bad, c = db.read()
    assert isinstance(bad, Unreadable) and "more than 3 rows" in bad.why
    assert isinstance(a, Account) and a.offline == []
    assert isinstance(c, Account) and len(c.offline) == 1
    assert db.lost() == {"unreadable-store": 4}


def test_letters_of_one_account_are_bounded(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prosody_sql, "LONGEST_TABLE", 50)
    db.account("a").put("a", "roster", "x@y", {"name": "x" * 50}).account("b")
    bad, b = db.read()
    assert isinstance(bad, Unreadable) and isinstance(b, Account)


def test_names_that_are_no_utf8(db: Database) -> None:
    raw = "INSERT INTO prosody VALUES (?, CAST(? AS TEXT), 'accounts', 'password', 'string', 'x')"
    db.account("a").run(raw, HOST, b"z\xff").account("\uffff").account("\U00010000")
    db.archive("\U00010000", "offline", "<message/>").archive("\uffff", "offline", "<message/>")
    found = {account.name: account for account in db.read()}
    assert len(found) == 4
    bad = next(account for account in found.values() if isinstance(account, Unreadable))
    assert bad.why == "the name is not UTF-8"
    for name in ("\uffff@a.example", "\U00010000@a.example"):
        account = found[name]
        assert isinstance(account, Account) and len(account.offline) == 1


def test_another_encoding_is_said(db: Database) -> None:
    db.place.unlink()
    with closing(sqlite3.connect(db.place)) as database:
        database.execute("PRAGMA encoding = 'UTF-16le'")
        database.execute(KEYED)
    with pytest.raises(SourceError, match="texts are in UTF-16le"):
        db.read()


def test_what_else_there_is_is_counted(db: Database) -> None:
    db.account("u").put("u", "pep", "n", {}).put("u", "cron", "x", 1).put("", "cron", "x", 1).put(
        "v", "roster", "", {}
    )
    db.put("room", "config", "x", 1, host="rooms.example").put(
        "x", "vcard", "name", "v", host="rooms.example"
    )
    db.archive("u", "pep_n", "<n/>").archive("u", "archive", "<message/>").archive(
        "u", "archive", "<message/>"
    )
    db.archive("", "muc_log", "<message/>").archive("v", "offline", "<message/>")
    assert db.one().offline == []
    assert db.lost() == {
        "host-data": 2,
        "host-without-accounts": 1,
        "orphan": 2,
        "pep-configuration": 1,
        "pep-node": 1,
        "store-archive": 1,
        "store-cron": 1,
    }
    assert db.losses.kinds["host-without-accounts"].samples == [("", "rooms.example: config, vcard")]


# Values.

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(("__array", "__hash"))
numbers = st.integers(-(2**53) + 1, 2**53 - 1)
keys = st.one_of(texts, numbers, st.sampled_from(Flag))
tables: st.SearchStrategy[Table] = st.deferred(
    lambda: (
        st.dictionaries(keys, values, max_size=5)
        | st.lists(values, max_size=4).map(lambda found: dict(enumerate(found, 1)))
    )
)
values = st.one_of(texts, numbers, st.booleans(), tables)


def kept(value: Any) -> Any:
    """As util.json of Prosody has it."""
    if not isinstance(value, dict):
        return value
    listed: list[Any] = []
    while len(listed) + 1 in {key for key in value if type(key) is int}:
        listed.append(kept(value[len(listed) + 1]))
    out: dict[str, Any] = {}
    pairs: list[Any] = []
    for key, inner in value.items():
        if isinstance(key, str) and key not in ("__array", "__hash"):
            out[key] = kept(inner)
        elif not (type(key) is int and 1 <= key <= len(listed)):
            pairs += [key is Flag.TRUE if isinstance(key, Flag) else key, kept(inner)]
    if not out and not pairs and listed:
        return listed
    return {**out, **({"__hash": pairs} if pairs else {}), **({"__array": listed} if listed else {})}


def typed(value: Any) -> Any:
    if isinstance(value, dict):
        return {(type(key), key): typed(inner) for key, inner in value.items()}
    return type(value), value


@given(tables)
def test_tables_are_read_back(table: Table) -> None:
    assert typed(value_of("json", json.dumps(kept(table)))) == typed(table)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("string", "", ""),
        ("number", "5", 5),
        ("number", "10000.0", 10000),
        ("number", "1.5e3", 1500),
        ("number", "0.5", 0.5),
        ("boolean", "true", True),
        ("boolean", "false", False),
        ("xml", "<a/>", Xml("<a/>")),
        ("json", "[]", {}),
        ("json", '{"a":null,"__array":["x",null,"y"]}', {1: "x", 3: "y"}),
        ("json", '{"__hash":[1]}', {}),
        ("json", '"\\ud83c\\udfb2"', "\U0001f3b2"),
        ("json", '{"urn:x\\u0001a":"1"}', {"urn:x\x01a": "1"}),
    ],
)
def test_values(kind: str, text: str, expected: Any) -> None:
    assert typed(value_of(kind, text)) == typed(expected)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("number", "x"),
        ("number", "nan"),
        ("number", "1e999"),
        ("boolean", "yes"),
        ("blob", "x"),
        ("json", ""),
        ("json", "null"),
        ("json", "{'a':1}"),
        ("json", "NaN"),
        ("json", "1" * 5000),
        ("json", '{"__array":5}'),
        ("json", '{"__hash":{}}'),
        ("json", '{"__hash":[[],1]}'),
        ("json", "[" * (lua.DEEPEST + 1) + "]" * (lua.DEEPEST + 1)),
        ("json", '{"a":' * (lua.DEEPEST + 1) + "1" + "}" * (lua.DEEPEST + 1)),
        ("json", "[" * 1_000_000),
    ],
)
def test_values_that_are_none(kind: str, text: str) -> None:
    with pytest.raises(BadValue):
        value_of(kind, text)
