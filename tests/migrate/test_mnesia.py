"""Erlang terms, and ejabberd's dump of Mnesia."""

import base64
import random
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import pytest
from truth import SAMPLES, differences, unexplained

from xmppd.migrate.erlang import (
    DEEPEST_TERM,
    LONGEST_TERM,
    Atom,
    BadTerm,
    Chars,
    Opaque,
    term_of,
    terms_in,
    text_of,
)
from xmppd.migrate.formats.mnesia import FORMAT
from xmppd.migrate.record import Account, Contact, Losses, Unreadable
from xmppd.migrate.source import Options, SourceError, head_of
from xmppd.xml.build import serialize


def _bytes(text: str) -> str:
    """UTF-8 as the parser gets it."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("a.", Atom("a")),
        ("'it\\'s x'", Atom("it's x")),
        ("{}", ()),
        ("[ ] .", []),
        ("{a,[1,-2,3.5e1],<<>>}", (Atom("a"), [1, -2, 35.0], "")),
        ("16#ff", 255),
        ("$a", 97),
        ("$\\n", 10),
        ('<<"plain">>', "plain"),
        (_bytes('<<"bücher">>'), "bücher"),
        ('<<"b\xfccher"/utf8>>', "bücher"),
        (_bytes('<<"bücher"/utf8>>'), "bücher"),
        ('<<"\\x{1f339}"/utf8>>', "\U0001f339"),
        ("<<207,131,\n  206>>", b"\xcf\x83\xce"),
        ("<<207,131>>", "\u03c3"),
        ('<<207,"\\203">>', "\u03c3"),
        ('<<"a"\n "b">>', "ab"),
        ('<<"\xfc">>', b"\xfc"),
        ('<<"a\\"b\\\\c\\n\\t\\e\\x41\\101\\^a\\q">>', 'a"b\\c\n\t\x1bAA\x01q'),
        ('<<"a>>b<<\'">>', "a>>b<<'"),
        ('"text"', Chars("text")),
        ('["a" "b"\n  "c"]', [Chars("abc")]),
        ("#{a => 1,<<\"b\">> => [x]}", {Atom("a"): 1, "b": [Atom("x")]}),
        ("#{}", {}),
        ("{<0.1.2>,#Ref<0.1.2.3>,#Fun<a.1.2>,#Port<0.5>}",
         (Opaque("<0.1.2>"), Opaque("#Ref<0.1.2.3>"), Opaque("#Fun<a.1.2>"), Opaque("#Port<0.5>"))),
        ("\xe9t\xe9@x", Atom("\xe9t\xe9@x")),
    ],
)  # fmt: skip
def test_terms(text: str, term: Any) -> None:
    found = term_of(text)
    assert found == term
    assert type(found) is type(term)


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a b", "{a", "a}", "{a]", "[a}", "{,}", "{a,}", "{a,,b}", "{a b}", "a,b", "a. b.", "A", "_",
        "[a|b]", '<<"a>>', '"a', "'a", '"a\nb"', "<<256>>", "<<-1>>", "<<1:7>>", "<<a>>", '<<"\\x{100}">>',
        '<<1,"\\x{100}">>', '"\\x{d800}"', '"\\x{110000}"', '"\\x{ffffffffffffffff}"', "1#1", "37#1", "2#9",
        "$", "#", "#{a}", "#{a => 1,b}", "#{a => 1 => 2}", "#{=> 1}", "#{a,b,c}", "#{[] => 1}", "{a => 1}",
        "#rec{a=1}", "<0.1>", "fun(X) -> X end", 'os:cmd("x")', '<<"x">>"y"', "1" * 5000, "\u00b2",
    ],
)  # fmt: skip
def test_what_is_no_term_is_refused(text: str) -> None:
    with pytest.raises(BadTerm):
        term_of(text)


def test_depth_is_bounded() -> None:
    deep = DEEPEST_TERM - 1
    assert term_of("[" * deep + "a" + "]" * deep)
    for opening in ("[", "{", "#{a=>", "{a,["):
        with pytest.raises(BadTerm, match="levels"):
            term_of(opening * 100_000)


def test_text_of_a_term() -> None:
    assert [text_of(term) for term in ("a", Chars("b\xc3\xbc"), Chars("\xfc"), [])] == [
        "a",
        "b\xfc",
        "\xfc",
        "",
    ]
    for term in (b"\xff", Atom("a"), 1, ["a"], ("a",), Opaque("<0.1.2>")):
        with pytest.raises(BadTerm):
            text_of(term)


def _terms(data: bytes) -> list[tuple[int, int, bytes | None, bool]]:
    return list(terms_in(BufferedReader(BytesIO(data))))  # type: ignore[arg-type]


def test_terms_of_a_file_have_their_places() -> None:
    assert _terms(b"% comment\n\n{a,\n b}.\n{c}.\n\n{d") == [
        (3, 11, b"% comment\n\n{a,\n b}", True),
        (5, 20, b"{c}", True),
        (7, 26, b"\n{d", False),
    ]
    assert _terms(b"{a}.\r\n{b}.\r\n") == [(1, 0, b"{a}", True), (2, 6, b"{b}", True)]
    assert _terms(b"{a}.\n {b}. ") == [(1, 0, b"{a}", True), (2, 6, b" {b}", True)]
    assert _terms(b"{a}.\n  % end\n") == [(1, 0, b"{a}", True)]
    assert term_of("% comment\n\n % more\n a") == "a"


def test_a_term_that_is_too_long_is_passed() -> None:
    long = b"{a,\n" + b" b,\n" * (LONGEST_TERM // 3) + b" c}.\n"
    lines = LONGEST_TERM // 3 + 3
    assert _terms(long + b"{c}.\n") == [(1, 0, None, True), (lines, len(long), b"{c}", True)]
    last = (2, LONGEST_TERM + 4, b"{c}", True)
    assert _terms(b"{" + b"x" * LONGEST_TERM + b"}.\n{c}.\n")[1] == last
    assert _terms(b"\n{" + b"x" * LONGEST_TERM) == [(2, 1, None, False)]


def test_a_large_term_is_parsed() -> None:
    assert len(term_of("[" + "10," * 500_000 + "10].")) == 500_001
    assert len(term_of('<<"' + '\\"' * 2_000_000 + '">>')) == 2_000_000


@pytest.mark.parametrize("kind", ["sha1", "plain"])
def test_samples_are_read_to_their_truth(kind: str, tmp_path: Path) -> None:
    folder = SAMPLES / f"ejabberd-23.01/mnesia-{kind}/dump"
    path = folder / "mnesia.dump"
    assert FORMAT.recognises(path, head_of(path))
    losses = Losses()
    reader = FORMAT.open(path, Options(scratch=tmp_path, losses=losses))
    found = list(reader)
    assert reader.total == len(found) == 60
    assert [item.name for item in found] == sorted(item.name for item in found)
    left = unexplained(differences(found), folder / "differences.jsonl")
    assert [(row["account"], row["what"], row["found"]) for row in left] == [
        ("kira@chat.example", "blocked", ["tybalt@remote.example"])  # of the default privacy list
    ]
    assert losses.summary() == {"pep-node": 4, "privacy-list": 4, "shared-group": 3, "sr-group": 1}
    assert [item.created for item in found if isinstance(item, Account)].count(None) == 0
    again = list(reader)
    assert [item.name for item in again] == [item.name for item in found]
    reader.close()
    assert list(tmp_path.iterdir()) == []


def _tables(*extra: str) -> str:
    names = ",".join((
        "{passwd,[{record_name,passwd},{attributes,[us,password]}]}",
        "{roster,[{record_name,roster},{attributes,[usj,us,jid,name,subscription,ask,groups,askmessage,xs]}]}",
        *extra,
    ))  # fmt: skip
    return f"{{tables,[{names}]}}.\n"


def _read(tmp_path: Path, text: str, tables: str | None = None) -> tuple[list[Account | Unreadable], Losses]:
    path = tmp_path / "f"
    path.write_bytes(((_tables() if tables is None else tables) + text).encode("latin-1"))
    losses = Losses()
    reader = FORMAT.open(path, Options(scratch=tmp_path, losses=losses))
    try:
        return list(reader), losses
    finally:
        reader.close()


def _one(tmp_path: Path, text: str, tables: str | None = None) -> Account:
    found, losses = _read(tmp_path, text, tables)
    assert losses.summary() == {}
    (account,) = found
    assert isinstance(account, Account)
    return account


USER = '{<<"a">>,<<"h">>}'


def _roster(
    sub: str,
    ask: str,
    *,
    jid: str = '{<<"c">>,<<"h">>,<<>>}',
    name: str = "<<>>",
    groups: str = "[]",
    message: str = "<<>>",
    xs: str = "[]",
    more: str = "",
) -> str:
    key = '{<<"a">>,<<"h">>,{<<"c">>,<<"h">>,<<>>}}'
    return f"{{roster,{key},{USER},{jid},{name},{sub},{ask},{groups},{message},{xs}{more}}}.\n"  # fmt: skip


@pytest.mark.parametrize("message", ["<<>>", '<<"hi">>'])
@pytest.mark.parametrize(
    ("sub", "ask", "state"),
    [
        ("none", "none", ("none", False, False)),
        ("none", "out", ("none", True, False)),
        ("none", "in", ("none", False, True)),
        ("none", "both", ("none", True, True)),
        ("to", "none", ("to", False, False)),
        ("to", "in", ("to", False, True)),
        ("from", "none", ("from", False, False)),
        ("from", "out", ("from", True, False)),
        ("both", "none", ("both", False, False)),
        ("none", "subscribe", ("none", True, False)),
        ("from", "unsubscribe", ("from", False, False)),
    ],
)
def test_states(tmp_path: Path, sub: str, ask: str, state: tuple[str, bool, bool], message: str) -> None:
    account = _one(tmp_path, _roster(sub, ask, message=message))
    (contact,) = account.roster
    assert (contact.subscription, contact.ask, contact.pending) == state
    assert contact.listed == (state != ("none", False, True))
    if contact.pending and message != "<<>>":
        assert contact.request is not None
        assert serialize(contact.request) == (
            b"<presence type='subscribe' from='c@h'><status>hi</status></presence>"
        )
    else:
        assert contact.request is None


def test_a_contact_in_all_its_forms(tmp_path: Path) -> None:
    for name in ('<<"N \xc3\xbc">>', '"N \xfc"', "<<78,32,195,188>>", '<<"N \\303\\274">>'):
        account = _one(
            tmp_path,
            _roster("both", "none", jid='{<<>>,<<"gw">>,<<"r">>}', name=name, groups='[<<"g">>,<<"k,l">>]'),
        )
        assert account.roster == [Contact("gw/r", "both", name="N \xfc", groups=["g", "k,l"])]
    account = _one(tmp_path, _roster("none", "in", name='<<"N">>'))
    assert account.roster == [Contact("c@h", pending=True, name="N")]
    account = _one(
        tmp_path,
        _roster("none", "in", xs='[{xmlel,<<"nick">>,[{<<"xmlns">>,<<"urn:n">>}],[{xmlcdata,<<"C">>}]}]'),
    )
    assert account.roster[0].request is not None
    assert serialize(account.roster[0].request[0]) == b"<nick xmlns='urn:n'>C</nick>"
    assert _one(tmp_path, _roster("remove", "none")).roster == []


def test_fields_are_taken_as_the_dump_names_them(tmp_path: Path) -> None:
    tables = _tables().replace("askmessage,xs", "askmessage,xs,approved")
    account = _one(tmp_path, _roster("none", "none", more=",true"), tables)
    assert account.roster == [Contact("c@h", approved=True)]
    assert _one(tmp_path, _roster("none", "none", more=",false"), tables).roster == [Contact("c@h")]
    found, losses = _read(tmp_path, _roster("none", "none"), tables)
    assert found == []
    assert (
        losses.kinds["unreadable-record"]
        .samples[0][1]
        .endswith("a record of roster with 9 fields instead of 10")
    )


SCRAM = '<<"{}">>,<<"{}">>,<<"c2FsdA==">>'


@pytest.mark.parametrize(
    ("record", "name", "size"),
    [
        ('{{scram,<<"{0}">>,<<"{0}">>,<<"c2FsdA==">>,4096}}', "sha1", 20),
        ('{{scram,<<"{0}">>,<<"{0}">>,<<"c2FsdA==">>,sha,4096}}', "sha1", 20),
        ('{{scram,<<"{0}">>,<<"{0}">>,<<"c2FsdA==">>,sha256,4096}}', "sha256", 32),
        ('{{scram,"{0}","{0}","c2FsdA==",sha512,4096}}', "sha512", 64),
        (
            '#{{x=>#{{salt=>"c2FsdA==",server_key=>"{0}",stored_key=>"{0}"}},iteration_count=>4096}}',
            "sha256",
            32,
        ),
    ],
)  # fmt: skip
def test_keys(tmp_path: Path, record: str, name: str, size: int) -> None:
    key = base64.b64encode(b"\xf0" * size).decode()
    account = _one(tmp_path, f"{{passwd,{USER},{record.format(key)}}}.\n")
    assert account.keys == {name: (b"salt", 4096, b"\xf0" * size, b"\xf0" * size)}
    assert account.password is None


def test_several_keys_of_one_account(tmp_path: Path) -> None:
    keys = {name: base64.b64encode(b"\xf0" * size).decode() for name, size in (("sha", 20), ("sha256", 32))}
    text = "".join(
        f'{{passwd,{{<<"a">>,<<"h">>,{name}}},{{scram,<<"{key}">>,<<"{key}">>,<<"c2FsdA==">>,{name},4096}}}}.\n'
        for name, key in keys.items()
    )
    assert set(_one(tmp_path, text).keys) == {"sha1", "sha256"}


def test_plain_passwords_and_banned_accounts(tmp_path: Path) -> None:
    assert _one(tmp_path, f'{{passwd,{USER},<<"p\\"w">>}}.\n').password == 'p"w'
    banned = _one(tmp_path, f'{{passwd,{USER},<<"BANNED_ACCOUNT--20240101T10:00:00--x--spam">>}}.\n')
    assert (banned.password, banned.disabled) == (None, True)


PASSWORD = f'{{passwd,{USER},<<"p">>}}.\n'


def test_last_activity(tmp_path: Path) -> None:
    account = _one(tmp_path, PASSWORD + f'{{last_activity,{USER},17,<<"Registered but didn\'t login">>}}.\n')
    assert (account.created, account.last, account.last_status) == (17, None, "")
    account = _one(tmp_path, PASSWORD + f'{{last_activity,{USER},17,<<"gone">>}}.\n')
    assert (account.created, account.last, account.last_status) == (None, 17, "gone")


def test_offline_messages_come_by_time(tmp_path: Path) -> None:
    who = '{jid,<<"c">>,<<"h">>,<<"r">>,<<"c">>,<<"h">>,<<"r">>}'
    text = "".join(
        f"{{offline_msg,{USER},{{1795,854551,{micro}}},never,{who},{who},"
        f'{{xmlel,<<"message">>,[{{<<"id">>,<<"{micro}">>}}],[{{xmlel,<<"body">>,[],[{{xmlcdata,<<"<&>">>}}]}}]}}}}.\n'
        for micro in (500000, 250000)
    )
    account = _one(tmp_path, PASSWORD + text)
    assert [offline.at for offline in account.offline] == [1795854551.25, 1795854551.5]
    assert serialize(account.offline[0].message) == (
        b"<message id='250000' from='c@h/r' to='c@h/r'><body>&lt;&amp;&gt;</body></message>"
    )


def test_a_vcard_of_pep_only_where_there_is_no_other(tmp_path: Path) -> None:
    item = (
        '{pubsub_item,{<<"current">>,2},2,{{1,2,3},{<<"a">>,<<"h">>,<<>>}},{{1,2,3},{<<"a">>,<<"h">>,<<>>}},'
        '[{xmlel,<<"vcard">>,[{<<"xmlns">>,<<"urn:ietf:params:xml:ns:vcard-4.0">>}],'
        '[{xmlel,<<"fn">>,[],[{xmlel,<<"text">>,[],[{xmlcdata,<<"A">>}]}]}]}]}.\n'
    )
    account = _one(tmp_path, item + PASSWORD)
    assert account.vcard is not None
    assert serialize(account.vcard) == b"<vCard xmlns='vcard-temp'><FN>A</FN></vCard>"
    other = f'{{vcard,{USER},{{xmlel,<<"vCard">>,[{{<<"xmlns">>,<<"vcard-temp">>}}],[]}}}}.\n'
    (account, losses) = (
        _read(tmp_path, item + PASSWORD + other)[0][0],
        _read(tmp_path, item + PASSWORD + other)[1],
    )
    assert isinstance(account, Account)
    assert account.vcard is not None
    assert len(account.vcard) == 0
    assert losses.summary() == {"pep-vcard": 1}


def test_what_belongs_to_no_account_is_told(tmp_path: Path) -> None:
    text = (
        f'{{last_activity,{USER},17,<<"gone">>}}.\n{{muc_room,{{<<"r">>,<<"h">>}},[]}}.\n'
        '{roster_version,{<<"a">>,<<"h">>},<<"v">>}.\n{pubsub_node,{<<"pubsub.h">>,<<"n">>},4,[],<<"flat">>,[],[]}.\n'
    )
    found, losses = _read(tmp_path, text)
    assert found == []
    assert losses.summary() == {"muc-room": 1, "pubsub-node": 1, "without-account": 1}


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (_roster("friend", "none"), "no such state: friend, none"),
        (_roster("none", "maybe"), "no such state: none, maybe"),
        (_roster("none", "none", name="5"), "no text where one is meant"),
        (_roster("none", "none", name='<<"\xff">>'), "text that is not UTF-8"),
        (_roster("none", "none", groups="x"), "groups that are no list"),
        (_roster("none", "none", jid="x"), "no address where one is meant"),
        (_roster("none", "none", jid="{a,b}"), "no address where one is meant"),
        (_roster("none", "none", more=",1"), "a record of roster with 10 fields instead of 9"),
        (f"{{last_activity,{USER},x,<<>>}}.\n", "no number where one is meant"),
        (f"{{last_activity,{USER},1{'0' * 30},<<>>}}.\n", "no number where one is meant"),
        (f"{{vcard,{USER},x}}.\n", "no XML where it is meant"),
        (f'{{vcard,{USER},{{xmlel,<<"a><b/>">>,[],[]}}}}.\n', "a name that XML does not have"),
        (f'{{vcard,{USER},{{xmlel,<<"p:a">>,[],[]}}}}.\n', "not well-formed: unbound prefix"),
        (f'{{vcard,{USER},{{xmlel,<<"a">>,x,[]}}}}.\n', "fields of unknown form"),
        (f"{{privacy,{USER},none,[x]}}.\n", "fields of unknown form"),
        (f'{{offline_msg,{USER},x,never,x,x,{{xmlel,<<"message">>,[],[]}}}}.\n', "fields of unknown form"),
        (f"{{vcard,{USER},{{xmlel}}.\n", "it ends too early"),
        (f'{{vcard,{USER},os:cmd("touch x")}}.\n', "':' in a wrong place"),
    ],
)
def test_a_broken_record_costs_itself(tmp_path: Path, record: str, why: str) -> None:
    found, losses = _read(tmp_path, record + PASSWORD)
    assert [(item.name, getattr(item, "password", None)) for item in found] == [("a@h", "p")]
    ((kind, loss),) = losses.kinds.items()
    assert (kind, loss.count) == ("unreadable-record", 1)
    assert why in loss.samples[0][1]
    assert "f:2: " in loss.samples[0][1]


def test_keys_that_cannot_be_read_leave_an_account_without(tmp_path: Path) -> None:
    for password in ("{scram,x}", "5", '{scram,<<"AA==">>,<<"AA==">>,<<"AA==">>,sha,4096}', '<<"\xff">>'):
        found, losses = _read(tmp_path, f"{{passwd,{USER},{password}}}.\n")
        (account,) = found
        assert isinstance(account, Account)
        assert (account.password, account.keys) == (None, {})
        assert losses.summary() == {"unreadable-record": 1}


def test_a_name_that_is_not_utf_8_is_unreadable(tmp_path: Path) -> None:
    found, _ = _read(tmp_path, '{passwd,{<<"\xff">>,<<"h">>},<<"p">>}.\n' + PASSWORD)
    assert found[0] == Unreadable("\ufffd@h", "text that is not UTF-8", "f:2")
    assert found[1].name == "a@h"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r"f:1 \(byte 0\): it ends too early; is it the whole output"),
        ("{tables,x}.\n", r"f:1 \(byte 0\): the first term is not"),
        ("{tables,[{passwd,[]}]}.\n", r"f:1 \(byte 0\): the first term is not"),
        ("{passwd,{a,b},c}.\n", r"f:1 \(byte 0\): the first term is not"),
        ("tables.\n", r"f:1 \(byte 0\): the first term is not"),
        (_tables() + PASSWORD + PASSWORD[:-4], r"f:3 \(byte \d+\): the file ends in the middle of a record"),
    ],
)
def test_files_that_are_not_whole(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        _read(tmp_path, text, "")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_spoilt_samples_never_break_it(tmp_path: Path) -> None:
    rng = random.Random(2)
    text = (SAMPLES / "ejabberd-23.01/mnesia-sha1/dump/mnesia.dump").read_bytes().decode("latin-1")
    begin = text.index("{tables")
    records = text.split("\n{")
    for _ in range(60):
        chosen = [*records[:1], *rng.sample(records[1:], 40)]
        spoilt = list("\n{".join(chosen) + "\n")
        for _ in range(rng.randrange(1, 40)):
            spoilt[rng.randrange(begin + 3000, len(spoilt))] = rng.choice('<>"{}[],.\\\n\xff a0#$')
        try:
            _read(tmp_path, "".join(spoilt), "")
        except SourceError:
            continue
