"""What an archive is made of: ids, what is worth keeping, and what clients ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.archive.content import is_content
from plugins.archive.ids import (
    DAY,
    LAST,
    MICROSECONDS,
    POOL,
    Pool,
    at_of,
    bound,
    day_of,
    from_text,
    month_of,
    stamp_of,
    to_text,
)
from plugins.archive.preferences import preferences_of
from plugins.archive.query import Query, form, query_of
from plugins.archive.remarks import remark_of
from xmppd import ns
from xmppd.errors import StanzaError
from xmppd.xml.stanza import Stanza, parse, read

NOW = 1_700_000_000 * MICROSECONDS


@given(st.lists(st.integers(0, LAST - 1), min_size=2, max_size=20, unique=True))
def test_ids_are_in_the_order_of_time_and_read_as_they_are_written(moments: list[int]) -> None:
    pool = Pool()
    ids = [pool.new_id(at) for at in moments]
    assert sorted(ids) == [id for _, id in sorted(zip(moments, ids, strict=True))]
    for at, id in zip(moments, ids, strict=True):
        assert from_text(to_text(id)) == id and at_of(id) == at
        assert bound(at) < id < bound(at + 1)
    assert len(to_text(ids[0])) == 16


def test_no_two_ids_are_the_same_and_none_can_be_guessed() -> None:
    pool = Pool()
    ids = {pool.new_id(NOW) for _ in range(POOL)}
    assert len(ids) == POOL


@pytest.mark.parametrize(
    "text",
    ["", "x", "A" * 15, "A" * 17, "A" * 15 + "=", "A" * 15 + "+", "A" * 15 + "/", "A" * 15 + "é", "_" * 16],
)
def test_what_is_no_id_is_none(text: str) -> None:
    assert from_text(text) is None


def test_day_month_and_stamp_of_an_id() -> None:
    id = Pool().new_id(NOW + 123_456)
    assert stamp_of(id) == "2023-11-14T22:13:20.123Z"
    assert day_of(id) == NOW // DAY and month_of(id) == 12 * 53 + 10
    assert month_of(bound(0)) == 0 and month_of(bound(LAST)) > 12 * 1000


def message(inner: str, kind: str = "chat") -> Stanza:
    attrs = {"type": kind} if kind else {}
    typed = f" type='{kind}'" if kind else ""
    return Stanza("message", attrs, f"<message{typed}>{inner}</message>".encode())


BODY = "<body>hi</body>"
HINT = f"<{{}} xmlns='{ns.HINTS}'/>"
STATE = f"<active xmlns='{ns.CHAT_STATES}'/>"


@pytest.mark.parametrize(
    ("inner", "is_kept"),
    [
        (BODY, True),
        (BODY + STATE, True),
        ("<body xml:lang='de'>hi</body>", True),
        ("<body/>", True),
        ("<subject>news</subject>", True),
        (STATE, False),
        ("", False),
        (BODY + HINT.format("no-store"), False),
        (BODY + HINT.format("no-permanent-store"), False),
        (BODY + HINT.format("no-copy"), True),
        (STATE + HINT.format("store"), True),
        (f"{BODY}<no-store xmlns='urn:xmpp:&#104;ints'/>", False),
        (f"<received xmlns='{ns.RECEIPTS}' id='1'/>", True),
        (f"<request xmlns='{ns.RECEIPTS}'/>", False),
        (f"<displayed xmlns='{ns.CHAT_MARKERS}' id='1'/>", True),
        (f"<received xmlns='{ns.CHAT_MARKERS}' id='1'/>", False),
        (f"<retract xmlns='{ns.RETRACTION}' id='1'/>", True),
        (f"<reactions xmlns='{ns.REACTIONS}' id='1'/>", True),
        ("<encrypted xmlns='eu.siacs.conversations.axolotl'><header/></encrypted>", True),
        ("<propose xmlns='urn:xmpp:jingle-message:0' id='1'/>", True),
        ("<x xmlns='jabber:x:conference' jid='a@b'/>", True),
        (f"<x xmlns='{ns.MUC_USER}'><invite from='a@b'/></x>", True),
        (f"<x xmlns='{ns.MUC_USER}'><status code='100'/></x>", False),
        (f"<a xmlns='urn:a'><body xmlns='{ns.CLIENT}'>within</body></a>", False),
        ("<thread>body subject</thread>", False),
    ],
)
def test_what_is_worth_keeping(inner: str, is_kept: bool) -> None:
    assert is_content(message(inner)) is is_kept
    assert is_content(message(inner, "normal")) is is_kept
    assert is_content(message(inner, "")) is is_kept
    assert not any(is_content(message(inner, kind)) for kind in ("error", "headline", "groupchat"))


@pytest.mark.parametrize("attrs", ["id='a'", "id='a>'", "xmlns='jabber:client' id='>b'"])
@pytest.mark.parametrize(
    ("inner", "is_kept"),
    [
        (f"<body>x</body><markable xmlns='{ns.CHAT_MARKERS}'/>", True),
        (f"<body>x</body><no-store xmlns='{ns.HINTS}'/>", False),
        (f"<body>x</body><no-store xmlns='&#117;{ns.HINTS[1:]}'/>", False),
        ("<y xmlns='urn:y'><body>x</body></y>", False),
        ("<y xmlns='urn:y'/><body>x</body>", True),
    ],
)
def test_whose_the_body_is_counts(attrs: str, inner: str, is_kept: bool) -> None:
    assert is_content(read(f"<message {attrs}>{inner}</message>".encode())) is is_kept


def test_no_tree_is_made_of_what_clients_send_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stanza, "xml", None)
    usual = message(
        f"<body>x</body><markable xmlns='{ns.CHAT_MARKERS}'/><request xmlns='{ns.RECEIPTS}'/>"
        f"<active xmlns='{ns.CHAT_STATES}'/><origin-id xmlns='{ns.STANZA_ID}' id='a'/>"
    )
    assert is_content(usual) and remark_of(usual) is None


def asked(inner: str = "", attrs: str = "") -> Query:
    return query_of(parse(f"<query xmlns='{ns.MAM}'{attrs}>{inner}</query>".encode()), 50, 100)


def fields(**values: str | list[str]) -> str:
    made = "".join(
        f"<field var='{name.replace('_', '-')}'>"
        + "".join(f"<value>{v}</value>" for v in ([value] if isinstance(value, str) else value))
        + "</field>"
        for name, value in values.items()
    )
    kind = f"<field var='FORM_TYPE'><value>{ns.MAM}</value></field>"
    return f"<x xmlns='{ns.DATA_FORM}' type='submit'>{kind}{made}</x>"


def rsm(inner: str) -> str:
    return f"<set xmlns='{ns.RSM}'>{inner}</set>"


ONE, TWO = (to_text(Pool().new_id(NOW + second * MICROSECONDS)) for second in (1, 2))
ID_ONE, ID_TWO = from_text(ONE) or b"", from_text(TWO) or b""


def test_a_query_that_says_nothing_is_for_the_first_page() -> None:
    query = asked()
    assert (query.after, query.before, query.reverse, query.size) == (b"", b"", False, 50)
    assert query.ids is None and not query.named and not query.is_flipped and not query.peer


def test_the_page_of_a_query() -> None:
    query = asked(rsm(f"<max>10</max><after>{ONE}</after>"))
    assert (query.after, query.size, query.reverse, query.named) == (ID_ONE, 10, False, (ID_ONE,))
    query = asked(rsm("<max>1000</max><before/>") + "<flip-page/>", " queryid='q'")
    assert (query.before, query.size, query.reverse, query.id) == (b"", 100, True, "q") and query.is_flipped
    query = asked(rsm(f"<before>{TWO}</before>"))
    assert (query.before, query.reverse, query.named) == (ID_TWO, True, (ID_TWO,))
    assert asked(rsm("<max>0</max>")).size == 0


def test_the_closest_bound_counts() -> None:
    query = asked(fields(after_id=ONE, before_id=TWO) + rsm(f"<after>{TWO}</after><before>{ONE}</before>"))
    assert (query.after, query.before, query.named) == (ID_TWO, ID_ONE, (ID_ONE, ID_TWO))
    query = asked(fields(start="2023-11-14T22:13:21.500Z", after_id=ONE))
    assert query.after == bound(NOW + 1_500_000)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2023-11-14T22:13:20Z", 0, 1000),
        ("2023-11-14T23:13:20+01:00", 0, 1000),
        ("2023-11-14T22:13:20.5Z", 500_000, 501_000),
        ("2023-11-14T22:13:20.123456789Z", 123_456, 123_457),
    ],
)
def test_moments_are_within(text: str, start: int, end: int) -> None:
    query = asked(fields(start=text, end=text))
    assert query.after == bound(NOW + start) and query.before == bound(NOW + end)


def test_with_whom() -> None:
    assert asked(fields(**{"with": "Bob@LOCALHOST"})).peer == "bob@localhost"
    query = asked(fields(**{"with": "bob@localhost/Phone"}))
    assert (query.peer, query.address) == ("bob@localhost", "bob@localhost/Phone")


def test_the_form_names_all_fields() -> None:
    names = {field.get("var") for field in form()}
    assert names >= {"FORM_TYPE", "with", "start", "end", "before-id", "after-id", "ids"}
    assert form().find(f".//{{{ns.DATA_VALIDATE}}}open") is not None


@pytest.mark.parametrize(
    ("inner", "condition"),
    [
        (fields(start="yesterday"), "bad-request"),
        (fields(start="2023-13-14T22:13:20Z"), "bad-request"),
        (fields(start="2023-11-14T22:13:20"), "bad-request"),
        (fields(end=["2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z"]), "bad-request"),
        (fields(**{"with": "@"}), "jid-malformed"),
        (fields(after_id="nonsense"), "item-not-found"),
        (fields(ids=["nonsense"]), "item-not-found"),
        (fields(ids=[to_text(Pool().new_id(n)) for n in range(101)]), "policy-violation"),
        (fields(unheard="1"), "feature-not-implemented"),
        (fields().replace(ns.MAM, "urn:other"), "bad-request"),
        (fields().replace("submit", "form"), "bad-request"),
        (rsm("<max>-1</max>"), "bad-request"),
        (rsm("<max>1e9</max>"), "bad-request"),
        (rsm("<max>99999999999</max>"), "bad-request"),
        (rsm("<index>3</index>"), "feature-not-implemented"),
        (rsm("<after>nonsense</after>"), "item-not-found"),
        (rsm("<before>nonsense</before>"), "item-not-found"),
    ],
)
def test_what_cannot_be_asked_is_refused(inner: str, condition: str) -> None:
    with pytest.raises(StanzaError) as caught:
        asked(inner)
    assert caught.value.condition == condition


def test_nodes_are_for_others() -> None:
    with pytest.raises(StanzaError, match="nodes"):
        asked(attrs=" node='x'")


def prefs(inner: str, attrs: str = " default='always'") -> bytes:
    return f"<prefs xmlns='{ns.MAM}'{attrs}>{inner}</prefs>".encode()


def test_preferences_by_address_and_by_account() -> None:
    lists = "<always><jid>a@b</jid></always><never><jid>c@d</jid><jid>e@f/g</jid></never>"
    found = preferences_of(parse(prefs(lists, " default='never'")))
    assert found.keeps("a@b/c") and not found.keeps("c@d/e") and not found.keeps("x@y")
    found = preferences_of(parse(prefs(lists)))
    assert found.keeps("e@f/h") and not found.keeps("e@f/g") and found.keeps("x@y")
    found = preferences_of(parse(prefs(lists, " default='roster'")))
    assert found.keeps("x@y") is None and found.keeps("a@b")


@pytest.mark.parametrize(
    ("payload", "condition"),
    [
        (prefs("", " default='sometimes'"), "bad-request"),
        (prefs("", ""), "bad-request"),
        (prefs("<never><jid>@</jid></never>"), "jid-malformed"),
        (prefs(f"<never>{'<jid>a@b</jid>' * 201}</never>"), "policy-violation"),
    ],
)
def test_preferences_that_make_no_sense(payload: bytes, condition: str) -> None:
    with pytest.raises(StanzaError) as caught:
        preferences_of(parse(payload))
    assert caught.value.condition == condition
