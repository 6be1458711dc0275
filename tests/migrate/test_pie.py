"""XEP-0227 and Openfire's XML, read: the samples against their truth, and each rule by itself."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from pies import PIE, accounts, document, of, read, roster
from truth import SAMPLES, canonical, differences, truth, unexplained, unpacked

from xmppd.migrate.formats.pie import FORMAT, root_of
from xmppd.migrate.record import Account, Keys, Unreadable
from xmppd.migrate.source import SourceError, head_of

TYBALT = {
    "account": "kira@chat.example",
    "what": "blocked",
    "expected": [],
    "found": ["tybalt@remote.example"],
}
"""The one item of kira's default list that is a block."""


# The samples


@pytest.mark.parametrize("name", ["xep0227-from-internal-plain", "xep0227-from-sqlite-sha256"])
def test_a_folder_of_prosody(name: str, tmp_path: Path) -> None:
    sample = SAMPLES / "prosody-0.12.3" / name
    folder = unpacked(sample, tmp_path / name)
    assert FORMAT.recognises(folder, head_of(folder))
    found, losses = read(folder)
    assert unexplained(differences(found), sample / "differences.jsonl") == []
    assert losses.summary() == {"pep-node": 3}


def test_vcards_of_pep_are_converted_back(tmp_path: Path) -> None:
    folder = unpacked(SAMPLES / "prosody-0.12.3/xep0227-from-internal-plain", tmp_path / "x")
    found = {account.local: account for account in accounts(folder)}
    wrong = {row["account"] for row in differences(found.values()) if row["what"] == "vcard"}
    assert wrong == {"tessa@chat.example"}


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize("name", ["mnesia-plain", "mnesia-sha1", "postgresql-new-schema-sha512"])
def test_an_export_of_ejabberd(name: str, is_folder: bool) -> None:
    folder = SAMPLES / "ejabberd-23.01" / name / "piefxis"
    path = folder if is_folder else min(folder.glob("*.xml"), key=lambda path: len(path.name))
    assert FORMAT.recognises(path, head_of(path))
    found, losses = read(path)
    assert unexplained(differences(found), folder / "differences.jsonl") == [TYBALT]
    assert losses.summary() == {"privacy-list": 4}


def test_a_host_of_ejabberd_with_letters_in_latin_1() -> None:
    folder = SAMPLES / "ejabberd-23.01/idn-host-piefxis"
    found, losses = read(folder / "20261128-090552.xml")
    assert differences(found, truth(folder / "expected.jsonl")) == []
    assert losses.summary() == {"not-utf-8": 2}


def test_a_file_name_in_latin_1(tmp_path: Path) -> None:
    folder = SAMPLES / "ejabberd-23.01/idn-host-piefxis"
    main = tmp_path / "20261128-090552.xml"
    main.write_bytes((folder / main.name).read_bytes())
    part = os.fsencode(tmp_path) + b"/20261128-090552_b\xfccher_example.xml"
    Path(os.fsdecode(part)).write_bytes((folder / "20261128-090552_bücher_example.xml").read_bytes())
    assert differences(accounts(main), truth(folder / "expected.jsonl")) == []


def test_an_export_of_ejabberd_that_crashed() -> None:
    folder = SAMPLES / "ejabberd-23.01/truncated-piefxis"
    why = r"chat_example.xml:1 \(byte 129\): the file ends early; no account before it is whole"
    with pytest.raises(SourceError, match=why):
        read(folder / "20261128-084202.xml")


@pytest.mark.parametrize("name", ["openfire-plugin-xep0227.xml", "openfire-plugin.xml"])
def test_openfire(name: str) -> None:
    path = SAMPLES / "openfire-by-hand" / name
    assert FORMAT.recognises(path, head_of(path))
    found, losses = read(path, domain="chat.example")
    assert len(found) == 14
    names = {account.name for account in found}
    wrong = differences(found, {name: row for name, row in truth().items() if name in names})
    assert {row["account"].partition("@")[0] for row in wrong if row["what"] == "password"} == {
        account.name.partition("@")[0] for account in found
    } - {"henry", "kira"}
    fields = {(row["what"], row.get("field")) for row in wrong}
    whole = {("password", None), ("roster", "approved"), ("roster", None), ("private", None)}
    if name == "openfire-plugin.xml":
        assert fields == whole | {
            ("requests", "status"),
            ("requests", "nick"),
            ("offline", None),
            ("vcard", None),
        }
        assert losses.summary() == {"password-is-name": 12, "profile": 14}
        strange = {row["of"] for row in wrong if row["what"] == "roster" and "field" not in row}
        assert strange == {"resource@remote.example", "resource@remote.example/phone"}
    else:
        assert fields == whole | {("requests", None), ("roster", "groups")}
        assert losses.summary()["password-is-name"] == 12
        assert losses.summary()["groups-joined"] > 50


