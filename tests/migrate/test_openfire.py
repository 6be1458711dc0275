"""Openfire's SQL: accounts written by hand against what they stand for, and each rule of its tables."""

import base64
import hashlib
import hmac
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from truth import SAMPLES, differences, truth

from xmppd.migrate.formats import FORMATS
from xmppd.migrate.formats.openfire import FORMAT
from xmppd.migrate.formats.openfire_password import decrypted
from xmppd.migrate.record import Account, Losses, Unreadable
from xmppd.migrate.source import Options, SourceError, head_of

SAMPLE = SAMPLES / "openfire-by-hand/openfire.sql"


def read(
    path: Path, scratch: Path, domain: str = "", losses: Losses | None = None
) -> list[Account | Unreadable]:
    reader = FORMAT.open(path, Options(domain=domain, scratch=scratch, losses=losses or Losses()))
    with closing(reader):
        found = list(reader)
    assert reader.total == len(found)
    return found


def accounts(tmp_path: Path, sql: str, domain: str = "x", losses: Losses | None = None) -> dict[str, Account]:
    path = tmp_path / "x.sql"
    path.write_text(sql)
    found = read(path, tmp_path, domain, losses)
    return {account.local: account for account in found if isinstance(account, Account)}


def test_the_sample_reads_to_its_truth(tmp_path: Path) -> None:
    losses = Losses()
    found = read(SAMPLE, tmp_path, "chat.example", losses)
    assert len(found) == 14
    names = {account.name for account in found}
    rest = differences(found, {name: row for name, row in truth().items() if name in names})
    assert {(row["what"], row.get("field")) for row in rest} == {
        ("roster", "approved"),
        ("roster", "name"),
        ("requests", "status"),
        ("requests", "nick"),
        ("private", None),
        ("blocked", None),
        ("password", None),
    }
    (name,) = (row for row in rest if row.get("field") == "name")
    assert (name["of"], name["found"]) == ("n24@remote.example", name["expected"][:255])
    assert [row["found"] for row in rest if row["what"] == "blocked"] == [["tybalt@remote.example"]]
    assert [row["found"] for row in rest if row["what"] == "password"] == ["sha1: NFKC"]
    assert all(row["found"] == "" for row in rest if row["what"] == "requests")
    assert losses.summary() == {"cut-name": 1, "privacy-list": 4}


def test_it_is_recognised(tmp_path: Path) -> None:
    assert [form.name for form in FORMATS if form.recognises(SAMPLE, head_of(SAMPLE))] == ["openfire-sql"]
    assert FORMAT.recognises(tmp_path / "x", b"CREATE TABLE public.ofgroupprop (")
    assert not FORMAT.recognises(tmp_path / "x", b"CREATE TABLE users (")


USER = "INSERT INTO ofUser (username, plainPassword) VALUES ('anna', 'secret');\n"


def test_the_domain_is_a_property_or_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no property xmpp\.domain; name it by --domain"):
        accounts(tmp_path, USER, "")
    sql = (
        USER + "INSERT INTO ofProperty (name, propValue) VALUES ('x', 'y'), ('xmpp.domain', 'chat.example');"
    )
    assert accounts(tmp_path, sql, "")["anna"].domain == "chat.example"
    assert accounts(tmp_path, sql, "other.example")["anna"].domain == "other.example"


def test_a_source_without_accounts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no accounts of Openfire"):
        accounts(tmp_path, "CREATE TABLE ofRoster (a);")


# Rosters.


def roster(tmp_path: Path, rows: str, more: str = "", losses: Losses | None = None) -> list[Any]:
    columns = "rosterID, username, jid, sub, ask, recv, nick, stanza"
    sql = f"{USER}INSERT INTO ofRoster ({columns}) VALUES {rows};\n{more}"
    return accounts(tmp_path, sql, losses=losses)["anna"].roster


@pytest.mark.parametrize(
    ("numbers", "state"),
    [
        ("0, -1, -1", ("none", False, False)),
        ("0, 0, -1", ("none", True, False)),
        ("0, -1, 1", ("none", False, True)),
        ("0, 0, 1", ("none", True, True)),
        ("1, -1, -1", ("to", False, False)),
        ("1, -1, 1", ("to", False, True)),
        ("2, -1, -1", ("from", False, False)),
        ("2, 0, -1", ("from", True, False)),
        ("3, -1, -1", ("both", False, False)),
        ("'3', '1', '2'", ("both", False, False)),
    ],
)
def test_states(tmp_path: Path, numbers: str, state: tuple[str, bool, bool]) -> None:
    (contact,) = roster(tmp_path, f"(1, 'anna', 'bob@x', {numbers}, 'Bob', NULL)")
    assert (contact.subscription, contact.ask, contact.pending) == state


