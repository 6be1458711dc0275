"""Internal storage of Prosody."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from luawriter import dat, item
from truth import SAMPLES, differences, unexplained

from xmppd import ns
from xmppd.migrate.formats.prosody import FORMAT, decoded, encoded, store_encoded
from xmppd.migrate.fragments import DEEPEST, BadXml
from xmppd.migrate.prosody.lua import Flag, Table
from xmppd.migrate.prosody.stanza import Xml, stanza_of
from xmppd.migrate.record import Account, Contact, Losses, Unreadable
from xmppd.migrate.source import Options, SourceError
from xmppd.xml.build import serialize

PROSODY = SAMPLES / "prosody-0.12.3"
HOST = "a.example"
LOST_WITHOUT_FILES = ("roster", "requests", "vcard", "private", "offline", "blocked")


class Data:
    """A data folder, and what is read from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.losses = Losses()

    def put(self, user: str, host: str = HOST, /, **stores: Table | list[Table] | bytes) -> Data:
        """Files of one user, and an account unless it is among them."""
        for store, value in {"accounts": {"password": "secret"}, **stores}.items():
            ending = ".list" if isinstance(value, list) else ".dat"
            place = self.folder / encoded(host) / store_encoded(store) / (encoded(user) + ending)
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(value, bytes):
                place.write_bytes(value)
            else:
                place.write_bytes(b"".join(map(item, value)) if isinstance(value, list) else dat(value))
        return self

    def read(self, path: Path | None = None, domain: str = "") -> list[Account | Unreadable]:
        self.losses = Losses()
        return list(FORMAT.open(path or self.folder, Options(domain=domain, losses=self.losses)))

    def one(self) -> Account:
        (account,) = self.read()
        assert isinstance(account, Account)
        return account

    def lost(self) -> dict[str, int]:
        return dict(self.losses.summary())


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path / "data")


def stanza(name: str, attr: dict[str, Any] | None = None, *content: Any, **rest: Any) -> Table:
    return {**dict(enumerate(content, 1)), "name": name, "attr": attr or {}, **rest}


# Samples.


@pytest.mark.parametrize("path", ["internal-sha1", "internal-sha1/data"])
def test_the_sample_is_its_truth(path: str) -> None:
    losses = Losses()
    reader = FORMAT.open(PROSODY / path, Options(losses=losses))
    found = list(differences(reader))
    assert unexplained(found, PROSODY / "internal-sha1" / "differences.jsonl") == []
    assert [row["account"] for row in found if row["what"] == "vcard"] == ["tessa@chat.example"]  # empty
    assert reader.total == 60
    assert losses.summary() == {"pep-configuration": 5, "pep-node": 3}


@pytest.mark.parametrize(("name", "plain"), [("internal-plain", 60), ("internal-mixed", 40)])
def test_passwords_of_samples_with_accounts_only(name: str, plain: int) -> None:
    accounts = list(FORMAT.open(PROSODY / name, Options()))
    found = [row for row in differences(accounts) if row["what"] not in LOST_WITHOUT_FILES]
    assert unexplained(found, PROSODY / name / "differences.jsonl") == []
    assert all(isinstance(account, Account) for account in accounts)
    assert sum(isinstance(account, Account) and account.password is not None for account in accounts) == plain
    assert sum(isinstance(account, Account) and bool(account.keys) for account in accounts) == 60 - plain


def test_accounts_come_in_the_same_order() -> None:
    names = [
        [account.name for account in FORMAT.open(PROSODY / "internal-sha1", Options())] for _ in range(2)
    ]
    assert names[0] == names[1]
    assert names[0].index("мария@chat.example") < names[0].index("0123@games.example")


def test_offline_messages_have_their_time_and_no_stamp() -> None:
    found = {account.name: account for account in FORMAT.open(PROSODY / "internal-sha1", Options())}
    lukas = found["lukas@chat.example"]
    assert isinstance(lukas, Account)
    assert [message.at for message in lukas.offline] == [1795854541.0] * 6
    assert all(message.message.get("stamp") is None for message in lukas.offline)
    assert lukas.created == 1795854461.0


# Where it is.


def test_the_folder_of_one_host_is_enough(data: Data) -> None:
    data.put("u").put("v", "b.example")
    assert [account.name for account in data.read(data.folder / "a%2eexample")] == ["u@a.example"]
    assert [account.name for account in data.read(data.folder / "a%2eexample", "c.example")] == [
        "u@c.example"
    ]
    assert [account.name for account in data.read(data.folder.parent)] == ["u@a.example", "v@b.example"]


