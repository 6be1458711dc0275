"""JSON Lines: the lossless form of accounts, and the wire between processes."""

import gzip
import json
import random
from dataclasses import fields
from pathlib import Path
from string import printable
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st
from truth import canonical, differences, truth

from xmppd import ns
from xmppd.migrate.formats.jsonl import (
    ACCOUNT_KEYS,
    FORMAT,
    LONGEST_LINE,
    BadLine,
    JsonLinesWriter,
    account_of,
    item_of,
    line_of,
    wire_of,
)
from xmppd.migrate.fragments import element_of
from xmppd.migrate.record import Account, Contact, Keys, Offline, Unreadable
from xmppd.migrate.source import Options, SourceError, head_of
from xmppd.xml.build import serialize

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = TEXT.filter(bool)
DOMAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="@"), min_size=1, max_size=8)
XML_TEXT = st.text(st.sampled_from("a <>&'\"\t\n\rü♥\U0001f339]"), max_size=8)
SECONDS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2**40)


def _element(name: str, text: str, attribute: str, children: list[Element]) -> Element:
    tree = Element(f"{{{ns.CLIENT}}}{name}", {"a": attribute})
    tree.text = text or None
    for child in children:
        child.tail = text or None
        tree.append(child)
    return tree


XML = st.recursive(
    st.builds(_element, st.just("a"), XML_TEXT, XML_TEXT, st.just([])),
    lambda inner: st.builds(_element, st.just("b"), XML_TEXT, XML_TEXT, st.lists(inner, max_size=3)),
    max_leaves=6,
).map(lambda tree: element_of(serialize(tree)))


@st.composite
def _keys(draw: st.DrawFn) -> dict[str, Keys]:
    sizes = draw(st.sets(st.sampled_from([("sha1", 20), ("sha256", 32), ("sha512", 64)])))
    return {
        name: Keys(
            draw(st.binary(max_size=20)),
            draw(st.integers(1, 100_000)),
            draw(st.binary(min_size=size, max_size=size)),
            draw(st.binary(min_size=size, max_size=size)),
        )
        for name, size in sizes
    }


