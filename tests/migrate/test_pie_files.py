"""XEP-0227 read: which files there are, how they include each other, and those that mean harm."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from pies import PIE, accounts, document, of, read, roster

from xmppd.migrate.formats.pie import FORMAT, root_of
from xmppd.migrate.record import Account, Unreadable
from xmppd.migrate.source import LONGEST_VALUE, Options, SourceError, head_of

# Files


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_xml", ".xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def layout(folder: Path) -> Path:
    """The layout that XEP-0227 recommends."""
    write(
        folder,
        main_xml=f"<server-data {PIE}><xi:include href='x.xml'/><xi:include href='y.xml'/></server-data>",
        x_xml=f"<host {PIE} jid='x'><xi:include href='x/a.xml'/><xi:include href='x/%62.xml'/></host>",
        y_xml=f"<host {PIE} jid='y'><user name='c'><xi:include href='y/roster.xml'/></user></host>",
        x__a_xml=f"<user {PIE} name='a'/>",
        x__b_xml=f"<user {PIE} name='b'><offline-messages/></user>",
        y__roster_xml=roster("<item jid='a@x'/>"),
    )
    return folder / "main.xml"


def test_the_recommended_layout(tmp_path: Path) -> None:
    found = accounts(layout(tmp_path))
    assert [(account.name, len(account.roster)) for account in found] == [("a@x", 0), ("b@x", 0), ("c@y", 1)]
    assert [account.name for account in accounts(tmp_path)] == ["a@x", "b@x", "c@y"]
    reader = FORMAT.open(tmp_path / "main.xml", Options())
    assert [account.name for account in reader] == [account.name for account in reader]


def test_parts_by_themselves(tmp_path: Path) -> None:
    layout(tmp_path)
    assert [account.name for account in accounts(tmp_path / "x.xml")] == ["a@x", "b@x"]
    assert [account.name for account in accounts(tmp_path / "x/a.xml", domain="z")] == ["a@z"]
    with pytest.raises(SourceError, match="--domain"):
        read(tmp_path / "x/a.xml")
    (tmp_path / "main.xml").unlink()
    assert [account.name for account in accounts(tmp_path)] == ["a@x", "b@x", "c@y"]


def test_a_user_whose_file_cannot_be_read(tmp_path: Path) -> None:
    main = layout(tmp_path)
    (tmp_path / "x/a.xml").write_text("<user")
    (tmp_path / "x/b.xml").unlink()
    (tmp_path / "y/roster.xml").write_text("<query>")
    found, _ = read(main)
    assert [account.name for account in found] == ["a@x", "%62@x", "c@y"]
    assert all(isinstance(account, Unreadable) for account in found)
    whys = [account.why for account in found if isinstance(account, Unreadable)]
    assert "the file ends early" in whys[0]
    assert "'x/%62.xml' is not there" in whys[1]
    assert "the file ends early" in whys[2]


def test_a_host_whose_file_cannot_be_read(tmp_path: Path) -> None:
    main = layout(tmp_path)
    (tmp_path / "y.xml").unlink()
    with pytest.raises(SourceError, match=r"main.xml:1: 'y.xml' is not there"):
        read(main)


@pytest.mark.parametrize(
    "href",
    [
        "",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://x/y.xml",
        "../outside.xml",
        "%2e%2e/outside.xml",
        "link.xml",
    ],
)
@pytest.mark.parametrize(
    "place", ["<{}/>", "<host jid='x'><{}/></host>", "<host jid='x'><user name='a'><{}/></user></host>"]
)
def test_includes_that_are_refused(tmp_path: Path, href: str, place: str) -> None:
    folder = tmp_path / "in"
    write(folder, main_xml=f"<server-data {PIE}>{place.format(f'xi:include href={href!r}')}</server-data>")
    (tmp_path / "outside.xml").write_text(f"<host {PIE} jid='evil'><user name='e'/></host>")
    (folder / "link.xml").symlink_to(tmp_path / "outside.xml")
    with pytest.raises(SourceError, match=r"main.xml:1: an include of"):
        read(folder / "main.xml")


def test_includes_of_what_includes_them(tmp_path: Path) -> None:
    write(
        tmp_path,
        main_xml=f"<server-data {PIE}><xi:include href='x.xml'/></server-data>",
        x_xml=f"<xi:include {PIE} href='x.xml'/>",
    )
    with pytest.raises(SourceError, match=r"x.xml:1: an include of 'x.xml', which includes it"):
        read(tmp_path / "main.xml")


@pytest.mark.parametrize("more", ["parse='text'", "xpointer='element(/1)'"])
def test_includes_of_other_kinds(tmp_path: Path, more: str) -> None:
    write(tmp_path, main_xml=f"<server-data {PIE}><xi:include href='x.xml' {more}/></server-data>")
    with pytest.raises(SourceError, match="an include of a part"):
        read(tmp_path / "main.xml")


def test_no_include_below_a_child_of_a_user(tmp_path: Path) -> None:
    include = "<xi:include href='../../etc/passwd'/>"
    inner = f"<query xmlns='jabber:iq:private'><a xmlns='u'>{include}</a>{include}</query>"
    account, _ = of(tmp_path, inner)
    assert [tree.tag for tree in account.private] == ["{u}a", "{http://www.w3.org/2001/XInclude}include"]


def test_a_folder_of_documents(tmp_path: Path) -> None:
    for name in ("b", "a", "..dots..", "a*?|\\"):
        local = name.replace("&", "&amp;")
        document(tmp_path, f"<user name='{local}'/>", f"{name}@x.xml")
    (tmp_path / "notes.xml").write_text("<notes/>")
    (tmp_path / "a@x.xml~").write_text("<")
    reader = FORMAT.open(tmp_path, Options())
    assert reader.total == 4
    found, losses = read(tmp_path)
    assert [account.name for account in found] == ["..dots..@x", "a*?|\\@x", "a@x", "b@x"]
    assert losses.kinds["file"].samples == [("", "notes.xml: not XEP-0227")]


def test_one_document_of_a_folder_is_truncated(tmp_path: Path) -> None:
    document(tmp_path, "<user name='a'/>", "a@x.xml")
    document(tmp_path, "<user name='c'/>", "c@x.xml")
    (tmp_path / "b@x.xml").write_text(f"<server-data {PIE}><host jid='x'><user name='b'>")
    found, _ = read(tmp_path)
    assert [account.name for account in found] == ["a@x", "b@x", "c@x"]
    broken = found[1]
    assert isinstance(broken, Unreadable)
    assert "b@x.xml:1 (byte 108): the file ends early within the account b@x" in broken.why
    assert broken.where == "b@x.xml"


def test_a_folder_without_documents(tmp_path: Path) -> None:
    assert not FORMAT.recognises(tmp_path, b"")
    with pytest.raises(SourceError, match="no document of XEP-0227 is in this folder"):
        read(tmp_path)


def test_several_exports_in_a_folder(tmp_path: Path) -> None:
    layout(tmp_path)
    (tmp_path / "later.xml").write_text((tmp_path / "main.xml").read_text())
    with pytest.raises(SourceError, match=r"several exports .*: later.xml, main.xml; name"):
        read(tmp_path)


def test_an_account_that_is_there_twice(tmp_path: Path) -> None:
    found, _ = read(document(tmp_path, "<user name='a'/>\n<user name='b'/><user name='a'/>"))
    assert [type(account) for account in found] == [Account, Account, Unreadable]
    assert isinstance(found[2], Unreadable)
    assert found[2].why.startswith("the account is there already: ")
    assert found[2].why.endswith("main.xml:1")


def test_gzip(tmp_path: Path) -> None:
    plain = document(tmp_path, "<user name='a'/>")
    path = tmp_path / "packed.xml.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    assert FORMAT.recognises(path, head_of(path))
    assert [account.name for account in accounts(path)] == ["a@x"]
    path.write_bytes(gzip.compress(plain.read_bytes() + b" " * 100_000)[:-12])
    with pytest.raises(SourceError, match="cannot be read"):
        read(path)


# Hostile input


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the file ends early; no account before it is whole"),
        ("<server-data xmlns='urn:xmpp:pie:0'><host jid='x'><user name='a'/><user name='b'>",
         "the file ends early within the account b@x; the last whole account is a@x"),
        ("<server-data xmlns='urn:xmpp:pie:0'><host jid='x'><user name='a'/></hos></server-data>",
         "not well-formed: mismatched tag; the last whole account is a@x"),
        ("<server-data xmlns='urn:xmpp:pie:0'><host jid='x'><user name='a'/><user na",
         "the file ends early; the last whole account is a@x"),
        ("<server-data xmlns='urn:xmpp:pie:0'><host/></server-data>", "a host without a jid"),
        ("<server-data><host jid='x'/></server-data>", "no document of XEP-0227: its root is <server-data/>"),
        ("<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><server-data xmlns='urn:xmpp:pie:0'/>",
         "a document type declaration"),
        ("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><server-data xmlns='urn:xmpp:pie:0'/>",
         "a document type declaration"),
        ("<server-data xmlns='urn:xmpp:pie:0'>&b;</server-data>", "not well-formed: undefined entity"),
    ],
)  # fmt: skip
def test_documents_that_are_none(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "main.xml"
    path.write_text(text)
    found: list[Account | Unreadable] = []
    with pytest.raises(SourceError) as caught:
        found += FORMAT.open(path, Options())
    assert caught.value.why.startswith(why)
    assert f"{path}:1 (byte " in str(caught.value)
    if "last whole account is a@x" in why:
        reader = iter(FORMAT.open(path, Options()))
        assert next(reader).name == "a@x"


def test_a_tag_without_end(tmp_path: Path) -> None:
    path = tmp_path / "main.xml"
    with path.open("w") as file:
        file.write(f"<server-data {PIE}><host jid='x'><user name='")
        for _ in range(LONGEST_VALUE // 0x10000 + 4):
            file.write("a" * 0x10000)
    with pytest.raises(SourceError, match=r"main.xml:1 \(byte \d+\): a tag of more than 16 MiB"):
        read(path)


@pytest.mark.parametrize(
    ("inner", "why"),
    [
        ("<vCard xmlns='vcard-temp'>" + "<A>" * 70 + "</A>" * 70 + "</vCard>", "more than 64 levels"),
        ("<vCard xmlns='vcard-temp'>" + "<A/>" * 170_000 + "</vCard>", "an element of more than 16 MiB"),
        (
            "<vCard xmlns='vcard-temp'><A>" + "a" * 17_000_000 + "</A></vCard>",
            "an element of more than 16 MiB",
        ),
        (
            roster("<item jid='b@y'><group>" + "a" * 17_000_000 + "</group></item>"),
            "a text of more than 16 MiB",
        ),
    ],
    ids=["deep", "wide", "long", "group"],
)
def test_bombs_cost_their_account(tmp_path: Path, inner: str, why: str) -> None:
    users = f"<user name='a'><offline-messages><message/></offline-messages>{inner}</user><user name='b'/>"
    bomb, other = read(document(tmp_path, users))[0]
    assert isinstance(bomb, Unreadable)
    assert bomb.name == "a@x"
    assert bomb.why.startswith(why)
    assert bomb.why.endswith("main.xml:1)")
    assert isinstance(other, Account)


def test_an_account_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmppd.migrate.pie.account.LARGEST_ACCOUNT", 1 << 20)
    items = "".join(f"<item jid='c{number}@y'/>" for number in range(6000))
    found, _ = read(document(tmp_path, f"<user name='a'>{roster(items)}</user><user name='b'/>"))
    assert isinstance(found[0], Unreadable)
    assert found[0].why == "it holds more than 1 MiB"
    assert isinstance(found[1], Account)


def test_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "main.xml"
    text = f"<server-data {PIE}><host jid='x'><user name='jürgen'/></host></server-data>"
    path.write_bytes(("<?xml version='1.0' encoding='ISO-8859-1'?>" + text).encode("latin-1"))
    assert accounts(path)[0].local == "jürgen"
    path.write_bytes(text.encode("utf-16"))
    assert accounts(path)[0].local == "jürgen"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert FORMAT.recognises(path, head_of(path))
    assert accounts(path)[0].local == "jürgen"
    path.write_bytes(text.encode("latin-1"))
    found, losses = read(path)
    assert found[0].name == "jürgen@x"
    assert losses.summary() == {"not-utf-8": 1}


@pytest.mark.parametrize(
    ("head", "root"),
    [
        (b"<?xml version='1.0'?>\n<!-- x -->\n<server-data xmlns='urn:xmpp:pie:0'>", "server-data"),
        (b"<x:host jid='a' xmlns:x='urn:xmpp:pie:0'>", "host"),
        (b"<Openfire>", "Openfire"),
        (b"<server-data>", ""),
        (b"<Openfired>", ""),
        (b"<ejabberd xmlns='urn:xmpp:pie:0'>", ""),
        (b"return {};", ""),
        (b"<?x?>" * 10_000 + b"<!", ""),
    ],
)
def test_what_is_recognised(head: bytes, root: str) -> None:
    assert root_of(head) == root