def test_removed_unknown_and_cut_contacts_are_told(tmp_path: Path) -> None:
    losses = Losses()
    rows = (
        "(1, 'anna', 'gone@x', -1, -1, -1, 'Gone', NULL), (2, 'anna', 'odd@x', 7, -1, -1, NULL, NULL),"
        f"(3, 'anna', 'null@x', NULL, NULL, NULL, '', NULL),"
        f"(4, 'anna', 'long@x', 3, -1, -1, '{'n' * 255}', NULL)"
    )
    found = roster(tmp_path, rows, losses=losses)
    assert [(contact.jid, contact.subscription, contact.ask) for contact in found] == [
        ("odd@x", "none", False),
        ("null@x", "none", False),
        ("long@x", "both", False),
    ]
    assert [contact.name for contact in found][:2] == [None, ""]
    assert losses.summary() == {"removed-contact": 1, "unknown-subscription": 2, "cut-name": 1}


def test_groups_are_in_order_of_rank_and_duplicates_come_as_they_are(tmp_path: Path) -> None:
    losses = Losses()
    rows = (
        "(10, 'anna', 'a@x', 3, -1, -1, 'One', NULL), (9, 'anna', 'a@x', 1, -1, -1, 'Two', NULL),"
        "(11, 'zoe', 'a@x', 3, -1, -1, NULL, NULL)"
    )
    groups = (
        "INSERT INTO ofRosterGroups (rosterID, rank, groupName) VALUES"
        " (10, '10', 'C'), (10, '2', 'B'), (10, 0, 'A'),"
        " (9, 0, 'Z'), (9, 1, 'Z'), (99, 0, 'lost'), (11, 0, 'orphan');"
    )
    found = roster(tmp_path, rows, groups, losses)
    assert [(contact.name, contact.groups) for contact in found] == [("Two", ["Z"]), ("One", ["A", "B", "C"])]
    assert losses.summary() == {"orphan": 2, "orphan-group": 1}


def test_requests_with_and_without_a_stanza(tmp_path: Path) -> None:
    losses = Losses()
    rows = (
        "(1, 'anna', 'a@x', 0, -1, 1, NULL,"
        ' \'<presence type="subscribe" from="a@x"><status>hi</status></presence>\'),'
        "(2, 'anna', 'b@x', 0, -1, 1, NULL, NULL), (3, 'anna', 'c@x', 0, -1, 1, 'C', '<broken'),"
        "(4, 'anna', 'd@x', 3, -1, -1, NULL, '<presence/>')"
    )
    found = roster(tmp_path, rows, losses=losses)
    assert [contact.listed for contact in found] == [False, False, True, True]
    assert found[0].request.findtext("{jabber:client}status") == "hi"
    assert [contact.request for contact in found[1:]] == [None] * 3
    assert losses.summary() == {"unreadable-request": 1}


def test_shared_groups_are_told(tmp_path: Path) -> None:
    losses = Losses()
    sql = USER + (
        "INSERT INTO ofGroupProp (groupName, name, propValue) VALUES"
        " ('all', 'sharedRoster.showInRoster', 'everybody'),"
        " ('own', 'sharedRoster.showInRoster', 'nobody'), ('team', 'sharedRoster.showInRoster', 'onlyGroup'),"
        " ('team', 'sharedRoster.displayName', 'Team');"
        "INSERT INTO ofGroupUser (groupName, username) VALUES ('team', 'anna'),"
        " ('team', 'bob'), ('own', 'anna');"
        "INSERT INTO ofMessageArchive (body) VALUES ('x');"
    )
    accounts(tmp_path, sql, losses=losses)
    assert [detail for _, detail in losses.kinds["shared-roster-group"].samples] == [
        "all: 0 members, who are in no roster",
        "team: 2 members, who are in no roster",
    ]
    assert losses.summary()["table-ofMessageArchive"] == 1


# Passwords.


def encrypted(password: str, key: str, iv: bytes = b"\x01\xfe345678") -> str:
    """As Openfire's AuthFactory does: UTF-16, filled up to blocks of eight with how many bytes were added."""
    data = password.encode("utf-16-be")
    fill = 8 - len(data) % 8
    cipher = Cipher(Blowfish(hashlib.sha1(key.encode()).digest()), modes.CBC(iv)).encryptor()
    return (iv + cipher.update(data + bytes([fill]) * fill)).hex()


def scram(password: str) -> str:
    salted = hashlib.pbkdf2_hmac("sha1", password.encode(), b"salt", 2)
    stored = hashlib.sha1(hmac.digest(salted, b"Client Key", "sha1")).digest()
    server = hmac.digest(salted, b"Server Key", "sha1")
    return ", ".join(f"'{base64.b64encode(part).decode()}'" for part in (stored, server, b"salt")) + ", 2"


@pytest.mark.parametrize("password", ["a", "secret", "пароль 🔑", "x" * 100, "1234"])
def test_what_openfire_encrypts_is_decrypted(password: str) -> None:
    assert decrypted(encrypted(password, "kéy"), "kéy") == password
    assert decrypted(encrypted(password, "kéy"), "other") in (None, "") or len(password) < 5


@pytest.mark.parametrize("text", ["", "zz", "00" * 8, "00" * 7, "00" * 20, encrypted("secret", "k")[:-2]])
def test_what_is_no_cipher_text_is_none(text: str) -> None:
    assert decrypted(text, "k") is None


