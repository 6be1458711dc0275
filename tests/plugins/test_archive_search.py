"""Search in an archive (XEP-0431): which messages have the words, pages of them, and its limits."""

from typing import Any

import pytest
from archives import Found, ask, chat, field, find, form, page, world
from hypothesis import given
from hypothesis import strategies as st

from plugins.archive.query import query_of
from plugins.archive.search import Allowance
from plugins.archive.words import LOOKED_AT, SMALL, TERMS, TEXT, Words
from xmppd import ns
from xmppd.errors import StanzaError
from xmppd.testing import Client, refusal
from xmppd.xml.stanza import parse

FIELD = f"{{{ns.FULLTEXT}}}fulltext"


def stanza(text: str, tag: str = "body") -> bytes:
    return (
        f"<message xmlns='{ns.CLIENT}' id='word' to='to@localhost'><{tag}>{text}</{tag}></message>".encode()
    )


@pytest.mark.parametrize(
    ("looked_for", "text", "is_found"),
    [
        ("dragon", "The Dragon sleeps", True),
        ("DRAGON sleeps", "sleeps, the dragon!", True),
        ("drag", "The dragon sleeps", False),
        ("dragon", "dragonfly", False),
        ("dragon cat", "The dragon sleeps", False),
        ('"the dragon"', "beware of the  dragon", True),
        ('"dragon the"', "beware of the dragon", False),
        ('"the dragon', "the dragon", True),
        ("the-dragon", "the dragon", True),
        ("dragon-the", "the dragon", False),
        ("word", "nothing of the kind", False),
        ("localhost", "nothing of the kind", False),
        ("body", "nothing of the kind", False),
        ("cafe", "Café", True),
        ("CAFÉ", "cafe\u0301", True),
        ("strasse", "Straße", True),
        ("STRASSE", "straße", True),
        ("дракон", "ДРАКОН спит", True),
        ("дракон", "dragon", False),
        ("ﬁre", "FIRE", True),
        ("猫", "私の猫です", True),
        ("猫です", "私の猫です", True),
        ("です猫", "私の猫です", False),
        ("猫 私", "私の猫です", True),
        ("AB", "A&#66;", True),
        ("AB", "A<![CDATA[B]]>", True),
        ("amp", "this &amp; that", False),
        ("3", "3 dragons", True),
        ("x" * 50, "x" * 50, True),
        ("dragon", "a " * (LOOKED_AT // 2) + "dragon", False),
        ("dragon", "dragon" + " a" * SMALL, True),
    ],
)
def test_which_messages_have_the_words(looked_for: str, text: str, is_found: bool) -> None:
    assert Words(looked_for).are_in(stanza(text)) == is_found


def test_subjects_are_looked_at_and_nothing_else() -> None:
    assert Words("dragon").are_in(stanza("The dragon", "subject"))
    assert not Words("dragon").are_in(stanza("The dragon", "nick"))
    assert not Words("one two").are_in(stanza("one</body><body xml:lang='de'>two"))


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60), st.data())
def test_each_word_of_a_text_is_found_in_it(text: str, data: st.DataObject) -> None:
    raw = stanza(text.replace("&", "&amp;").replace("<", "&lt;"))
    parts = text.replace('"', " ").split()
    part = data.draw(st.sampled_from(parts)) if parts else ""
    if any(letter.isalnum() for letter in part):
        assert Words(part).are_in(raw)
        assert Words(f'"{part.swapcase() if part.isascii() else part}"').are_in(raw)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("!?", "bad-request"),
        (" ", "bad-request"),
        ('""', "bad-request"),
        ("x" * (TEXT + 1), "policy-violation"),
        ("ab " * (TERMS + 1), "policy-violation"),
    ],
)
def test_what_cannot_be_looked_for(text: str, condition: str) -> None:
    with pytest.raises(StanzaError) as refused:
        Words(text)
    assert refused.value.condition == condition


def test_searches_of_an_account_are_counted_by_the_minute_and_one_at_a_time() -> None:
    now = [0.0]
    allowance = Allowance(2, lambda: now[0])
    with allowance.one("alice"), allowance.one("bob"), pytest.raises(StanzaError), allowance.one("alice"):
        pass
    now[0] = 59.0
    with allowance.one("alice"):
        pass
    with pytest.raises(StanzaError) as refused, allowance.one("alice"):
        pass
    assert (refused.value.condition, refused.value.type) == ("resource-constraint", "wait")
    now[0] = 60.0
    with allowance.one("alice"):
        pass


# dialogues


def search(*words: str, more: str = "", **fields: str) -> str:
    others = (field(name.replace("_", "-"), value) for name, value in fields.items())
    return form(field(FIELD, *words), *others) + more


async def all_pages(client: Client, words: str, size: int, *, backwards: bool = False) -> list[str | None]:
    """All that is found, page by page, as a client goes on."""
    texts: list[str | None] = []
    step = "<before/>" if backwards else ""
    for _ in range(30):
        found = await find(client, search(words) + page(f"<max>{size}</max>{step}"))
        texts = found.texts + texts if backwards else texts + found.texts
        if found.is_complete:
            return texts
        assert found.first and found.last
        step = f"<before>{found.first}</before>" if backwards else f"<after>{found.last}</after>"
    raise AssertionError("there is no end")


def many(**about: Any) -> dict[str, Any]:
    return {"plugin_config": {"archive": {"searches": 1000, **about}}}


