"""XEP-0227, written: valid by its schema, and read again as it was."""

from __future__ import annotations

import io
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pie_schema import breaches, whole
from truth import SAMPLES, canonical

from xmppd import ns
from xmppd.migrate.formats.pie import FORMAT
from xmppd.migrate.fragments import element_of
from xmppd.migrate.pie.write import DIALECTS, user_of, writer_of
from xmppd.migrate.record import Account, Contact, Keys, Losses, Offline, Unreadable
from xmppd.migrate.source import Options, SourceError

SIZES = {"sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64}


def write(folder: Path, accounts: Iterable[Account], dialect: str = "standard") -> tuple[Path, Losses]:
    """Where the accounts were written to, and what was lost."""
    path, losses = folder / "out", Losses()
    writer = writer_of(path, dialect, losses)
    for account in accounts:
        writer.write(account)
    writer.close()
    return path, losses


def read(path: Path) -> list[Account]:
    losses = Losses()
    found = list(FORMAT.open(path, Options(losses=losses)))
    assert losses.summary() == {}
    assert not [account for account in found if isinstance(account, Unreadable)]
    return [account for account in found if isinstance(account, Account)]


def again(folder: Path, account: Account, dialect: str = "standard") -> Account:
    path, losses = write(folder, [account], dialect)
    assert losses.summary() == {}
    (found,) = read(path)
    return found


def plain(account: Account) -> dict[str, Any]:
    """An account as what can be compared: where it is left out, and the order of contacts."""
    return {
        "name": account.name,
        "password": account.password,
        "keys": account.keys,
        "roster": sorted(
            (
                contact.jid,
                contact.subscription,
                contact.ask,
                contact.pending,
                contact.approved,
                contact.name is None,
                contact.name or "",
                contact.groups,
                xml(contact.request),
                contact.listed,
            )
            for contact in account.roster
        ),
        "vcard": xml(account.vcard),
        "private": [xml(tree) for tree in account.private],
        "offline": [(xml(offline.message), offline.at) for offline in account.offline],
        "blocks": account.blocks,
    }


def xml(tree: Element | None) -> str:
    return "" if tree is None else canonical(tree)


def documents(path: Path, dialect: str) -> list[Path]:
    return {"standard": [path], "ejabberd": [path / "main.xml"]}.get(dialect) or sorted(path.iterdir())


# Accounts of any kind

LETTERS = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff") | st.sampled_from(
    "\t\n\r"
)
TEXT = st.text(LETTERS, max_size=12)
SAID = TEXT.filter(bool)
DOMAINS = st.sampled_from(["chat.example", "bücher.example", "x"])
LOCALS = SAID.filter(lambda text: "/" not in text)
ADDRESSES = st.tuples(LOCALS, DOMAINS).map("@".join) | DOMAINS | SAID.filter(lambda text: "/" not in text)
SPACES = st.sampled_from(["u:a", "u:b", "", ns.CLIENT, ns.PIE, ns.PRIVATE, ns.XINCLUDE])
TAGS = st.builds("{{{}}}{}".format, SPACES, st.sampled_from("abc")).map(lambda tag: tag.removeprefix("{}"))
ATTRS = st.dictionaries(
    st.sampled_from(["a", "b", "{u:c}c", "{http://www.w3.org/XML/1998/namespace}lang"]), TEXT, max_size=2
)


def tree(tag: str, attrs: dict[str, str], text: str, children: list[tuple[Element, str]]) -> Element:
    made = Element(tag, attrs)
    made.text = text
    for child, tail in children:
        child.tail = tail
        made.append(child)
    return made


def trees(
    tags: st.SearchStrategy[str], attrs: st.SearchStrategy[dict[str, str]] = ATTRS
) -> st.SearchStrategy[Element]:
    leaf = st.builds(tree, TAGS, ATTRS, TEXT, st.just([]))
    inner = st.recursive(
        leaf,
        lambda deeper: st.builds(tree, TAGS, ATTRS, TEXT, st.lists(st.tuples(deeper, TEXT), max_size=2)),
        max_leaves=4,
    )
    return st.builds(tree, tags, attrs, TEXT, st.lists(st.tuples(inner, TEXT), max_size=2))