CONTACT = st.builds(
    Contact,
    NAME,
    st.sampled_from(["none", "to", "from", "both"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.none() | TEXT,
    st.lists(TEXT, max_size=3),
    st.none() | XML,
    st.booleans(),
)
ACCOUNT = st.builds(
    Account,
    NAME,
    DOMAIN,
    where=TEXT,
    password=st.none() | TEXT,
    keys=_keys(),
    disabled=st.booleans(),
    created=st.none() | SECONDS,
    modified=st.none() | SECONDS,
    last=st.none() | SECONDS,
    last_status=TEXT,
    roster=st.lists(CONTACT, max_size=3),
    vcard=st.none() | XML,
    private=st.lists(XML, max_size=2),
    offline=st.lists(st.builds(Offline, XML, st.none() | SECONDS), max_size=2),
    blocks=st.lists(TEXT, max_size=2),
)


def test_every_field_of_an_account_is_generated() -> None:
    wanted = {"local", "domain", "where", *(key for key in ACCOUNT_KEYS if key != "account")}
    assert {each.name for each in fields(Account)} == wanted


def _comparable(value: Any) -> Any:
    """The same with every element as what it means."""
    if isinstance(value, Element):
        return canonical(value)
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    if isinstance(value, Account | Contact | Offline):
        return [_comparable(getattr(value, name)) for name in value.__slots__]
    return value


@given(ACCOUNT)
def test_what_is_written_is_read_again(account: Account) -> None:
    line = line_of(account)
    assert "\n" not in line
    again = account_of(line)
    assert _comparable(again) == _comparable(account)
    assert line_of(again) == line


@given(st.lists(ACCOUNT, max_size=4, unique_by=lambda account: account.name))
def test_a_file_that_is_written_is_read_again(accounts: list[Account]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "accounts.jsonl"
        writer = JsonLinesWriter(path)
        for account in accounts:
            writer.write(account)
        writer.close()
        assert path.stat().st_mode & 0o777 == 0o600
        found = list(FORMAT.open(path, Options(scratch=Path(folder))))
    for number, account in enumerate(accounts, 1):
        account.where = account.where or f"accounts.jsonl:{number}"
    assert list(map(_comparable, found)) == list(map(_comparable, accounts))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.write_text("dear")
    with pytest.raises(SourceError, match="there already"):
        JsonLinesWriter(path)
    with pytest.raises(SourceError, match="cannot be written"):
        JsonLinesWriter(tmp_path / "no" / "folder")


def test_unreadable_accounts_pass_the_wire_too() -> None:
    item = Unreadable("a@b", "why ü", "there:1")
    assert item_of(wire_of(item)) == item
    assert item_of(wire_of(Account("a", "b"))) == Account("a", "b")


def _read(path: Path, domain: str = "") -> list[Account | Unreadable]:
    return list(FORMAT.open(path, Options(domain, path.parent)))


def _file(path: Path, *lines: object) -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_the_simple_form_of_a_script(tmp_path: Path) -> None:
    rows = [
        {
            "account": row["account"],
            "password": row["password"],
            "roster": row["roster"],
            "private": row.get("private"),
            "vcard": row.get("vcard"),
            "blocks": row.get("blocked", []),
        }
        for row in truth().values()
    ]
    path = _file(tmp_path / "export.jsonl", *rows)
    assert FORMAT.recognises(path, head_of(path))
    left = [row for row in differences(_read(path)) if row["what"] not in ("requests", "offline")]
    assert left == []


def test_defaults_domain_order_and_places(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    text = '\n{"account": "b"}\r\n\n{"account": "a@h", "password": null, "roster": [{"jid": "c@h"}]}'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert _read(path, "host") == [
        Account("b", "host", "a.jsonl:2"),
        Account("a", "h", "a.jsonl:4", roster=[Contact("c@h")]),
    ]
    assert _read(path)[0] == Unreadable("b", "'b' has no domain", "a.jsonl:2")


def test_a_name_may_have_an_at_sign() -> None:
    account = account_of('{"account":"a@b@c"}')
    assert (account.local, account.domain) == ("a@b", "c")


def test_each_account_comes_once(tmp_path: Path) -> None:
    path = _file(tmp_path / "a", {"account": "a@h"}, {"account": "b@h"}, {"account": "a@h"})
    reader = FORMAT.open(path, Options(scratch=tmp_path))
    found = list(reader)
    assert found[2] == Unreadable("a@h", "the account is there already: a:1", "a:3")
    assert list(reader) == found
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_packed_file_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"account": "a@h"}\n' * 2))
    assert FORMAT.recognises(path, head_of(path))
    assert [item.name for item in _read(path)] == ["a@h", "a@h"]
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(SourceError, match=r"cannot be read on: .* ended"):
        _read(path)


KEYS = {"salt": "c2FsdA==", "iterations": 4096, "stored": "A" * 27 + "=", "server": "A" * 27 + "="}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("x", "not JSON: Expecting value at letter 0"),
        ('{"account": "a@h"', "not JSON"),
        ('{"account": "a@h"} {}', "not JSON: Extra data"),
        ("[]", "not an object"),
        ("{}", "no `account`"),
        ({"account": 5}, "no `account`"),
        ({"account": ""}, "no `account`"),
        ({"account": "a@h", "pasword": "p"}, "unknown key 'pasword'"),
        ({"account": "a@h", "password": 5}, "'password' has to be text"),
        ({"account": "a@h", "disabled": 1}, "'disabled' has to be true or false"),
        ({"account": "a@h", "created": "1"}, "'created' has to be seconds"),
        ({"account": "a@h", "created": True}, "'created' has to be seconds"),
        ('{"account": "a@h", "created": NaN}', "NaN is no number"),
        ('{"account": "a@h", "created": 1e999}', "'created' has to be seconds"),
        ('{"account": "a@h", "created": 1' + "0" * 400 + "}", "'created' has to be seconds"),
        ('{"account": "a@h", "created": 1' + "0" * 5000 + "}", "not JSON: Exceeds the limit"),
        ('{"account": "a@h", "password": "\\ud800"}', "half a surrogate pair"),
        ('{"account": "a@h", "roster": ' + "[" * 100_000, "too deeply nested"),
        ({"account": "a@h", "keys": []}, "'keys' has to be an object by hash"),
        ({"account": "a@h", "keys": {"sha1": "x"}}, "'keys.sha1' has to be an object of"),
        ({"account": "a@h", "keys": {"sha1": {**KEYS, "x": 1}}}, "'keys.sha1' has to be an object of"),
        ({"account": "a@h", "keys": {"sha1": {**KEYS, "salt": "?"}}}, "'keys.sha1' has to be in base64"),
        ({"account": "a@h", "keys": {"sha1": {**KEYS, "salt": 1}}}, "'keys.sha1' has to be in base64"),
        ({"account": "a@h", "keys": {"sha1": {**KEYS, "iterations": 0}}}, "'keys.sha1.iterations' has to"),
        ({"account": "a@h", "keys": {"sha1": {**KEYS, "iterations": 1e3}}}, "'keys.sha1.iterations' has to"),
        ({"account": "a@h", "keys": {"sha256": KEYS}}, "'keys.sha256' has to be keys of that hash"),
        ({"account": "a@h", "keys": {"sha1": {**KEYS, "server": "QQ=="}}}, "'keys.sha1' has to be keys"),
        ({"account": "a@h", "roster": {}}, "'roster' has to be an array"),
        ({"account": "a@h", "roster": ["c@h"]}, "'roster' has to be an array of objects"),
        ({"account": "a@h", "roster": [{"name": "x"}]}, "a contact without `jid`"),
        ({"account": "a@h", "roster": [{"jid": 1}]}, "'jid' has to be text"),
        ({"account": "a@h", "roster": [{"jid": "c", "sub": "to"}]}, "unknown key 'sub' of a contact"),
        ({"account": "a@h", "roster": [{"jid": "c", "subscription": "remove"}]}, "'subscription' has to be"),
        ({"account": "a@h", "roster": [{"jid": "c", "ask": "subscribe"}]}, "'ask' has to be true or false"),
        ({"account": "a@h", "roster": [{"jid": "c", "groups": "g"}]}, "'groups' has to be an array"),
        ({"account": "a@h", "roster": [{"jid": "c", "groups": [1]}]}, "'groups' has to be an array of texts"),
        ({"account": "a@h", "roster": [{"jid": "c", "request": "<a>"}]}, "'request': not well-formed"),
        ({"account": "a@h", "vcard": "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>"}, "'vcard': not well-"),
        ({"account": "a@h", "vcard": {}}, "'vcard' has to be XML as text"),
        ({"account": "a@h", "private": "<a/>"}, "'private' has to be an array"),
        ({"account": "a@h", "private": ["<a>" * 100 + "</a>" * 100]}, "'private': more than 64 levels"),
        ({"account": "a@h", "offline": {}}, "'offline' has to be an array"),
        ({"account": "a@h", "offline": ["<message/>"]}, "'offline' has to be an array of objects"),
        ({"account": "a@h", "offline": [{"message": "<a/>", "x": 1}]}, "'offline' has to be an array of"),
        ({"account": "a@h", "offline": [{"message": "<a/>", "at": "x"}]}, "'at' has to be seconds"),
        ({"account": "a@h", "blocks": [1]}, "'blocks' has to be an array of addresses"),
    ],
)
def test_a_line_that_is_wrong_costs_one_account(tmp_path: Path, line: object, why: str) -> None:
    found = _read(_file(tmp_path / "f", {"account": "first@h"}, line, {"account": "last@h"}))
    assert [found[0].name, found[2].name] == ["first@h", "last@h"]
    wrong = found[1]
    assert isinstance(wrong, Unreadable)
    assert wrong.why.startswith(why)
    assert wrong.where == "f:2"
    assert wrong.name == ("a@h" if '"a@h"' in str(line) or "'a@h'" in str(line) else "")


def test_reasons_hold_no_secrets() -> None:
    with pytest.raises(BadLine) as error:
        account_of('{"account": "a@h", "password": ["secret"], "keys": 1}')
    assert "secret" not in str(error.value)


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b'{"account": "a@h", "password": "\xfc"}\n{"account": "b@h"}\n')
    assert _read(path) == [
        Unreadable("a@h", "not UTF-8 at byte 32 of the line", "f:1"),
        Account("b", "h", "f:2"),
    ]


