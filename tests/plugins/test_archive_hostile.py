"""What hostile clients ask of an archive: each is answered by the letter, and the next honest one as ever."""

import pytest
from archives import FIN, Found, ask, chat, field, find, form, page, world

from plugins.archive.query import MOST_IDS
from xmppd import ns
from xmppd.testing import refusal

pytestmark = pytest.mark.asyncio

FULLTEXT = f"{{{ns.FULLTEXT}}}fulltext"
SUBMIT = f"<x xmlns='{ns.DATA_FORM}' type='submit'>"
TYPE = field("FORM_TYPE", ns.MAM)
ID = "BlYQ5iA3AAAAAAAA"

BAD, UNKNOWN, GONE = "modify bad-request", "cancel feature-not-implemented", "cancel item-not-found"
MALFORMED, POLICY = "modify jid-malformed", "modify policy-violation"


@pytest.mark.parametrize(
    ("inner", "answer"),
    [
        # forms
        (f"{SUBMIT}</x>", BAD),
        (f"{SUBMIT}{field('FORM_TYPE')}</x>", BAD),
        (f"{SUBMIT}{field('FORM_TYPE', 'urn:xmpp:mam:1')}</x>", BAD),
        (f"{SUBMIT}{field('FORM_TYPE', ns.MAM, ns.MAM)}</x>", BAD),
        (f"{SUBMIT}{TYPE}{TYPE}</x>", BAD),
        (f"<x xmlns='{ns.DATA_FORM}' type='form'>{TYPE}</x>", BAD),
        (f"<x xmlns='{ns.DATA_FORM}' type='cancel'>{TYPE}</x>", BAD),
        (f"<x xmlns='{ns.DATA_FORM}'>{TYPE}</x>", BAD),
        (form("<field><value>x</value></field>"), UNKNOWN),
        (form(field("", "x")), UNKNOWN),
        (form(field("text", "x")), UNKNOWN),
        (form(field("START", "2020-01-01T00:00:00Z")), UNKNOWN),
        (form(field("start", "2020-01-01T00:00:00Z") * 2), BAD),
        (form(field("start", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z")), BAD),
        (form(*(field(f"field{number}", "x") for number in range(200))), UNKNOWN),
        # moments
        (form(field("start", "yesterday")), BAD),
        (form(field("start", "2020-01-01")), BAD),
        (form(field("start", "2020-13-45T99:99:99Z")), BAD),
        (form(field("end", "0000-00-00T00:00:00Z")), BAD),
        (form(field("end", "99999-01-01T00:00:00Z")), BAD),
        (form(field("end", "2020-01-01T00:00:00+99:99")), BAD),
        (form(field("end", f"2020-01-01T00:00:00.{'9' * 3000}Z")), BAD),
        (form(field("end", "٢٠٢٠-01-01T00:00:00Z")), BAD),
        # addresses
        (form(field("with", "x" * 3000)), MALFORMED),
        (form(field("with", f"bob@localhost/{'x' * 3000}")), MALFORMED),
        (form(field("with", "@")), MALFORMED),
        (form(field("with", "a@b@c")), MALFORMED),
        (form(field("with", " ")), MALFORMED),
        # pages
        (page("<max>1000000000</max>"), BAD),
        (page(f"<max>{'9' * 3000}</max>"), BAD),
        (page("<max>-1</max>"), BAD),
        (page("<max>1.5</max>"), BAD),
        (page("<max>٣</max>"), BAD),
        (page("<max/>"), BAD),
        (page("<index>0</index>"), UNKNOWN),
        (page("<index>99999999999</index><max>1</max>"), UNKNOWN),
        # ids
        (page("<after>nonsense</after>"), GONE),
        (page(f"<after>{'A' * 3000}</after>"), GONE),
        (page(f"<before>{ID}</before>"), GONE),
        (page("<after>________________</after>"), GONE),
        (form(field("before-id", ID)), GONE),
        (form(field("after-id", "'\"&lt;")), GONE),
        (form(field("ids", ID)), GONE),
        (form(field("ids", *(f"AAAAAAAAAAAA{number:04}" for number in range(MOST_IDS + 1)))), POLICY),
        # words
        (form(field(FULLTEXT, "x" * 3000)), POLICY),
        (form(field(FULLTEXT, "\u202e")), BAD),
        (form(field(FULLTEXT, '"' * 500)), BAD),
        (form(field(FULLTEXT, "one", "two")), BAD),
    ],
)
async def test_nonsense_is_refused_by_the_letter(inner: str, answer: str) -> None:
    async with world() as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one")
        [refused] = await ask(alice, inner)
        assert refusal(refused) == answer
        assert (await find(alice)).texts == ["one"]


@pytest.mark.parametrize(
    ("inner", "texts"),
    [
        ("", ["one", "two"]),
        ("<other xmlns='urn:x'><deep/></other>", ["one", "two"]),
        (form(), ["one", "two"]),
        (form(field("start")), ["one", "two"]),
        (form(field("with", "")), ["one", "two"]),
        (form(field("start", "0001-01-01T00:00:00Z")), ["one", "two"]),
        (form(field("end", "9999-12-31T23:59:59Z")), ["one", "two"]),
        (form(field("start", "9999-12-31T23:59:59Z")), []),
        (form(field("end", "1969-12-31T23:59:59Z")), []),
        (form(field("start", "2999-01-01T00:00:00Z"), field("end", "1999-01-01T00:00:00Z")), []),
        (page("<max>999999999</max>"), ["one", "two"]),
        (page("<max>000000001</max>"), ["one"]),
        (page("<max>0</max>"), []),
        (form(field("with", "nobody@nowhere.test")), []),
        (form(field(FULLTEXT, '"one"""two')), []),
        (form(field(FULLTEXT, "%*.^$(one")), ["one"]),
    ],
)
async def test_what_is_odd_and_has_a_meaning_is_answered(inner: str, texts: list[str]) -> None:
    async with world() as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one", "two")
        assert (await find(alice, inner)).texts == texts


@pytest.mark.parametrize("address", ["bob@localhost", "nobody@localhost"])
async def test_the_archive_of_another_is_forbidden_whether_it_is_there_or_not(address: str) -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(bob, "carol@localhost", "secret")
        for kind, name in (("set", "query"), ("get", "query"), ("get", "metadata"), ("get", "prefs")):
            answer = await alice.ask(kind, f"<{name} xmlns='{ns.MAM}'/>", to=address)
            assert refusal(answer) == "auth forbidden"


async def test_the_name_of_a_query_comes_back_as_it_was() -> None:
    async with world() as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "one")
        name = "&apos;/&gt;&quot;" + "x" * 3000
        [result] = (await find(alice, attrs=f" queryid='{name}'")).results
        assert result.get("queryid") == "'/>\"" + "x" * 3000


async def test_many_queries_at_once_are_answered_one_after_the_other_and_leave_nothing() -> None:
    async with world() as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", *map(str, range(5)))
        await bob.receive_all()
        query = f"<query xmlns='{ns.MAM}'/>"
        words = f"<query xmlns='{ns.MAM}'>{form(field(FULLTEXT, '3'))}</query>"
        await alice.send("".join(f"<iq type='set' id='q{place}'>{query}</iq>" for place in range(300)))
        answers = await alice.receive_all()
        assert [each.get("id") for each in answers if each.find(FIN) is not None] == [
            f"q{place}" for place in range(300)
        ]
        await alice.send("".join(f"<iq type='set' id='w{place}'>{words}</iq>" for place in range(300)))
        answers = await alice.receive_all()
        given = [each for each in answers if each.tag == f"{{{ns.CLIENT}}}iq"]
        assert [each.get("id") for each in given] == [f"w{place}" for place in range(300)]
        assert [each.get("type") for each in given] == ["result"] * 5 + ["error"] * 295
        assert {refusal(each) for each in given[5:]} == {"wait resource-constraint"}
        await chat(bob, "alice@localhost", "as ever")
        assert Found(await ask(alice)).texts[-1] == "as ever"
        assert not w.plugin("archive").allowance._searching