def keys(name: str) -> st.SearchStrategy[Keys]:
    size = SIZES[name]
    key = st.binary(min_size=size, max_size=size)
    return st.builds(Keys, st.binary(min_size=1, max_size=20), st.integers(1, 10_000_000), key, key)


CONTACTS = st.builds(
    Contact,
    jid=ADDRESSES,
    subscription=st.sampled_from(["none", "to", "from", "both"]),
    ask=st.booleans(),
    pending=st.booleans(),
    approved=st.booleans(),
    name=st.none() | TEXT,
    groups=st.lists(SAID, max_size=3, unique=True),
    request=st.none() | trees(st.just(f"{{{ns.CLIENT}}}presence"), st.just({"id": "7"})),
)
MESSAGES = trees(
    st.just(f"{{{ns.CLIENT}}}message"),
    st.dictionaries(st.sampled_from(["from", "type", "id"]), TEXT, max_size=3),
)
MOMENTS = st.integers(-10_000_000_000_000_000, 200_000_000_000_000_000).map(lambda micros: micros / 1_000_000)


def account(local: str, domain: str, unlisted: list[tuple[str, Contact]], **more: Any) -> Account:
    """An account in the form in which XEP-0227 holds it: contacts and requests by address, once each."""
    made = Account(local, domain, **more)
    found = {contact.jid: contact for contact in made.roster}
    for jid, contact in unlisted:
        found.setdefault(jid, Contact(jid, pending=True, request=contact.request, listed=False))
    for contact in found.values():
        if not contact.pending:
            contact.request = None
        if contact.request is not None:
            contact.request.attrib |= {"type": "subscribe", "from": contact.jid}
    made.roster = list(found.values())
    return made


ACCOUNTS = st.builds(
    account,
    LOCALS,
    DOMAINS,
    st.lists(st.tuples(ADDRESSES, CONTACTS), max_size=2),
    password=st.none() | SAID,
    keys=st.fixed_dictionaries({}, optional={name: keys(name) for name in SIZES}),
    roster=st.lists(CONTACTS, max_size=4),
    vcard=st.none() | trees(st.just(f"{{{ns.VCARD}}}vCard")),
    private=st.lists(trees(TAGS), max_size=2),
    offline=st.lists(st.builds(Offline, MESSAGES, st.none() | MOMENTS), max_size=2),
    blocks=st.lists(ADDRESSES, max_size=3, unique=True),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACCOUNTS, max_size=3, unique_by=lambda made: made.name), st.sampled_from(DIALECTS))
def test_what_is_written_is_read_as_it_was(accounts: list[Account], dialect: str) -> None:
    if dialect == "ejabberd":
        for made in accounts:
            made.keys = {} if made.password else dict(list(made.keys.items())[:1])
            made.keys = {name: key for name, key in made.keys.items() if name in ("sha1", "sha256", "sha512")}
            for offline in made.offline:
                offline.message.attrib.setdefault("from", "a@b")
                offline.message.attrib["from"] = offline.message.attrib["from"] or "a@b"
    with TemporaryDirectory() as folder:
        path, losses = write(Path(folder), accounts, dialect)
        assert losses.summary() == {}
        if accounts:
            for document in documents(path, dialect):
                assert list(breaches(whole(document))) == []
        found = read(path) if accounts or dialect != "prosody" else []
    order: Callable[[Account], str] = lambda made: made.name  # noqa: E731
    assert [plain(made) for made in sorted(found, key=order)] == [
        plain(made) for made in sorted(accounts, key=order)
    ]


# Rules one by one

KEYS = {name: Keys(b"salt", 4096, b"s" * size, b"S" * size) for name, size in SIZES.items()}


def user(made: Account, **more: Any) -> tuple[Element, dict[str, int]]:
    losses = Losses()
    raw = user_of(made, losses, **more)
    assert raw is not None
    return fromstring(raw.replace(b"<user ", b"<user xmlns='urn:xmpp:pie:0' ", 1)), dict(losses.summary())