def test_a_line_that_is_too_long_is_passed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.write(b'{"account": "a@h", "password": "' + b"x" * LONGEST_LINE + b'"}\n{"account": "b@h"}\n')
    assert _read(path) == [
        Unreadable("", f"a line of more than {LONGEST_LINE} bytes (byte 0)", "f:1"),
        Account("b", "h", "f:2"),
    ]


def test_a_line_without_an_end_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.write(b'{"account": "a@h"}\n')
        file.truncate(1 << 30)
    with pytest.raises(SourceError, match=r"f:2 \(byte 19\): a line without an end"):
        _read(path)


def test_random_spoilt_lines_never_break_it() -> None:
    rng = random.Random(1)
    row = {
        "account": "a@h",
        "keys": {"sha1": KEYS},
        "roster": [{"jid": "c@h", "groups": ["g"]}],
        "vcard": "<a/>",
    }
    line = json.dumps(row)
    for _ in range(5000):
        at = rng.randrange(len(line))
        spoilt = line[:at] + rng.choice(printable) * rng.randrange(3) + line[at + rng.randrange(4) :]
        try:
            account_of(spoilt)
        except BadLine:
            continue


def test_other_files_are_not_taken_for_it(tmp_path: Path) -> None:
    for head in (b"", b"return {", b"{tables,[{passwd", b'{\n"a": 1', b"account,password\n", b"[1]"):
        assert not FORMAT.recognises(tmp_path, head)