def test_openfire_passwords_that_are_names_may_be_taken() -> None:
    path = SAMPLES / "openfire-by-hand/openfire-plugin-xep0227.xml"
    assert all(account.password for account in accounts(path, names_as_passwords=True))


# Users and keys


def test_openfire_is_told_by_its_quotes(tmp_path: Path) -> None:
    users = "<user name='a' password='a'/>"
    assert accounts(document(tmp_path, users))[0].password == "a"
    assert accounts(document(tmp_path, users, quote='"'))[0].password is None


def test_attributes_that_prosody_adds(tmp_path: Path) -> None:
    user = "name='a' xmlns:p='http://prosody.im/protocol/extended-xep0227' p:disabled='true' p:created='17.5'"
    account, _ = of(tmp_path, "", user)
    assert account.disabled
    assert account.created == 17.5
    assert account.where.endswith("main.xml:1")


def key(name: str, word: bytes) -> bytes:
    return hashlib.new(name, word).digest()


def text_of(data: bytes, times: int) -> str:
    for _ in range(times):
        data = base64.b64encode(data)
    return data.decode()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", ["sha1", "sha256", "sha512"])
def test_scram_credentials(tmp_path: Path, name: str, times: int) -> None:
    stored, server = key(name, b"stored"), key(name, b"server")
    inner = (
        "<scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='SCRAM-SHA-1'>"
        f"<iter-count>4096</iter-count><salt>{text_of(b'salt of 16 bytes', times)}</salt>"
        f"<server-key>{text_of(server, times)}</server-key>"
        f"<stored-key>\n {text_of(stored, times)}\n</stored-key></scram-credentials>"
    )
    account, _ = of(tmp_path, inner)
    assert account.keys == {name: Keys(b"salt of 16 bytes", 4096, stored, server)}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("word", "name"), [("", "sha1"), ("sha256,", "sha256"), ("sha512,", "sha512")])
def test_old_passwords_of_ejabberd(tmp_path: Path, word: str, name: str, times: int) -> None:
    stored, server = key(name, b"stored"), key(name, b"server")
    texts = ",".join(text_of(data, times) for data in (stored, server, b"salt of 16 bytes"))
    account, _ = of(tmp_path, "", f"name='a' password='scram:{word}{texts},4096'")
    assert account.password is None
    assert account.keys == {name: Keys(b"salt of 16 bytes", 4096, stored, server)}


@pytest.mark.parametrize("password", ["scram:", "scram:a,b,c,d", "scram:sha256,,,,", "Scram:1,2,3,4"])
def test_passwords_that_only_look_like_keys(tmp_path: Path, password: str) -> None:
    account, _ = of(tmp_path, "", f"name='a' password='{password}'")
    assert account.password == password
    assert not account.keys


def test_keys_that_are_none_are_lost(tmp_path: Path) -> None:
    inner = (
        "<scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='SCRAM-SHA-1'><salt/></scram-credentials>"
    )
    account, losses = of(tmp_path, inner, "name='a' password=''")
    assert not account.keys
    assert account.password is None
    assert losses.kinds["keys"].samples == [("a@x", "SCRAM-SHA-1")]


# Rosters and requests