def test_a_host_may_be_named_like_a_store(data: Data) -> None:
    data.put("u", "accounts")
    assert [account.name for account in data.read()] == ["u@accounts"]


def test_what_is_recognised(data: Data, tmp_path: Path) -> None:
    data.put("u")
    assert FORMAT.recognises(data.folder, b"")
    assert FORMAT.recognises(tmp_path, b"")
    assert FORMAT.recognises(data.folder / "a%2eexample", b"")
    assert not FORMAT.recognises(data.folder / "a%2eexample" / "accounts", b"")
    assert not FORMAT.recognises(data.folder / "a%2eexample" / "accounts" / "u.dat", b"return {")
    with pytest.raises(SourceError, match="no accounts of Prosody"):
        data.read(data.folder / "a%2eexample" / "accounts")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_names_are_encoded_and_decoded(name: str) -> None:
    assert decoded(encoded(name)) == name
    assert decoded(store_encoded(name)) == name
    assert encoded(name).replace("%", "").isalnum() or not name


def test_names_are_encoded_as_prosody_does() -> None:
    assert encoded("jürgen_x.y") == "j%c3%bcrgen%5fx%2ey"
    assert store_encoded("pep_urn:x") == "pep_urn%3ax"


def test_half_written_files_and_indices_are_skipped(data: Data) -> None:
    data.put("u", offline=[])
    folder = data.folder / "a%2eexample"
    (folder / "accounts" / "u.dat~").write_bytes(b"return {")
    (folder / "accounts" / "v.dat~").write_bytes(b"return {")
    (folder / "offline" / "u.lidx").write_bytes(b"\x00")
    assert data.one().password == "secret"
    assert data.lost() == {}


def test_of_two_files_of_one_name_the_one_of_prosody_counts(data: Data) -> None:
    data.put("a.b")
    (data.folder / "a%2eexample" / "accounts" / "a.b.dat").write_bytes(dat({"password": "other"}))
    (data.folder / "a%2eexample" / "accounts" / "a%2Eb.dat").write_bytes(dat({"password": "other"}))
    assert data.one().password == "secret"
    assert data.lost() == {"file-name": 2}


def test_names_that_are_no_utf8_are_unreadable(data: Data) -> None:
    data.put("u")
    (data.folder / "a%2eexample" / "accounts" / "x%ff.dat").write_bytes(dat({"password": "x"}))
    bad = data.read()[1]
    assert isinstance(bad, Unreadable)
    assert (bad.name, bad.why) == ("x\\udcff@a.example", "the name is not UTF-8")


# Accounts.


def keys(size: int) -> Table:
    return {
        "stored_key": "ab" * size,
        "server_key": "cd" * size,
        "salt": "the-text",
        "iteration_count": 4096,
    }


@pytest.mark.parametrize(("size", "name"), [(20, "sha1"), (32, "sha256")])
def test_keys_are_hexadecimal_and_the_salt_is_text(data: Data, size: int, name: str) -> None:
    account = data.put("u", accounts=keys(size)).one()
    assert list(account.keys) == [name]
    assert account.keys[name] == (b"the-text", 4096, b"\xab" * size, b"\xcd" * size)
    assert account.password is None


@pytest.mark.parametrize(
    "spoilt", [{"stored_key": "xx"}, {"salt": 5}, {"iteration_count": 0}, {"server_key": {}}]
)
def test_keys_that_are_none_are_a_loss(data: Data, spoilt: Table) -> None:
    account = data.put("u", accounts={**keys(20), **spoilt}).one()
    assert account.keys == {} and account.password is None
    assert data.lost() == {"unusable-keys": 1}


def test_an_account_without_any_key_cannot_log_in(data: Data) -> None:
    account = data.put("u", accounts={}).one()
    assert account.keys == {} and account.password is None
    assert data.lost() == {}


def test_what_accounts_say_of_themselves(data: Data) -> None:
    account = data.put("u", accounts={"password": "x", "disabled": True, "created": 5.5}).one()
    assert account.disabled and account.created == 5.5
    account = data.put("u", account_details={"registered": 7}).one()
    assert not account.disabled and account.created == 7
    assert data.put("u", account_details={"registered": "7"}).one().created is None


def test_the_last_logout(data: Data) -> None:
    assert data.put("u", lastlog={"event": "registered", "timestamp": 9}).one().last is None
    assert data.put("u", lastlog={"event": "logout", "timestamp": 5}).one().last == 5
    events: Table = {"login": {"timestamp": 6}, "logout": {"timestamp": 7}, "registered": {"timestamp": 9}}
    assert data.put("u", lastlog2=events).one().last == 7
    assert data.put("u", account_activity={"timestamp": 8}).one().last == 8