def test_what_is_not_filled_up_as_it_should_be_is_none() -> None:
    cipher = Cipher(Blowfish(hashlib.sha1(b"k").digest()), modes.CBC(bytes(8))).encryptor()
    blocks = cipher.update("ab".encode("utf-16-be") + b"\x01\x02\x03\x04")
    assert decrypted((bytes(8) + blocks).hex(), "k") is None


def passwords(tmp_path: Path, rows: str, more: str, losses: Losses) -> list[tuple[str | None, list[str]]]:
    columns = "username, storedKey, serverKey, salt, iterations, plainPassword, encryptedPassword"
    found = accounts(tmp_path, f"INSERT INTO ofUser ({columns}) VALUES {rows};\n{more}", losses=losses)
    return [(account.password, list(account.keys)) for account in found.values()]


def test_passwords_in_all_forms(tmp_path: Path) -> None:
    key = "INSERT INTO ofProperty (name, propValue) VALUES ('passwordKey', 'key');"
    none = "NULL, NULL, NULL, NULL"
    rows = (
        f"('a', {scram('secret')}, NULL, NULL), ('b', {none}, 'plain', NULL),"
        f"('c', {none}, NULL, '{encrypted('hidden', 'key')}'), ('d', {none}, NULL, '{'00' * 16}'),"
        f"('e', {scram('secret')}, NULL, '{encrypted('secret', 'key')}'),"
        f"('f', {scram('secret')}, NULL, '{encrypted('of before', 'key')}'), ('g', {none}, NULL, NULL),"
        "('h', 'x', 'y', 'z', 1, NULL, NULL)"
    )
    losses = Losses()
    assert passwords(tmp_path, rows, key, losses) == [
        (None, ["sha1"]),
        ("plain", []),
        ("hidden", []),
        (None, []),
        ("secret", ["sha1"]),
        (None, ["sha1"]),
        (None, []),
        (None, []),
    ]
    assert losses.summary() == {"unusable-password": 1, "unusable-keys": 1}
    assert "hidden" not in repr(losses.kinds)
    losses = Losses()
    assert passwords(tmp_path, rows, "", losses)[2] == (None, [])
    assert losses.kinds["unusable-password"].samples[0] == ("c@x", "no passwordKey is there")


def test_keys_of_the_newest_table(tmp_path: Path) -> None:
    long = base64.b64encode(b"\xfe" * 32).decode()
    sql = USER + (
        "INSERT INTO ofUserScram (username, mechanism, storedKey, serverKey, salt, iterations) VALUES"
        f" ('anna', 'SCRAM-SHA-256', '{long}', '{long}', '{long}', 4096);"
    )
    assert list(accounts(tmp_path, sql)["anna"].keys) == ["sha256"]


# The rest.


def test_moments_locks_and_elements(tmp_path: Path) -> None:
    losses = Losses()
    sql = (
        "INSERT INTO ofUser (username, plainPassword, creationDate) VALUES ('anna', 's', '001735689600000'),"
        " ('bob', 's', 'never'), ('bob', 't', NULL), ('carl', 's', '999999999999999');"
        "INSERT INTO ofUserFlag (username, name, startTime, endTime) VALUES ('anna', 'lockout', '0', NULL),"
        " ('bob', 'lockout', '0', '001');"
        "INSERT INTO ofPresence (username, offlinePresence, offlineDate) VALUES"
        " ('anna', '<presence type=\"unavailable\"><status>bye</status></presence>', '001735689600001');"
        "INSERT INTO ofPrivate (username, name, namespace, privateData) VALUES"
        " ('anna', 'x', 'y', '<x xmlns=''y''/>'),"
        " ('anna', 'x', 'z', 'broken');"
        "INSERT INTO ofVCard (username, vcard) VALUES ('anna', '<vCard xmlns=''vcard-temp''/>');"
        "INSERT INTO ofOffline (username, messageID, creationDate, messageSize, stanza) VALUES"
        " ('anna', 10, '001735690000000', 9, '<message><body>3</body></message>'),"
        " ('anna', 9, '001735690000000', 9, '<message><body>2</body></message>'),"
        " ('anna', 11, '001735680000500', 9, '<message><body>1</body></message>');"
    )
    found = accounts(tmp_path, sql, losses=losses)
    anna = found["anna"]
    assert [(account.created, account.disabled) for account in found.values()] == [
        (1735689600.0, True),
        (None, False),
        (None, False),
    ]
    assert (anna.last, anna.last_status) == (1735689600.001, "bye")
    assert [tree.tag for tree in anna.private] == ["{y}x"]
    assert anna.vcard is not None
    assert [(offline.message.findtext("{*}body"), offline.at) for offline in anna.offline] == [
        ("1", 1735680000.5),
        ("2", 1735690000.0),
        ("3", 1735690000.0),
    ]
    assert losses.summary() == {"duplicate-account": 1, "unreadable-private": 1}


def test_an_account_without_a_name_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "x.sql"
    path.write_text("INSERT INTO ofUser (username, plainPassword) VALUES (NULL, 's'), ('bob', 's');")
    assert [type(account) for account in read(path, tmp_path, "x")] == [Unreadable, Account]