def test_items(tmp_path: Path) -> None:
    inner = roster(
        "<item jid='b@y' name='two&#10;lines' subscription='both'><group>G</group><group>H</group>"
        "<group>G</group></item><item jid='c@y/r' ask='subscribe'/>"
        "<item jid='d@y' ask='unsubscribe' subscription='from' approved='true' name=''/>"
        "<item jid='e@y' subscription='remove'><group>G</group></item>"
    )
    account, losses = of(tmp_path, inner)
    found = [
        (item.jid, item.subscription, item.ask, item.approved, item.name, item.groups)
        for item in account.roster
    ]
    assert found == [
        ("b@y", "both", False, False, "two\nlines", ["G", "H"]),
        ("c@y/r", "none", True, False, None, []),
        ("d@y", "from", False, True, "", []),
    ]
    assert losses.summary() == {}


def test_a_group_without_a_name_is_none_and_tells_openfire(tmp_path: Path) -> None:
    inner = roster("<item jid='b@y'><group/></item><item jid='c@y'><group>GH</group></item>")
    account, losses = of(tmp_path, inner)
    assert [item.groups for item in account.roster] == [[], ["GH"]]
    assert losses.summary() == {"groups-joined": 1}


def test_items_that_are_odd(tmp_path: Path) -> None:
    inner = roster(
        "<item/><item jid='b@y' subscription='maybe'/><other/><item jid='c@y'><x xmlns='u'/></item>"
    )
    account, losses = of(tmp_path, inner)
    assert [(item.jid, item.subscription) for item in account.roster] == [("b@y", "none"), ("c@y", "none")]
    assert losses.kinds["contact"].samples == [("a@x", "no address"), ("a@x", "b@y: subscription maybe")]
    assert losses.kinds["unknown-element"].samples == [("a@x", "{jabber:iq:roster}other"), ("a@x", "{u}x")]


@pytest.mark.parametrize("space", ["", "xmlns='jabber:client'"])
def test_requests(tmp_path: Path, space: str) -> None:
    inner = (
        f"<presence {space} type='subscribe' from='b@y/r' id='7'><status>hi</status>"
        f"<nick xmlns='http://jabber.org/protocol/nick'>B</nick></presence>"
        f"<presence {space} type='subscribe' from='c@y' to='a@x'/>"
        f"<presence {space} type='subscribe' from='d@y/r'/>"
        f"<presence {space} type='subscribe'/><presence {space} from='e@y'/>"
    )
    account, losses = of(tmp_path, inner + roster("<item jid='b@y'/><item jid='d@y/r'/>"))
    found = {item.jid: (item.listed, item.pending, item.request) for item in account.roster}
    assert {jid: row[:2] for jid, row in found.items()} == {
        "b@y": (True, True),
        "d@y/r": (True, True),
        "c@y": (False, True),
    }
    request = found["b@y"][2]
    assert request is not None
    assert canonical(request) == (
        '<{jabber:client}presence from="b@y/r" id="7" type="subscribe"><{jabber:client}status>hi</>'
        "<{http://jabber.org/protocol/nick}nick>B</></>"
    )
    assert found["c@y"][2] is None
    assert losses.kinds["presence"].count == 2


# Everything else of a user


DELAYED = "<message xmlns='jabber:client' from='b@y'>{}<body>hi</body>{}</message>"
OWN = "<delay xmlns='urn:xmpp:delay' from='x' stamp='2026-11-28T08:31:40.605586Z'>Offline Storage</delay>"
HERS = "<delay xmlns='urn:xmpp:delay' from='y' stamp='2024-05-06T07:08:09Z'/>"
OLD = "<x xmlns='jabber:x:delay' from='x' stamp='20261128T08:31:40'>Offline Storage</x>"
JAVA = "<delay xmlns='urn:xmpp:delay' from='x' stamp='Thu Jan 21 14:17:35 CET 2016'/>"
NOBODYS = "<delay xmlns='urn:xmpp:delay' stamp='1970-01-01T00:00:00Z'>Storage</delay>"


@pytest.mark.parametrize(
    ("before", "behind", "at", "delays"),
    [
        ("", "", None, 0),
        ("", OWN, 1795854700.605586, 0),
        (OWN, HERS, 1795854700.605586, 1),
        ("", HERS, None, 1),
        ("", OLD, 1795854700, 0),
        (OLD, OWN, 1795854700.605586, 0),
        ("", JAVA, 1453382255, 0),
        (HERS, NOBODYS, 0, 1),
        (OWN, JAVA, 1453382255, 1),
    ],
)
def test_delays_of_messages(tmp_path: Path, before: str, behind: str, at: float | None, delays: int) -> None:
    account, losses = of(tmp_path, f"<offline-messages>{DELAYED.format(before, behind)}</offline-messages>")
    (waiting,) = account.offline
    assert waiting.at == at
    assert len(waiting.message) == 1 + delays
    assert losses.summary() == {}