@pytest.mark.parametrize("store", ["accounts", "roster", "blocklist"])
@pytest.mark.parametrize("text", [b"", b"return {", b'return os.exit("x")', b"\x00" * 50, b"return 5"])
def test_a_broken_file_costs_one_account(data: Data, store: str, text: bytes) -> None:
    data.put("a").put("b", **{store: text}).put("c")
    first, bad, last = data.read()
    assert isinstance(first, Account) and isinstance(last, Account)
    assert isinstance(bad, Unreadable)
    assert bad.name == "b@a.example"
    assert f"{store}/b.dat:1 (byte " in bad.where


@pytest.mark.parametrize("store", ["account_details", "lastlog2", "vcard", "private", "privacy"])
def test_a_broken_file_of_less_weight_is_a_loss(data: Data, store: str) -> None:
    account = data.put("u", roster={"x@y": {}}, **{store: b"return {"}).one()
    assert account.roster == [Contact("x@y")]
    assert data.lost() == {"unreadable-store": 1}
    assert f"{store}/u.dat:1 (byte 8)" in data.losses.kinds["unreadable-store"].samples[0][1]


def test_what_is_no_file_is_not_waited_for(data: Data) -> None:
    data.put("u", roster={})
    place = data.folder / "a%2eexample" / "roster" / "u.dat"
    place.unlink()
    os.mkfifo(place)
    (bad,) = data.read()
    assert isinstance(bad, Unreadable) and bad.why == "not a file"


# Rosters.


def test_all_of_an_item(data: Data) -> None:
    item: Table = {
        "subscription": "from",
        "ask": "subscribe",
        "approved": "true",
        "name": "Friend",
        "groups": {"A": True, "B": True},
    }
    account = data.put("u", roster={"f@b": item, Flag.FALSE: {"version": 5}}).one()
    assert account.roster == [
        Contact("f@b", "from", ask=True, approved=True, name="Friend", groups=["A", "B"])
    ]


def test_an_item_of_nothing(data: Data) -> None:
    assert data.put("u", roster={"f@b": {"groups": {}}}).one().roster == [Contact("f@b")]
    assert data.put("u", roster={"f@b": {"name": ""}}).one().roster == [Contact("f@b", name="")]


def test_items_of_a_groups_file_are_skipped(data: Data) -> None:
    account = data.put("u", roster={"f@b": {"persist": False}, "g@b": {"persist": True}}).one()
    assert [contact.jid for contact in account.roster] == ["g@b"]
    assert data.lost() == {"group-file-contact": 1}


@pytest.mark.parametrize("place", ["metadata", "old"])
def test_requests_that_wait(data: Data, place: str) -> None:
    ask = stanza("presence", {"type": "subscribe", "from": "s@b/r"}, stanza("status", None, "hi"))
    pending: Table = {"s@b": ask, "t@b": True, "f@b": True, "g@b": False}
    roster: Table = {Flag.FALSE: {"pending": pending}} if place == "metadata" else {"pending": pending}
    account = data.put("u", roster={"f@b": {"subscription": "to"}, **roster}).one()
    listed, asked, bare = account.roster
    assert listed == Contact("f@b", "to", pending=True)
    assert bare == Contact("t@b", pending=True, listed=False)
    assert (asked.jid, asked.pending, asked.listed) == ("s@b", True, False)
    assert asked.request is not None
    assert (
        serialize(asked.request) == b"<presence type='subscribe' from='s@b/r'><status>hi</status></presence>"
    )


def test_a_contact_may_be_named_pending(data: Data) -> None:
    account = data.put("u", roster={"pending": {"subscription": "both"}}).one()
    assert account.roster == [Contact("pending", "both")]


def test_a_request_that_cannot_be_read_stays_one(data: Data) -> None:
    pending: Table = {"s@b": stanza("presence", None, "\x00"), "t@b": stanza("message"), "w@b": 5}
    account = data.put("u", roster={Flag.FALSE: {"pending": pending}}).one()
    assert [(contact.pending, contact.request) for contact in account.roster] == [(True, None)] * 3
    assert data.lost() == {"unreadable-request": 3}


def test_names_cut_within_a_letter_are_mended(data: Data) -> None:
    account = data.put("u", roster={"f@b": {"name": "J\udcc3", "groups": {"\udcff": True}}}).one()
    assert account.roster == [Contact("f@b", name="J\ufffd", groups=["\ufffd"])]
    assert data.lost() == {"unreadable-name": 2}


