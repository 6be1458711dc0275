"""ejabberd's SQL: real exports against what was filled in, and each rule of its tables."""

import base64
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from truth import SAMPLES, differences, unexplained

from xmppd.migrate.formats import FORMATS
from xmppd.migrate.formats.ejabberd_sql import FORMAT
from xmppd.migrate.record import Account, Losses, Unreadable
from xmppd.migrate.source import Options, SourceError, head_of
from xmppd.migrate.sql import join as sqljoin

EJABBERD = SAMPLES / "ejabberd-23.01"
MENDED = {
    "account": "kira@chat.example",
    "what": "blocked",
    "expected": [],
    "found": ["tybalt@remote.example"],
}
"""The one item of kira's default list that is a block."""


def read(
    path: Path, scratch: Path, domain: str = "", losses: Losses | None = None
) -> list[Account | Unreadable]:
    reader = FORMAT.open(path, Options(domain=domain, scratch=scratch, losses=losses or Losses()))
    with closing(reader):
        found = list(reader)
        assert reader.total == len(found)
    return found


def accounts(tmp_path: Path, sql: str, domain: str = "", losses: Losses | None = None) -> dict[str, Account]:
    path = tmp_path / "x.sql"
    path.write_text(sql)
    found = read(path, tmp_path, domain, losses)
    assert not [account for account in found if isinstance(account, Unreadable)]
    return {account.local: account for account in found if isinstance(account, Account)}


@pytest.mark.parametrize(
    ("folder", "domains"),
    [
        ("mariadb-old-schema-plain/sql", ("chat.example", "games.example")),
        ("sqlite-old-schema-sha256/sql", ("chat.example", "games.example")),
        ("mnesia-sha1/export2sql", ("chat.example", "games.example")),
        ("postgresql-new-schema-sha512/sql", ("pg_dump",)),
    ],
)
def test_exports_read_to_their_truth(tmp_path: Path, folder: str, domains: tuple[str, ...]) -> None:
    found: list[Account | Unreadable] = []
    losses = Losses()
    for domain in domains:
        path = EJABBERD / folder / f"{domain}.sql"
        found += read(path, tmp_path, "" if domain == "pg_dump" else domain, losses)
    rest = unexplained(differences(found), EJABBERD / folder / "differences.jsonl")
    assert rest == [MENDED]
    kinds = dict(losses.summary())
    kinds.pop("orphan", None)
    assert kinds == {"pep-node": 4, "privacy-list": 4, "shared-roster-group": 1}
    assert losses.kinds["shared-roster-group"].samples == [("", "staff: 3 members, who are in no roster")]


def test_three_tables_are_enough(tmp_path: Path) -> None:
    path = EJABBERD / "postgresql-new-schema-sha512/sql/pg_dump-inserts-3-tables.sql"
    rest = unexplained(differences(read(path, tmp_path)), path.parent / "differences.jsonl")
    assert {row["what"] for row in rest} == {"private", "vcard", "offline"}


def test_an_sqlite_file_of_the_dump_reads_alike(tmp_path: Path) -> None:
    dump = EJABBERD / "sqlite-old-schema-sha256/sql/chat.example.sql"
    path = tmp_path / "chat.sqlite"
    with closing(sqlite3.connect(path)) as made:
        made.executescript(dump.read_text())
    found, same = Losses(), Losses()
    assert (
        repr(read(path, tmp_path, "chat.example", found)).replace(path.name, dump.name).count("Contact(")
        == 629
    )
    assert differences(read(path, tmp_path, "chat.example")) == differences(
        read(dump, tmp_path, "chat.example")
    )
    read(dump, tmp_path, "chat.example", same)
    assert found.summary() == same.summary()


@pytest.mark.parametrize(
    "path", sorted(EJABBERD.glob("*/*/*.sql")), ids=lambda path: "/".join(path.parts[-3:])
)
def test_exports_are_recognised(path: Path) -> None:
    assert [form.name for form in FORMATS if form.recognises(path, head_of(path))] == ["ejabberd-sql"]


def test_other_sql_is_not_recognised(tmp_path: Path) -> None:
    for text in ("CREATE TABLE prosody (host);", "INSERT INTO ofRoster (a) VALUES (1);", "hello", ""):
        assert not FORMAT.recognises(tmp_path / "x.sql", text.encode())
    mim = b"CREATE TABLE users (username text, server text, password text, pass_details text);"
    assert not FORMAT.recognises(tmp_path / "x.sql", mim + b"CREATE TABLE rosterusers (server text);")
    assert not FORMAT.recognises(tmp_path, b"")