def test_messages_in_the_namespace_around(tmp_path: Path) -> None:
    inner = "<offline-messages><message from='b@y'><body>hi</body></message><iq/></offline-messages>"
    account, losses = of(tmp_path, inner)
    assert canonical(account.offline[0].message) == (
        '<{jabber:client}message from="b@y"><{jabber:client}body>hi</></>'
    )
    assert losses.kinds["unknown-element"].samples == [("a@x", "{urn:xmpp:pie:0}iq")]


def test_a_stamp_that_is_none_is_lost(tmp_path: Path) -> None:
    delay = "<delay xmlns='urn:xmpp:delay' from='x' stamp='now'/>"
    account, losses = of(tmp_path, f"<offline-messages>{DELAYED.format('', delay)}</offline-messages>")
    assert account.offline[0].at is None
    assert len(account.offline[0].message) == 1
    assert losses.kinds["stamp"].samples == [("a@x", "now")]


def test_a_vcard_and_private_elements(tmp_path: Path) -> None:
    inner = (
        "<vCard xmlns='vcard-temp'><FN>A</FN></vCard><vCard xmlns='vcard-temp'/>"
        "<query xmlns='jabber:iq:private'><a xmlns='u:1' xml:lang='de'><b xmlns=''/></a><c xmlns='u:2'/>"
        "</query>"
    )
    account, losses = of(tmp_path, inner)
    assert account.vcard is not None
    assert canonical(account.vcard) == "<{vcard-temp}vCard><{vcard-temp}FN>A</></>"
    assert [canonical(tree) for tree in account.private] == [
        '<{u:1}a {http://www.w3.org/XML/1998/namespace}lang="de"><b></></>',
        "<{u:2}c></>",
    ]
    assert losses.summary() == {"unknown-element": 1}


def test_blocks_of_both_kinds_are_one_list(tmp_path: Path) -> None:
    inner = (
        "<query xmlns='jabber:iq:privacy'><default name='Blocked contacts'/><list name='Blocked contacts'>"
        "<item type='jid' value='b@y' action='deny' order='0'/></list></query>"
        "<blocklist xmlns='urn:xmpp:blocking'><item jid='b@y'/><item jid='z'/></blocklist>"
    )
    account, losses = of(tmp_path, inner)
    assert account.blocks == ["b@y", "z"]
    assert losses.summary() == {}


NODE = "<items node='{}'><item id='i'>{}</item></items>"
CARD = NODE.format(
    "urn:xmpp:vcard4",
    "<vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'><fn><text>A</text></fn></vcard>",
)
MOOD = NODE.format("http://jabber.org/protocol/mood", "<mood xmlns='http://jabber.org/protocol/mood'/>")
OWNER = "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'>{}</pubsub>".format(
    "<configure node='urn:xmpp:vcard4'/><configure node='empty'/><affiliations node='empty'/>"
)


def test_pep(tmp_path: Path) -> None:
    pubsub = f"{OWNER}<pubsub xmlns='http://jabber.org/protocol/pubsub'>{MOOD}{CARD}</pubsub>"
    account, losses = of(tmp_path, pubsub)
    assert account.vcard is not None
    assert canonical(account.vcard) == "<{vcard-temp}vCard><{vcard-temp}FN>A</></>"
    other = [("a@x", "empty: 0 items"), ("a@x", "http://jabber.org/protocol/mood: 1 items")]
    assert sorted(losses.kinds["pep-node"].samples) == other
    account, losses = of(tmp_path, pubsub + "<vCard xmlns='vcard-temp'><FN>B</FN></vCard>")
    assert account.vcard is not None
    assert account.vcard[0].text == "B"
    assert sorted(losses.kinds["pep-node"].samples) == [*other, ("a@x", "urn:xmpp:vcard4: 1 items")]