def test_what_is_no_contact_is_a_loss(data: Data) -> None:
    roster: Table = {
        "a@b": True,
        5: {},
        "\udcff@b": {},
        "c@b": {"subscription": "all"},
        "d@b": {"name": 5},
        "e@b": {"groups": True},
        "f@b": {"groups": {1: "x", "y": False}},
        Flag.FALSE: {"pending": 5, "broken": "x"},
    }
    account = data.put("u", roster=roster).one()
    assert account.roster == [Contact(f"{name}@b") for name in "cdef"]
    assert data.lost() == {
        "broken-roster": 1,
        "unknown-subscription": 1,
        "unreadable-contact": 3,
        "unreadable-group": 2,
        "unreadable-name": 1,
        "unreadable-request": 1,
    }


# Stanzas.


def test_namespaces_and_prefixes() -> None:
    tree = stanza_of(
        stanza(
            "a",
            {"xmlns": "urn:a", "xml:lang": "de", "urn:p\x01x": "1", "urn:q|y": "2", "xmlns:z": "urn:z"},
            "one",
            stanza("b", None, stanza("c", {"xmlns": ""}, stanza("d"))),
            "two",
            "three",
        )
    )
    assert tree.tag == "{urn:a}a"
    assert tree.attrib == {f"{{{ns.XML}}}lang": "de", "{urn:p}x": "1", "{urn:q}y": "2"}
    assert tree.text == "one"
    assert (tree[0].tag, tree[0].tail) == ("{urn:a}b", "twothree")
    assert (tree[0][0].tag, tree[0][0][0].tag) == ("c", "d")


def test_the_default_namespace() -> None:
    assert stanza_of(stanza("a")).tag == f"{{{ns.CLIENT}}}a"
    assert stanza_of(stanza("a"), ns.VCARD).tag == f"{{{ns.VCARD}}}a"
    assert stanza_of(Xml("<a/>"), ns.VCARD).tag == f"{{{ns.VCARD}}}a"
    assert stanza_of({"name": "a"}).tag == f"{{{ns.CLIENT}}}a"
    assert stanza_of(stanza("a", {"n": 5})).get("n") == "5"


@pytest.mark.parametrize(
    "value",
    [
        {},
        5,
        "text",
        stanza("a b"),
        stanza("1"),
        stanza("x:y"),
        stanza("a>"),
        {"name": 5},
        {"name": "a", "attr": 5},
        stanza("a", {"x y": "1"}),
        stanza("a", {"x": True}),
        stanza("a", {"x": {}}),
        stanza("a", {"xmlns": {}}),
        stanza("a", {"xmlns": "\x00"}),
        stanza("a", {"x": "\x01"}),
        stanza("a", {"urn:\x02\x01x": "1"}),
        stanza("a", None, "\udcff"),
        stanza("a", None, True),
        stanza("a", None, stanza("b"), "\ufffe"),
        Xml("<a>"),
        Xml("<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>"),
    ],
)
def test_what_is_no_stanza_is_refused(value: Any) -> None:
    with pytest.raises(BadXml):
        stanza_of(value)


def test_levels_of_a_stanza_are_bounded() -> None:
    tree = stanza("a")
    for _ in range(DEEPEST - 1):
        tree = stanza("a", None, tree)
    assert stanza_of(tree).tag
    with pytest.raises(BadXml, match="levels"):
        stanza_of(stanza("a", None, tree))


# Other stores.


def test_vcard_of_mod_vcard_is_taken_before_pep(data: Data) -> None:
    card = stanza("vCard", {"xmlns": ns.VCARD}, stanza("FN", None, "U"))
    node = stanza("vcard", {"xmlns": ns.VCARD4, "stamp": "x"}, key="current", when=5)
    account = data.put("u", vcard=card, **{"pep_urn:xmpp:vcard4": [node]}).one()
    assert account.vcard is not None
    assert serialize(account.vcard) == b"<vCard xmlns='vcard-temp'><FN>U</FN></vCard>"
    assert data.lost() == {"pep-node": 1}


def test_private_elements(data: Data) -> None:
    private: Table = {
        "a:urn:x": stanza("a", {"xmlns": "urn:x"}),
        "b:urn:y": stanza("b"),
        "c:urn:z": 5,
        5: stanza("d", {"xmlns": "urn:d"}),
    }
    account = data.put("u", private=private).one()
    assert [tree.tag for tree in account.private] == ["{urn:x}a", "{urn:y}b", "{urn:d}d"]
    assert data.lost() == {"unreadable-private": 1}