# Domains.

OLD = "INSERT INTO users (username, password) VALUES ('anna', 'secret');\n"


def test_the_old_schema_needs_a_domain(tmp_path: Path) -> None:
    path = tmp_path / "chat.example.sql.gz"
    path.write_text(OLD)
    with pytest.raises(
        SourceError, match=r"do not say the domain; name it by --domain, perhaps chat\.example"
    ):
        FORMAT.open(path, Options(scratch=tmp_path))
    assert accounts(tmp_path, OLD, "o'hara.example")["anna"].domain == "o'hara.example"


def test_the_new_schema_says_the_domain_of_each_row(tmp_path: Path) -> None:
    sql = (
        "INSERT INTO users (username, server_host, password) VALUES"
        " ('b', 'x', '1'), ('a', 'y', '2'), ('a', 'x', '3');"
        "INSERT INTO rosterusers (username, server_host, jid, nick, subscription, ask, askmessage)"
        " VALUES ('a', 'y', 'c@y', '', 'B', 'N', ''), ('a', 'x', 'd@x', '', 'B', 'N', '');"
    )
    path = tmp_path / "x.sql"
    path.write_text(sql)
    found = read(path, tmp_path, "z.example")
    assert [(account.name, [contact.jid for contact in account.roster]) for account in found] == [
        ("a@x", ["d@x"]),
        ("b@x", []),
        ("a@y", ["c@y"]),
    ]


# Passwords.

SHA1, SHA256, SHA512 = (base64.b64encode(b"\xfe" * size).decode() for size in (20, 32, 64))


@pytest.mark.parametrize(
    ("row", "password", "hashes"),
    [
        ("(0, 'secret', '', '', 0)", "secret", []),
        ("(1, 'secret', '', '', 0)", "secret", []),
        ("(1, 'sha256:x', 'y', 'z', 4096)", "sha256:x", []),
        (f"(0, '{SHA1}', '{SHA1}', 'c2FsdA==', 4096)", None, ["sha1"]),
        (f"(0, 'sha256:{SHA256}', '{SHA256}', 'c2FsdA==', '4096')", None, ["sha256"]),
        (f"(NULL, 'sha512:{SHA512}', '{SHA512}', 'c2FsdA==', 4096)", None, ["sha512"]),
        (f"(2, '{SHA1}', '{SHA1}', 'c2FsdA==', 4096)", None, ["sha1"]),
        (
            f"(4, '{SHA512}', '{SHA512}', 'c2FsdA==', 4096), (3, '{SHA256}', '{SHA256}', 'c2FsdA==', 4096)",
            None,
            ["sha256", "sha512"],
        ),
        (f"(3, '{SHA256}', '{SHA256}', 'c2FsdA==', 1), (1, 'plain', '', '', 0)", "plain", ["sha256"]),
        ("(0, '', '', '', 0)", None, []),
    ],
)
def test_passwords_of_all_ages(tmp_path: Path, row: str, password: str | None, hashes: list[str]) -> None:
    rows = row.replace("(", "('anna', ")
    sql = f"INSERT INTO users (username, type, password, serverkey, salt, iterationcount) VALUES {rows};"
    losses = Losses()
    account = accounts(tmp_path, sql, "x", losses)["anna"]
    assert (account.password, list(account.keys)) == (password, hashes)
    assert all(keys.salt == b"salt" for keys in account.keys.values())
    assert losses.summary() == {}


@pytest.mark.parametrize(
    "row", ["'x', 'y', 'c2E=', 4096", f"'{SHA1}', '{SHA256}', 'c2E=', 1", f"'{SHA1}', '', '', 1"]
)
def test_keys_that_are_none_are_told_without_them(tmp_path: Path, row: str) -> None:
    losses = Losses()
    sql = f"INSERT INTO users (username, password, serverkey, salt, iterationcount) VALUES ('anna', {row});"
    account = accounts(tmp_path, sql, "x", losses)["anna"]
    assert (account.password, account.keys) == (None, {})
    assert losses.kinds["unusable-keys"].samples[0][0] == "anna@x"
    assert SHA1 not in str(losses.kinds["unusable-keys"].samples)


# Rosters.


def roster(tmp_path: Path, rows: str, more: str = "", losses: Losses | None = None) -> list[Any]:
    sql = (
        OLD + "INSERT INTO rosterusers (username, jid, nick, subscription, ask, askmessage, approved)"
        f" VALUES {rows};\n{more}"
    )
    return accounts(tmp_path, sql, "x", losses)["anna"].roster