def test_what_is_not_known_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "main.xml"
    path.write_text(
        f"<server-data {PIE}><a xmlns='u'/><host jid='x'><b xmlns='u'><user name='no'/></b><user name='a'>"
        "<c xmlns='u'/><archive xmlns='urn:xmpp:pie:0#mam'><result/><result/></archive>text</user></host>"
        "</server-data>"
    )
    found, losses = read(path)
    assert [account.name for account in found] == ["a@x"]
    assert losses.kinds["unknown-element"].samples == [("", "{u}a"), ("x", "{u}b"), ("a@x", "{u}c")]
    assert losses.kinds["archive"].count == 2


def test_the_old_namespace(tmp_path: Path) -> None:
    path = tmp_path / "main.xml"
    space = "http://www.xmpp.org/extensions/xep-0227.html#ns"
    path.write_text(
        f"<p:server-data xmlns:p='{space}'><p:host jid='x'><p:user name='a'>"
        "<p:offline-messages><p:message/></p:offline-messages></p:user></p:host></p:server-data>"
    )
    assert root_of(path.read_bytes()) == "server-data"
    assert len(accounts(path)[0].offline) == 1


def test_a_user_without_a_name(tmp_path: Path) -> None:
    found, _ = read(document(tmp_path, "<user/>\n<user name='b'/>"))
    assert [account.name for account in found] == ["@x", "b@x"]
    assert isinstance(found[0], Unreadable)
    assert found[0].why == "a user without a name"
    assert found[0].where.endswith("main.xml:1")


# Openfire's own XML


def openfire(tmp_path: Path, users: str) -> Path:
    path = tmp_path / "openfire.xml"
    path.write_text(f"<Openfire>{users}</Openfire>")
    return path


STATES = [
    ("0", "-1", "-1", ("none", False, False, True)),
    ("0", "0", "-1", ("none", True, False, True)),
    ("0", "-1", "1", ("none", False, True, False)),
    ("0", "0", "1", ("none", True, True, True)),
    ("1", "-1", "-1", ("to", False, False, True)),
    ("1", "-1", "1", ("to", False, True, True)),
    ("2", "-1", "-1", ("from", False, False, True)),
    ("2", "0", "-1", ("from", True, False, True)),
    ("3", "-1", "-1", ("both", False, False, True)),
    ("3", "1", "2", ("both", False, False, True)),
]


@pytest.mark.parametrize(("sub", "ask", "recv", "state"), STATES)
def test_states_of_openfire(tmp_path: Path, sub: str, ask: str, recv: str, state: tuple[Any, ...]) -> None:
    item = f"<Item jid='b@y' askstatus='{ask}' recvstatus='{recv}' substatus='{sub}'/>"
    path = openfire(tmp_path, f"<User><Username>a</Username><Roster>{item}</Roster></User>")
    (contact,) = accounts(path, domain="x")[0].roster
    assert (contact.subscription, contact.ask, contact.pending, contact.listed) == state


def test_users_of_openfire(tmp_path: Path) -> None:
    path = openfire(
        tmp_path,
        "<User><Username>a</Username><Password>a</Password><Email>e</Email><Name/><New/>"
        "<CreationDate>001735689600000</CreationDate><Roster>"
        "<Item jid='b@y' substatus='0' recvstatus='1' name='B'><Group>G</Group><Group>H</Group></Item>"
        "<Item jid='c@y' substatus='-1'/><Item/><Item jid='d@y' substatus='9'/></Roster></User>"
        "<Other/><User><Username>b</Username><Password>pw</Password></User>",
    )
    found, losses = read(path, domain="x")
    first, second = found
    assert isinstance(first, Account)
    assert isinstance(second, Account)
    assert (first.name, first.password, first.created) == ("a@x", None, 1735689600)
    assert [(item.jid, item.name, item.groups, item.listed) for item in first.roster] == [
        ("b@y", "B", ["G", "H"], True),
        ("d@y", None, [], True),
    ]
    assert second.password == "pw"
    assert losses.summary() == {"contact": 1, "password-is-name": 1, "profile": 1, "unknown-element": 2}


def test_openfire_needs_a_domain(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="--domain"):
        read(openfire(tmp_path, ""))
