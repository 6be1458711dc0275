"""MongooseIM's SQL: accounts written by hand against what they stand for, and its passwords."""

import base64
from contextlib import closing
from pathlib import Path

import pytest
from truth import SAMPLES, differences, fits, truth

from xmppd.migrate.formats import FORMATS
from xmppd.migrate.formats.mongooseim import FORMAT, keys_in
from xmppd.migrate.record import Account, Losses
from xmppd.migrate.source import Options, SourceError, head_of

SAMPLE = SAMPLES / "mongooseim-by-hand/mongooseim.sql"


def read(path: Path, scratch: Path, domain: str = "", losses: Losses | None = None) -> list[Account]:
    reader = FORMAT.open(path, Options(domain=domain, scratch=scratch, losses=losses or Losses()))
    with closing(reader):
        found = [account for account in reader if isinstance(account, Account)]
    assert reader.total == len(found)
    return found


def accounts(tmp_path: Path, sql: str, domain: str = "", losses: Losses | None = None) -> dict[str, Account]:
    path = tmp_path / "x.sql"
    path.write_text(sql)
    return {account.name: account for account in read(path, tmp_path, domain, losses)}


def test_the_sample_reads_to_its_truth(tmp_path: Path) -> None:
    losses = Losses()
    found = read(SAMPLE, tmp_path, losses=losses)
    assert len(found) == 14
    names = {account.name for account in found}
    rest = differences(found, {name: row for name, row in truth().items() if name in names})
    told = [(row["account"].partition("@")[0], row["what"], row.get("field"), row["found"]) for row in rest]
    approved = [("anna", "roster", "approved", False)] * 3 + [("boris", "roster", "approved", False)] * 4
    hashes = ("sha1", "sha224", "sha256", "sha384", "sha512")
    assert [row for row in told if row[1] not in ("vcard", "offline", "private")] == [
        *approved,
        *[("nils", "requests", "nick", "")] * 2,
        *[("yuri", "password", None, f"{name}: NFKC") for name in hashes],
    ]
    assert losses.summary() == {"doubtful-keys": 11}


def test_it_is_recognised(tmp_path: Path) -> None:
    assert [form.name for form in FORMATS if form.recognises(SAMPLE, head_of(SAMPLE))] == ["mongooseim"]
    assert FORMAT.recognises(tmp_path / "x", b"CREATE TABLE `mam_message` (")
    assert FORMAT.recognises(tmp_path / "x", b"CREATE TABLE rosterusers (username text, jid text);")
    assert not FORMAT.recognises(tmp_path / "x", b"CREATE TABLE rosterusers (username text, subscribe text);")
    assert not FORMAT.recognises(tmp_path, b"")


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


SALT, ONE, TWO = text(b"\xffsalt"), text(b"\xfe" * 20), text(b"\xfe" * 32)


@pytest.mark.parametrize(
    ("details", "hashes"),
    [
        (f"==SCRAM==,{ONE},{ONE},{SALT},4096", ["sha1"]),
        (f"==MULTI_SCRAM==,4096,===SHA1==={SALT}|{ONE}|{ONE}", ["sha1"]),
        (
            f"==MULTI_SCRAM==,4096,===SHA1==={SALT}|{ONE}|{ONE},==SHA256=={SALT}|{TWO}|{TWO}",
            ["sha1", "sha256"],
        ),
        (f"==MULTI_SCRAM==,{SALT},4096,===SHA1==={ONE}|{ONE},==SHA256=={TWO}|{TWO}", ["sha1", "sha256"]),
        (f"==MULTI_SCRAM==,4096,===SHA1==={SALT}|{ONE}|{TWO}", [None]),
        (f"==MULTI_SCRAM==,4096,==SHA512=={SALT}|{TWO}|{TWO}", [None]),
        (f"==MULTI_SCRAM==,4096,===SHA1==={SALT}|{ONE}", [None]),
        ("==MULTI_SCRAM==", [None]),
        ("==MULTI_SCRAM==,4096", [None]),
        ("==MULTI_SCRAM==,a,b,c,d,|||", [None, None, None]),
        ("==SCRAM==,1,2", [None]),
        ("junk", [None]),
    ],
)
def test_pass_details_of_all_ages(details: str, hashes: list[str | None]) -> None:
    found = list(keys_in(details))
    assert [pair[0] if pair else None for pair in found] == hashes
    assert all(pair[1].salt == b"\xffsalt" and pair[1].iterations == 4096 for pair in found if pair)


def test_the_sample_has_keys_of_its_passwords(tmp_path: Path) -> None:
    clara = next(account for account in read(SAMPLE, tmp_path) if account.local == "clara")
    assert list(clara.keys) == ["sha1"]
    assert fits("sha1", clara.keys["sha1"], truth()["clara@chat.example"]["password"])


def test_plain_passwords_and_broken_keys(tmp_path: Path) -> None:
    losses = Losses()
    found = accounts(
        tmp_path,
        "INSERT INTO users (username, server, password, pass_details) VALUES"
        " ('a', 'x', 'secret', NULL), ('b', 'x', 'secret', ''),"
        " ('c', 'x', '', 'junk'), ('d', 'x', '', NULL);",
        losses=losses,
    )
    assert [account.password for account in found.values()] == ["secret", "secret", None, None]
    assert losses.summary() == {"unusable-keys": 1}


def test_old_versions_need_a_domain(tmp_path: Path) -> None:
    sql = "INSERT INTO users (username, password, pass_details) VALUES ('a', 'secret', NULL);"
    with pytest.raises(SourceError, match="do not say the domain"):
        accounts(tmp_path, sql)
    assert list(accounts(tmp_path, sql, "x")) == ["a@x"]


def test_messages_come_in_order_with_the_moment_of_their_row(tmp_path: Path) -> None:
    losses = Losses()
    packet = f"X'{b'<message><body>1</body></message>'.hex()}'"
    sql = (
        "INSERT INTO users (username, server, password) VALUES ('a', 'x', 's');"
        "INSERT INTO offline_message (id, timestamp, server, username, from_jid, packet) VALUES"
        " (1, 1714979289000002, 'x', 'a', 'b@x', '<message><body>2</body></message>'),"
        f" (2, 1714979289000001, 'x', 'a', 'b@x', {packet});"
        "INSERT INTO pubsub_nodes (nid, p_key, name) VALUES (1, 'a@x', 'urn:xmpp:vcard4'),"
        " (2, 'a@x', 'mood');"
        "INSERT INTO pubsub_items (nid, itemid, payload) VALUES"
        " (1, 'i', '<vcard xmlns=''urn:ietf:params:xml:ns:vcard-4.0''><fn><text>A</text></fn></vcard>');"
        "INSERT INTO mam_message (id) VALUES (1), (2);"
    )
    account = accounts(tmp_path, sql, losses=losses)["a@x"]
    assert [(offline.message.findtext("{*}body"), offline.at) for offline in account.offline] == [
        ("1", 1714979289.000001),
        ("2", 1714979289.000002),
    ]
    assert account.vcard is not None
    assert account.vcard.findtext("{vcard-temp}FN") == "A"
    assert losses.summary() == {"pep-node": 1, "table-mam_message": 2}