@pytest.mark.parametrize(
    ("ask", "asking", "pending"),
    [
        ("N", False, False),
        ("O", True, False),
        ("I", False, True),
        ("B", True, True),
        ("S", True, False),
        ("U", False, False),
        (" o ", True, False),
    ],
)
@pytest.mark.parametrize(
    ("letter", "subscription"), [("N", "none"), ("T", "to"), ("F", "from"), ("B", "both"), ("b ", "both")]
)
def test_letters(
    tmp_path: Path, ask: str, asking: bool, pending: bool, letter: str, subscription: str
) -> None:
    (contact,) = roster(tmp_path, f"('anna', 'bob@x', 'Bob', '{letter}', '{ask}', 'please', 0)")
    assert (contact.subscription, contact.ask, contact.pending) == (subscription, asking, pending)
    assert (contact.request is not None) == pending
    assert contact.listed
    assert contact.name == "Bob"


def test_letters_that_nobody_knows_are_told(tmp_path: Path) -> None:
    losses = Losses()
    (contact,) = roster(tmp_path, "('anna', 'bob@x', NULL, 'X', '?', '', NULL)", losses=losses)
    assert (contact.subscription, contact.ask, contact.pending, contact.name) == ("none", False, False, None)
    assert losses.summary() == {"unknown-subscription": 1, "unknown-ask": 1}


def test_who_only_asks_is_not_listed(tmp_path: Path) -> None:
    rows = (
        "('anna', 'a@x', '', 'N', 'I', 'let me\n in', 'f'), ('anna', 'b@x', '', 'N', 'I', '', 't'),"
        "('anna', 'c@x', 'C', 'N', 'I', '', 1),"
        "('anna', 'd@x', '', 'N', 'B', '', 0), ('anna', 'e@x', '', 'T', 'I', '', 0)"
    )
    groups = "INSERT INTO rostergroups (username, jid, grp) VALUES ('anna', 'b@x', 'Friends');"
    found = roster(tmp_path, rows, groups)
    assert [contact.listed for contact in found] == [False, True, True, True, True]
    assert [contact.approved for contact in found] == [False, True, True, False, False]
    assert [contact.request is None for contact in found] == [False, True, True, True, True]
    assert found[0].request.get("from") == "a@x"
    assert found[0].request.findtext("{jabber:client}status") == "let me\n in"
    assert found[1].groups == ["Friends"]


def test_orphans_and_duplicates_are_counted(tmp_path: Path) -> None:
    losses = Losses()
    rows = (
        "('anna', 'a@x', '1', 'B', 'N', '', 0), ('anna', 'a@x', '2', 'T', 'N', '', 0),"
        "('aaron', 'a@x', '', 'B', 'N', '', 0),"
        "('zoe', 'a@x', '', 'B', 'N', '', 0), ('zoe', 'b@x', '', 'B', 'N', '', 0)"
    )
    groups = (
        "INSERT INTO rostergroups (username, jid, grp) VALUES ('anna', 'a@x', 'F'), ('anna', 'a@x', 'F'),"
        " ('anna', 'gone@x', 'F'), ('zoe', 'b@x', 'F'), ('anna', 'a@x', '');"
    )
    found = roster(tmp_path, rows, groups, losses)
    assert [(contact.subscription, contact.groups) for contact in found] == [("both", ["F"]), ("to", ["F"])]
    assert losses.summary() == {"duplicate-contact": 1, "duplicate-group": 2, "orphan-group": 1, "orphan": 4}
    assert ("zoe@x", "rosterusers: 2 rows") in losses.kinds["orphan"].samples


def test_rosters_without_accounts_are_those_of_an_external_service(tmp_path: Path) -> None:
    losses = Losses()
    sql = (
        "INSERT INTO rosterusers (username, jid, nick, subscription, ask, askmessage)"
        " VALUES ('zoe', 'a@x', '', 'B', 'N', ''), ('anna', 'a@x', '', 'B', 'N', '');"
    )
    found = accounts(tmp_path, sql, "x", losses)
    assert list(found) == ["anna", "zoe"]
    assert losses.summary() == {"external-account": 2}


# The rest.