@pytest.mark.asyncio
async def test_the_field_and_the_feature_are_advertised() -> None:
    async with world("disco") as w:
        alice = await w.login("alice")
        fields = await alice.ask("get", f"<query xmlns='{ns.MAM}'/>", to="alice@localhost")
        offered = {each.get("var"): each.get("type") for each in fields.iter(f"{{{ns.DATA_FORM}}}field")}
        assert offered[FIELD] == "text-single"
        about = await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="alice@localhost")
        assert ns.FULLTEXT in [each.get("var") for each in about.iter(f"{{{ns.DISCO_INFO}}}feature")]


@pytest.mark.asyncio
async def test_words_are_found_together_with_everything_else_that_is_asked() -> None:
    async with world(**many()) as w:
        alice, carol = await w.login("alice"), await w.login("carol")
        await chat(alice, "bob@localhost", "the dragon one", "nothing", "the dragon two")
        await w.advance(1)
        await chat(carol, "alice@localhost", "dragon three")
        await w.settle()
        assert (await find(alice, search("dragon"))).texts == [
            "the dragon one",
            "the dragon two",
            "dragon three",
        ]
        some = await find(alice, search("dragon", **{"with": "bob@localhost"}))
        assert some.texts == ["the dragon one", "the dragon two"] and some.is_complete
        assert (await find(alice, search("dragon", **{"with": carol.jid}))).texts == ["dragon three"]
        assert (await find(alice, search("dragon", after_id=some.ids[1]))).texts == ["dragon three"]
        every = await find(alice)
        ids = field("ids", *every.ids[:2])
        assert (await find(alice, form(field(FIELD, "dragon"), ids))).texts == ["the dragon one"]
        assert (await find(alice, form(field(FIELD, "")))).texts == every.texts
        newest = await find(alice, search("dragon") + page("<max>1</max><before/>"))
        assert newest.texts == ["dragon three"] and not newest.is_complete
        assert (await find(carol, search("dragon"))).texts == ["dragon three"]


@pytest.mark.asyncio
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("searched", [3, 100])
async def test_pages_go_on_where_looking_ended(backwards: bool, searched: int) -> None:
    async with world(**many(searched=searched)) as w:
        alice = await w.login("alice")
        texts = [f"{'dragon' if place % 5 == 1 else 'cat'} {place}" for place in range(17)]
        await chat(alice, "bob@localhost", *texts)
        wanted = [text for text in texts if "dragon" in text]
        assert await all_pages(alice, "dragon", 2, backwards=backwards) == wanted
        assert await all_pages(alice, "nowhere", 2, backwards=backwards) == []


@pytest.mark.asyncio
async def test_only_so_many_messages_are_looked_at() -> None:
    async with world(**many(searched=3)) as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "dragon", "cat 1", "cat 2", "cat 3")
        found = await find(alice, search("dragon") + page("<before/>"))
        assert found.texts == [] and not found.is_complete and found.first == found.last
        await chat(alice, "bob@localhost", "x" * 3000)
        again = await find(alice, search("dragon") + page("<before/>"))
        assert again.first == (await find(alice)).ids[-1]


@pytest.mark.asyncio
async def test_too_many_searches_are_refused_and_other_requests_are_not() -> None:
    async with world() as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", "dragon")
        for _ in range(5):
            assert (await find(alice, search("dragon"))).texts == ["dragon"]
        [answer] = await ask(alice, search("dragon"))
        assert refusal(answer) == "wait resource-constraint"
        assert (await find(alice)).texts == ["dragon"]
        await w.advance(61)
        assert (await find(alice, search("dragon"))).texts == ["dragon"]


@pytest.mark.asyncio
async def test_searches_count_on_all_nodes() -> None:
    async with world(nodes=2) as w:
        one, two = await w.login("alice"), await w.login("alice")
        assert one.app is not two.app
        for number in range(5):
            assert (await find((one, two)[number % 2], search("dragon"))).texts == []
            await w.settle()
        for client in (one, two):
            [answer] = await ask(client, search("dragon"))
            assert refusal(answer) == "wait resource-constraint"
        await w.advance(61)
        for client in (one, two):
            assert (await find(client, search("dragon"))).texts == []


@pytest.mark.asyncio
async def test_what_is_sent_meanwhile_does_not_wait_for_a_search() -> None:
    async with world(**many()) as w:
        alice, bob = await w.login("alice"), await w.login("bob")
        await chat(alice, "bob@localhost", *(f"dragon {place}" for place in range(30)))
        await bob.receive_all()
        await alice.receive_all()
        query = f"<iq type='set' id='q'><query xmlns='{ns.MAM}'>{search('dragon')}</query></iq>"
        await alice.send(query + "<message to='bob@localhost' type='chat'><body>meanwhile</body></message>")
        assert [each.findtext(f"{{{ns.CLIENT}}}body") for each in await bob.receive_all()] == ["meanwhile"]
        assert len(Found(await alice.receive_all()).texts) == 30


@pytest.mark.asyncio
async def test_nobody_searches_for_a_client_that_is_gone() -> None:
    async with world(**many()) as w:
        alice = await w.login("alice")
        await chat(alice, "bob@localhost", *(f"dragon {place}" for place in range(3)))
        plugin = w.plugin("archive")
        owner = await plugin._owner("alice@localhost")
        asked: list[int] = []

        def is_over() -> bool:
            asked.append(1)
            return len(asked) > 1

        query = plugin_query(search("dragon"))
        found = await plugin._reader(owner).search(query, query.words, 0, b"", most=100, is_over=is_over)
        assert len(found.messages) == 2 and not found.is_complete


def plugin_query(inner: str) -> Any:
    return query_of(parse(f"<query xmlns='{ns.MAM}'>{inner}</query>".encode()), 50, 100)