def test_a_plain_account_is_short() -> None:
    assert user_of(Account("o'h&ra", "x"), Losses()) == b"<user name='o&apos;h&amp;ra'/>"


def test_line_breaks_in_names_are_escaped() -> None:
    made = Account("a", "x", roster=[Contact("b@y", name="two\nlines\tand\r", groups=["g\nh"])])
    raw = user_of(made, Losses())
    assert raw is not None
    assert b"name='two&#10;lines&#9;and&#13;'" in raw


def test_scram_keys_are_those_of_the_xep() -> None:
    tree, lost = user(Account("a", "x", keys={"sha1": Keys(b"NaCl", 10000, b"s" * 20, b"S" * 20)}))
    assert lost == {}
    assert xml(tree[0]) == (
        '<{urn:xmpp:pie:0#scram}scram-credentials mechanism="SCRAM-SHA-1">'
        "<{urn:xmpp:pie:0#scram}iter-count>10000</><{urn:xmpp:pie:0#scram}salt>TmFDbA==</>"
        "<{urn:xmpp:pie:0#scram}server-key>U1NTU1NTU1NTU1NTU1NTU1NTU1M=</>"
        "<{urn:xmpp:pie:0#scram}stored-key>c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=</></>"
    )


@pytest.mark.parametrize(
    ("names", "password", "written", "lost"),
    [
        (["sha256", "sha1"], None, "SCRAM-SHA-1", {"keys": 1}),
        (["sha512", "sha256"], None, "SCRAM-SHA-256", {"keys": 1}),
        (["sha384"], None, None, {"keys": 1}),
        (["sha1", "sha384"], "pw", None, {}),
        (["sha1"], "scram:pw", "SCRAM-SHA-1", {"password": 1}),
    ],
)
def test_keys_for_ejabberd(
    names: list[str], password: str | None, written: str | None, lost: dict[str, int]
) -> None:
    made = Account("a", "x", password=password, keys={name: KEYS[name] for name in names})
    tree, found = user(made, is_ejabberd=True)
    assert [child.get("mechanism") for child in tree] == ([written] if written else [])
    assert tree.get("password") == (password if not written else None)
    assert found == lost
    if written:
        assert tree[0].findtext("{*}salt") == "YzJGc2RBPT0="


def test_a_message_from_nobody_is_from_the_server_for_ejabberd() -> None:
    made = Account("a", "x", offline=[Offline(element_of("<message><body>hi</body></message>"))])
    tree, _ = user(made, is_ejabberd=True)
    assert tree[0][0].get("from") == "x"
    assert made.offline[0].message.get("from") is None
    tree, _ = user(made)
    assert tree[0][0].get("from") is None


def test_what_has_no_place_is_lost(tmp_path: Path) -> None:
    made = Account("a", "x", disabled=True, created=1, last=2, last_status="gone", keys={"md5": KEYS["sha1"]})
    assert user(made)[1] == {"created": 1, "disabled": 1, "keys": 1, "last": 1}
    assert user(Account("a", "x", last_status="gone"))[1] == {"last": 1}
    late = Account("a", "x", offline=[Offline(element_of("<message/>"), 1e15)])
    assert user(late)[1] == {"stamp": 1}


def test_what_cannot_stand_in_xml_is_lost() -> None:
    made = Account(
        "a",
        "x",
        password="p\0",
        roster=[
            Contact("b@y", name="n\1"),
            Contact("c@y", groups=["g\ufffe"]),
            Contact("d\2@y"),
            Contact(""),
        ],
        blocks=["e\3@y", "f\ud800@y"],
    )
    tree, lost = user(made)
    assert lost == {"block": 2, "characters": 2, "contact": 2, "password": 1}
    assert [(item.get("jid"), item.get("name")) for item in tree[0]] == [("b@y", "n\ufffd"), ("c@y", None)]
    assert tree.get("password") is None
    assert user(Account("a", "x", password="", roster=[Contact("b\1", pending=True)]))[1] == {
        "contact": 1,
        "password": 1,
    }