def test_messages_come_by_their_number_with_their_moment(tmp_path: Path) -> None:
    def message(number: int, domain: str) -> str:
        delay = f"<delay xmlns=''urn:xmpp:delay'' from=''{domain}'' stamp=''2024-05-06T07:08:0{number}Z''/>"
        return f"<message><body>{number}</body>{delay}</message>"

    losses = Losses()
    sql = OLD + (
        "INSERT INTO spool (username, xml, seq) VALUES"
        f"('anna', '{message(2, 'x')}', '10'), ('anna', '{message(1, 'x')}', '9'),"
        f"('anna', '{message(3, 'y')}', '11'),"
        "('anna', '<message', '12'), ('anna', '<iq/>', '13'), ('anna', NULL, '14');"
    )
    found = accounts(tmp_path, sql, "x", losses)["anna"].offline
    assert [(offline.message.findtext("{jabber:client}body"), offline.at) for offline in found] == [
        ("1", 1714979281.0),
        ("2", 1714979282.0),
        ("3", None),
    ]
    assert [len(offline.message) for offline in found] == [1, 1, 2]
    assert losses.summary() == {"unreadable-message": 3}


def test_an_export2sql_has_messages_in_its_order(tmp_path: Path) -> None:
    sql = OLD + "".join(
        f"INSERT INTO spool(username, xml) VALUES ('anna', '<message><body>{number}</body></message>');\n"
        for number in (3, 1, 2)
    )
    found = accounts(tmp_path, sql, "x")["anna"].offline
    assert [offline.message.findtext("{jabber:client}body") for offline in found] == ["3", "1", "2"]


def test_broken_elements_cost_themselves_alone(tmp_path: Path) -> None:
    losses = Losses()
    sql = OLD + (
        "INSERT INTO vcard (username, vcard) VALUES ('anna', '<!DOCTYPE x><vCard/>');"
        "INSERT INTO private_storage (username, namespace, data) VALUES"
        " ('anna', 'a', '<a xmlns=''a''/>'), ('anna', 'b', '<b'), ('anna', 'c', '<a/><b/>');"
    )
    account = accounts(tmp_path, sql, "x", losses)["anna"]
    assert account.vcard is None
    assert [tree.tag for tree in account.private] == ["{a}a"]
    assert losses.summary() == {"unreadable-vcard": 1, "unreadable-private": 2}


def test_logouts_and_registrations(tmp_path: Path) -> None:
    sql = (
        "INSERT INTO users (username, password, created_at) VALUES ('a', '1', '2024-05-06 07:08:09.5'),"
        "('b', '1', '2024-05-06 07:08:09'), ('c', '1', '0000-00-00 00:00:00'),"
        "('d', '1', NULL), ('e', '1', NULL);"
        "INSERT INTO last (username, seconds, state) VALUES ('a', '1714979290', 'bye'), ('d', 'soon', ''),"
        "('b', '1714979000', 'Registered but didn''t login'), ('e', 1e300, '');"
    )
    found = accounts(tmp_path, sql, "x")
    assert [(account.created, account.last, account.last_status) for account in found.values()] == [
        (1714979289.5, 1714979290.0, "bye"),
        (1714979000.0, None, ""),
        (None, None, ""),
        (None, None, ""),
        (None, None, ""),
    ]


@pytest.mark.parametrize("yes", ["1", "'t'", "true"])
def test_privacy_lists_become_blocks(tmp_path: Path, yes: str) -> None:
    losses = Losses()
    no = {"1": "0", "'t'": "'f'", "true": "false"}[yes]
    flags = f"{no}, {no}, {yes}, {no}"
    sql = OLD + (
        "INSERT INTO privacy_default_list (username, name) VALUES ('anna', 'mine');"
        "INSERT INTO privacy_list (username, name, id) VALUES ('anna', 'mine', 7), ('anna', 'empty', 8);"
        "INSERT INTO privacy_list_data (id, t, value, action, ord, match_all, match_iq, match_message,"
        " match_presence_in, match_presence_out) VALUES"
        f"(7, 'j', 'troll@x', 'd', '2', {yes}, {no}, {no}, {no}, {no}),"
        f"(7, 'j', 'mute@x', 'd', '1', {no}, {flags}),"
        f"(7, 'g', 'Foes', 'd', '3', {yes}, {no}, {no}, {no}, {no});"
    )
    account = accounts(tmp_path, sql, "x", losses)["anna"]
    assert account.blocks == ["troll@x"]
    assert [detail for _, detail in losses.kinds["privacy-list"].samples] == [
        "mine: deny jid mute@x (presence-in)",
        "mine: deny group Foes",
    ]