def test_blocks(data: Data) -> None:
    blocklist: Table = {"a@b": 5, "c": True, "d@e/f": 1, "g": False, Flag.FALSE: {"created": 1}, 7: True}
    assert data.put("u", blocklist=blocklist).one().blocks == ["a@b", "c", "d@e/f"]
    assert data.lost() == {"unreadable-block": 1}


def privacy(*items: Table, default: str | None = "x") -> Table:
    table: Table = {"lists": {"x": {"name": "x", "items": dict(enumerate(items, 1))}}}
    if default is not None:
        table["default"] = default
    return table


def deny(jid: str, order: int = 1, **kinds: bool) -> Table:
    flags = {"iq": False, "message": False, "presence-in": False, "presence-out": False, **kinds}
    return {"type": "jid", "value": jid, "action": "deny", "order": order, **flags}


def test_blocks_of_the_default_list_are_not_doubled(data: Data) -> None:
    table = privacy(deny("a@b"), deny("c@d", 2), deny("e@f", 3, message=True), 5, {"action": "x"})  # type: ignore[arg-type]
    account = data.put("u", privacy=table, blocklist={"c@d": True}).one()
    assert account.blocks == ["c@d", "a@b"]
    assert data.lost() == {"privacy-list": 3}


def test_lists_that_are_not_default_block_nobody(data: Data) -> None:
    assert data.put("u", privacy=privacy(deny("a@b"), default=None)).one().blocks == []
    assert data.lost() == {"privacy-list": 1}
    assert data.put("u", privacy={"lists": {"x": 5, 7: {}}, "default": 5}).one().blocks == []
    assert data.lost() == {"privacy-list": 2}
    assert data.put("u", privacy={"lists": 5}).one().blocks == []


def message(body: str, attr: dict[str, Any] | None = None, **rest: Any) -> Table:
    return stanza("message", attr, stanza("body", None, body), **rest)


@pytest.fixture(params=["UTC", "Pacific/Auckland"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's own time zone, which no stamp is in."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
def test_times_of_offline_messages(data: Data) -> None:
    queue = [
        message("a", {"stamp": "2001-01-01T00:00:00Z"}, when=5.25),
        message("b", {"stamp": "1970-01-01T00:00:07Z", "stamp_legacy": "x"}),
        message("c", {"stamp_legacy": "19700101T00:00:08"}),
        message("d", {"stamp": "yesterday"}),
    ]
    account = data.put("u", offline=queue).one()
    assert [waiting.at for waiting in account.offline] == [5.25, 7, 8, None]
    assert all(waiting.message.attrib == {} for waiting in account.offline)


def test_offline_messages_before_a_broken_one_are_kept(data: Data) -> None:
    data.put("u", offline=[message("a"), stanza("message", None, "\x00"), stanza("iq"), message("b")])
    with (data.folder / "a%2eexample" / "offline" / "u.list").open("ab") as file:
        file.write(b"item({")
    assert len(data.one().offline) == 2
    assert data.lost() == {"unreadable-item": 2, "unreadable-store": 1}


def test_what_else_there_is_is_counted(data: Data) -> None:
    data.put("u", pep={}, pep_x=[stanza("x")], archive=[message("x")], invite_token={"x": 1}, accounts={})
    data.put("v", cron={"x": 1})
    data.put("u", roster={}, offline=[])
    folder = data.folder / "a%2eexample"
    (folder / "accounts" / "v.dat").unlink()
    (folder / "roster" / "w.dat").write_bytes(dat({}))
    (folder / "roster" / "u.list").write_bytes(b"")
    (folder / "persistent.dat").write_bytes(dat({}))
    data.put("room", "rooms.example", config={})
    (data.folder / "rooms%2eexample" / "accounts" / "room.dat").unlink()
    assert [account.name for account in data.read()] == ["u@a.example"]
    assert data.lost() == {
        "host-data": 1,
        "host-without-accounts": 1,
        "orphan": 2,
        "pep-configuration": 1,
        "pep-node": 1,
        "store-archive": 1,
        "store-invite_token": 1,
        "store-roster": 1,
    }
    assert data.losses.kinds["host-without-accounts"].samples == [("", "rooms.example: accounts, config")]
    assert data.losses.kinds["orphan"].samples == [("v@a.example", "cron"), ("w@a.example", "roster")]


def test_nothing_of_a_secret_is_said(data: Data) -> None:
    data.put("u", accounts=b'return { ["password"] = "hunter2" .. "x" }')
    data.put("v", accounts={**keys(20), "salt": "hunter2", "iteration_count": "hunter2"})
    found = data.read()
    assert "hunter2" not in repr(found) + repr(data.losses.kinds)