@pytest.mark.parametrize(("local", "domain"), [("a\0", "x"), ("", "x"), ("a", ""), ("a\udfff", "x")])
def test_accounts_that_cannot_stand_in_xml_are_lost(tmp_path: Path, local: str, domain: str) -> None:
    path, losses = write(tmp_path, [Account(local, domain), Account("b", "x")])
    assert losses.summary() == {"account": 1}
    assert [made.name for made in read(path)] == ["b@x"]


def test_a_contact_that_is_nothing_is_not_written() -> None:
    assert user_of(Account("a", "x", roster=[Contact("b@y", listed=False)]), Losses()) == b"<user name='a'/>"


def test_who_is_known_by_more_than_a_request_is_written_as_an_item(tmp_path: Path) -> None:
    made = Account("a", "x", roster=[Contact("b@y", "to", pending=True, listed=False)])
    (contact,) = again(tmp_path, made).roster
    assert (contact.subscription, contact.pending, contact.listed) == ("to", True, True)


def test_a_request_finds_its_contact_again(tmp_path: Path) -> None:
    def request(sender: str) -> Element:
        return element_of(f"<presence from='{sender}' type='subscribe'><status>{sender}</status></presence>")

    made = Account(
        "a",
        "x",
        roster=[
            Contact("b@y", pending=True, request=request("b@y/phone")),
            Contact("c@y", pending=True, request=request("c@y/phone")),
            Contact("c@y/phone"),
            Contact("d@y/r", pending=True, request=request("d@y")),
            Contact("e@y", pending=True, request=request("other@y")),
        ],
    )
    found = {contact.jid: contact.request for contact in again(tmp_path, made).roster if contact.pending}
    assert {
        jid: (tree.get("from"), tree.findtext("{*}status")) for jid, tree in found.items() if tree is not None
    } == {
        "b@y": ("b@y/phone", "b@y/phone"),
        "c@y": ("c@y", "c@y/phone"),
        "d@y/r": ("d@y/r", "d@y"),
        "e@y": ("e@y", "other@y"),
    }


# Files


MANY = [Account("a", "x"), Account("b", "x"), Account("c", "y"), Account("d", "x")]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_hosts(tmp_path: Path, dialect: str) -> None:
    path, _ = write(tmp_path, MANY, dialect)
    assert [made.name for made in read(path)] == ["a@x", "b@x", "c@y", "d@x"]
    for document in documents(path, dialect):
        assert list(breaches(whole(document))) == []


def test_names_of_files(tmp_path: Path) -> None:
    path, losses = write(tmp_path, [Account("..dots..", "x"), Account("*?|\\", "x")], "prosody")
    assert sorted(file.name for file in path.iterdir()) == ["*?|\\@x.xml", "..dots..@x.xml"]
    assert losses.summary() == {}
    (tmp_path / "2").mkdir()
    path, losses = write(tmp_path / "2", [Account("../../a", "x"), Account("a" * 250, "x")], "prosody")
    assert list(path.iterdir()) == []
    assert losses.summary() == {"account": 2}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_files_are_their_owners_alone(tmp_path: Path, dialect: str) -> None:
    path, _ = write(tmp_path, MANY, dialect)
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_nothing_is_overwritten(tmp_path: Path, dialect: str) -> None:
    write(tmp_path, MANY, dialect)
    with pytest.raises(SourceError, match=r"is there already|is not empty"):
        write(tmp_path, MANY, dialect)


def test_no_place_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be written: No such file"):
        write(tmp_path / "none", [], "prosody")


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmppd.migrate.pie.write.created", lambda _: io.FileIO("/dev/full", "wb"))
    with pytest.raises(SourceError, match="cannot be written: No space"):
        write(tmp_path, MANY)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_samples_survive(tmp_path: Path, dialect: str) -> None:
    folder = SAMPLES / "ejabberd-23.01/mnesia-sha1/piefxis"
    accounts = [made for made in FORMAT.open(folder, Options()) if isinstance(made, Account)]
    path, losses = write(tmp_path, accounts, dialect)
    assert losses.summary() == {}
    wanted = {made.name: plain(made) for made in accounts}
    assert {made.name: plain(made) for made in read(path)} == wanted