PEP = (
    "INSERT INTO pubsub_node (host, node, nodeid) VALUES ('anna@x', 'urn:xmpp:vcard4', 1),"
    " ('anna@x', 'mood', 2), ('pubsub.x', 'news', 3);"
    "INSERT INTO pubsub_item (nodeid, itemid, modification, payload) VALUES"
    " (1, 'a', '2', '<vcard xmlns=''urn:ietf:params:xml:ns:vcard-4.0''><fn><text>New</text></fn></vcard>'),"
    " (1, 'b', '1', '<vcard xmlns=''urn:ietf:params:xml:ns:vcard-4.0''><fn><text>Old</text></fn></vcard>'),"
    " (1, 'z', '0', '<broken'), (2, 'c', '1', '<broken');"
)


def test_a_vcard_of_pep_where_there_is_no_other(tmp_path: Path) -> None:
    losses = Losses()
    account = accounts(tmp_path, OLD + PEP, "x", losses)["anna"]
    assert account.vcard is not None
    assert account.vcard.findtext("{vcard-temp}FN") == "New"
    assert losses.kinds["pep-node"].samples == [("anna@x", "mood: 1 items")]
    assert losses.summary()["unreadable-item"] == 1
    card = "<vCard xmlns=''vcard-temp''><FN>A</FN></vCard>"
    vcard = f"INSERT INTO vcard (username, vcard) VALUES ('anna', '{card}');"
    account = accounts(tmp_path, OLD + PEP + vcard, "x", losses)["anna"]
    assert account.vcard is not None
    assert account.vcard.findtext("{vcard-temp}FN") == "A"
    assert losses.summary() == {"pep-node": 3, "unreadable-item": 1}


def test_other_tables_are_counted(tmp_path: Path) -> None:
    losses = Losses()
    accounts(
        tmp_path, OLD + "INSERT INTO archive (username, xml) VALUES ('a', 'b'), ('c', 'd');", "x", losses
    )
    assert losses.summary() == {"table-archive": 2}


def test_an_account_beyond_the_limit_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqljoin, "MOST_BYTES", 1000)
    path = tmp_path / "x.sql"
    path.write_text(
        "INSERT INTO users (username, password) VALUES ('a', '1'), ('b', '1'), ('c', '1');"
        "INSERT INTO vcard (username, vcard) VALUES ('a', '<a/>'), ('b', '"
        + "x" * 2000
        + "'), ('c', '<c/>');"
    )
    found = read(path, tmp_path, "x")
    assert [type(account) for account in found] == [Account, Unreadable, Account]
    assert found[1] == Unreadable("b@x", "more than 1000 bytes of one kind", "x.sql: users")


def test_an_account_without_a_name_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "x.sql"
    path.write_text(
        "INSERT INTO users (username, server_host, password) VALUES (NULL, 'x', '1'), ('b', NULL, '1');"
    )
    assert [account.name for account in read(path, tmp_path) if isinstance(account, Unreadable)] == [
        "b@",
        "@x",
    ]


# What is not whole.


@pytest.mark.parametrize("last", ["last_activity", "privacy", "offline_msg"])
def test_an_export2sql_that_stopped_early_is_refused(tmp_path: Path, last: str) -> None:
    whole = (EJABBERD / "mnesia-sha1/export2sql/games.example.sql").read_text()
    path = tmp_path / "games.example.sql"
    cut = whole.index(f"-- Mnesia table: {last}\n")
    path.write_text(whole[: whole.index("-- \n", whole.index("--\n", cut) + 3)])
    with pytest.raises(
        SourceError, match=f"stopped early: it has the tables passwd, .*{last}, and no roster; .*mod_muc"
    ):
        FORMAT.open(path, Options(domain="games.example", scratch=tmp_path))


def test_a_source_without_accounts_is_refused(tmp_path: Path) -> None:
    for text, why in (("CREATE TABLE x (a);", "neither accounts nor rosters"), ("", "is empty")):
        path = tmp_path / "x.sql"
        path.write_text(text)
        with pytest.raises(SourceError, match=why):
            FORMAT.open(path, Options(domain="x", scratch=tmp_path))


def test_a_second_turn_gives_the_same(tmp_path: Path) -> None:
    path = EJABBERD / "mariadb-old-schema-plain/sql/games.example.sql"
    with closing(FORMAT.open(path, Options(domain="games.example", scratch=tmp_path))) as reader:
        assert [account.name for account in reader] == [account.name for account in reader] != []
