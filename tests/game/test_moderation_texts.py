# ruff: noqa: RUF001 - texts that look alike are what this is about
"""What the filter of plugin moderation makes of texts: its parts that know no server."""

import asyncio
import random
import time
from collections.abc import Sequence
from xml.sax.saxutils import escape

import ahocorasick
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from plugins.game.moderation.chain import Chain, masked
from plugins.game.moderation.evidence import Line, Memory
from plugins.game.moderation.folding import LEET, Folder, squeezed
from plugins.game.moderation.patterns import TooLong, found, patterns_of
from plugins.game.moderation.rates import Rates, Rule
from plugins.game.moderation.said import body_of, changed, texts_of
from plugins.game.moderation.standing import Sanction, Standing, standing_from, standing_of
from plugins.game.moderation.texts import Texts, moment
from plugins.game.moderation.words import MOST, BadList, Words, words_in
from xmppd import ns
from xmppd.plugin import TokenBucket
from xmppd.xml.scan import read_stanza

LIST = """
# what nobody says
fuck
ass
*shit*
88
darn fool
[refuse]
kill yourself
[flag]
суккуб
你妈
🖕
naïve
!class ass
!scunthorpe shit
"""
FOLDER = Folder()


def words(text: str = LIST, lang: str = "en", folder: Folder = FOLDER) -> Words:
    return asyncio.run(words_in(folder, [("list.txt", lang, text)], "mask", ahocorasick.Automaton))


WORDS = words()


def hits(text: str, of: Words = WORDS) -> list[str]:
    found = of.hits(text)
    assert found is not None
    return [text[hit.start : hit.end] for hit in sorted(found)]


@pytest.mark.parametrize(
    "text",
    [
        "fuck",
        "FUCK",
        "f\u200bu\u00adc\u2060k",
        "fuuuuuck",
        "ffuucckk",
        "f.u.c.k",
        "f u c k",
        "f-u-c-k",
        "fu\u0301ck",
        "fück",
        "fuсk",  # with a letter of Cyrillic
        "fυck",  # of Greek
        "ｆｕｃｋ",
        "𝖋𝖚𝖈𝖐",
        "ⓕⓤⓒⓚ",
        "🇫🇺🇨🇰",
        "🅵🅤🅒🅺",
        "f\u0335u\u0336c\u0337k",
        "a$$",
        "@ss",
        "asssss",
        "5h1t",
        "shiiit",
        "суккуб",
        "你妈",
        "🖕",
        "naïve",
        "NAIVE",
        "88",
        "darn    fool",
        "darn-fool",
    ],
)
def test_a_word_is_found_however_it_is_written(text: str) -> None:
    assert hits(text) == [text]
    assert hits(f"you, {text}!") == [text]


@pytest.mark.parametrize(
    "text",
    [
        "as",
        "class",
        "assess",
        "pass the ball",
        "455 gold",
        "1988",
        "hello!",
        "naval",
        "I am a fool",
        "class ass",
        "",
        " ",
        "\u200b",
        "!!!",
        "g g w p",
        "суп",
        "as you said",
    ],
)
def test_others_are_not(text: str) -> None:
    assert hits(text) == []


@pytest.mark.parametrize(
    ("text", "found"), [("you f u c k", "f u c k"), ("bullSH!T", "SH!T"), ("去你妈的", "你妈")]
)
def test_within_other_text(text: str, found: str) -> None:
    assert hits(text)[0].strip() in (found, "f u c k")


def test_what_is_allowed_hides_nothing_beside_it() -> None:
    assert hits("class ass, ass") == ["ass"]


@given(st.text(max_size=60))
def test_folding_any_text_keeps_its_places(text: str) -> None:
    folded = FOLDER.fold(text)
    places = FOLDER.places(text)
    assert len(places) == len(folded)
    assert folded == " " + "".join(map(FOLDER.char, text)) + " "
    assert all(0 <= start <= end <= len(text) for start, end in places)
    assert [*places] == sorted(places)
    assert squeezed(squeezed(folded)) == squeezed(folded)


@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.sampled_from(["fuck", "FUCK", "f\u200buck", "ｆｕｃｋ", "fuuuck"]),
)
def test_a_word_between_any_others_is_found_and_masked(before: str, after: str, word: str) -> None:
    text = f"{before} \n{word}\n {after}"
    found = WORDS.hits(text)
    if found is None:
        return
    at = len(before) + 2
    assert any(hit.start <= at and hit.end >= at + len(word) for hit in found)
    shown = masked(text, [(hit.start, hit.end) for hit in found])
    assert len(shown) == len(text)
    assert shown[at : at + len(word)].strip("*") == ""


@given(st.text(alphabet="abcdefghijk", min_size=4, max_size=12), st.randoms())
def test_any_word_of_a_list_is_found_in_disguise(word: str, chance: random.Random) -> None:
    """Case, elongation, what nobody sees, marks, digits for letters."""
    of = words(word)
    back = {letter: sign for sign, letter in LEET.items() if sign.isalnum()}
    disguised = ""
    for char in word:
        way = chance.randrange(6)
        disguised += (
            char.upper()
            if way == 0
            else char * 3
            if way == 1
            else char + "\u200d"
            if way == 2
            else char + "\u0308"
            if way == 3
            else back.get(char, char)
            if way == 4
            else chr(ord(char) - ord("a") + 0x1D41A)
        )
    found = of.hits(f"so {disguised} it is")
    assert found or disguised.isdigit()


LISTS = (
    WORDS,
    words("fuck\nass\n88\nsuccubus\nдурак\n"),  # nothing but words by themselves
    words("kill yourself\n*bad dog*\n*darn* fool\nof a gun*\n"),  # parts of which say nothing alone
    words("fuck\nc00l\n", folder=Folder({"1": "l", "(": "c", "0": "o", "_": "i"})),
)
PIECES = st.sampled_from(
    "f u c k ss a s fuck FUCK fuuck f.u f-u don't a$ $ @ss ! !a ass, класс ф у к дура к k\u200b "
    "f\u0301 \u200b я "
    "you kill yourself yourself. bad dog bad-dog embad dogma darn darned fool of gun gunner succubus "
    "succubuss successfull (00l co01 _ i_ 88 8 0x88 hello, the … — é \u0640 !\u0640 ﬁ ⓕ \u2003 \x85".split(
        " "
    )
)
TEXTS_ = st.lists(st.tuples(PIECES, st.sampled_from((" ", "", "  ", ", ", "\u00a0"))), max_size=9)


@given(TEXTS_, st.sampled_from(LISTS))
def test_what_is_soon_known_to_be_clean_is(pieces: list[tuple[str, str]], of: Words) -> None:
    text = "".join(piece + space for piece, space in pieces)
    for _ in range(2):  # at first, and when its words are remembered
        if of.is_clean(text):
            assert of.hits(text) == []


@given(st.text(max_size=30), st.sampled_from(LISTS))
def test_any_text_that_is_soon_known_to_be_clean_is(text: str, of: Words) -> None:
    assert not of.is_clean(text) or of.hits(text) == []


@given(TEXTS_, st.sampled_from(LISTS))
def test_what_is_soon_known_to_be_clean_as_it_is_written_in_xml_is(
    pieces: list[tuple[str, str]], of: Words
) -> None:
    text = "".join(piece + space for piece, space in pieces) + "f&u<ck>"
    if of.is_clean(escape(text)):
        assert of.hits(text) == []


def test_markup_is_never_soon_known_to_be_clean() -> None:
    for word in ("fu<b/>ck", "<b>you</b>", "fu&#99;k", "&#x66;uck", "you<br/>"):
        for _ in range(2):
            assert not WORDS.is_clean(f"hello {word}")
    assert WORDS.is_clean("rock &amp; roll &lt;3 you &quot;all&quot;")
    assert not WORDS.is_clean("&quot;f u c k&quot; &amp; so")


def test_usual_texts_are_soon_known_to_be_clean() -> None:
    for text in ("gg wp!", "I don't know, a friend said: go mid", "привет, как дела", "x0000123456 is mine"):
        assert WORDS.is_clean(text)
    assert all(WORDS.is_clean(letter) for letter in "fuck")
    for text in ("f u c k", "fuuuck", "a$$", "bullshit", "kill yourself"):
        assert not WORDS.is_clean(text)


def test_a_list_says_where_it_is_wrong() -> None:
    for text, why in (
        ("[burn]\nx", "list.txt:1: 'burn'"),
        ("ok\n***", "list.txt:2"),
        ("x" * 101, "100 characters"),
    ):
        with pytest.raises(BadList, match=why.replace("*", r"\*")):
            words(text)


def test_only_lists_of_a_language() -> None:
    lists = [("de.txt", "de", "mist"), ("en.txt", "en", "bugger"), ("any.txt", "any", "xxx")]
    of = asyncio.run(words_in(FOLDER, lists, "mask", ahocorasick.Automaton))
    text = "mist bugger xxx"
    for lang, count in (("", 3), ("de", 2), ("en", 2), ("fr", 1)):
        found = of.hits(text, lang)
        assert found is not None and len(found) == count


def test_a_text_full_of_them_is_too_much() -> None:
    assert WORDS.hits("fuck " * (MOST + 1)) is None
    assert chain().look("fuck " * (MOST + 1)).action == "refuse"  # type: ignore[union-attr]


def test_many_words_are_read_without_a_pause() -> None:
    """As far as that can be said on a busy machine: the loop turns many times meanwhile."""

    async def build() -> tuple[Words, int]:
        chance = random.Random(1)
        letters = "abcdefghijkmnopqrstuvwxyz"
        text = "\n".join(
            "".join(chance.choices(letters, k=9)) + "*" * (number % 2) for number in range(30_000)
        )
        turns, building = 0, True

        async def turn() -> None:
            nonlocal turns
            while building:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        made = await words_in(FOLDER, [("x", "en", text)], "mask", ahocorasick.Automaton)
        building = False
        await turning
        return made, turns

    made, turns = asyncio.run(build())
    assert made.count == 30_000
    assert turns > 100


# expressions


def expressions(text: str) -> Sequence[object]:
    return tuple(patterns_of(text.splitlines(), "patterns.txt", "mask", regex))


def chain(text: str = "", slow: str = "refuse") -> Chain:
    return Chain(WORDS, tuple(expressions(text)), 0.02, slow, 5_000, False)  # type: ignore[arg-type]


def test_an_expression_is_bounded_in_time() -> None:
    evil = expressions(r"(a|a)*$")
    began = time.process_time()
    with pytest.raises(TooLong):
        found(evil, "a" * 200 + "!", 0.02)  # type: ignore[arg-type]
    assert time.process_time() - began < 5
    of = chain(r"(a|a)*$")
    judged = of.look("a" * 200 + "!")
    assert judged is not None and (judged.action, judged.why) == ("refuse", "patterns")
    assert of.timeouts == 1
    assert chain(r"(a|a)*$", "pass").look("a" * 200 + "!") is None


def test_expressions_have_actions() -> None:
    of = chain("\\d{4}-\\d{4}\n[shadow]\nhttps?://\\S+\n[flag]\ngold")
    for text, action, shown in (
        ("card 1234-5678 now", "mask", "card ********* now"),
        ("see HTTP://x.example", "shadow", "see HTTP://x.example"),
        ("gold", "flag", "gold"),
    ):
        judged = of.look(text)
        assert judged is not None and (judged.action, judged.text) == (action, shown)
    with pytest.raises(BadList, match=r"patterns.txt:1"):
        expressions("(")


def test_the_worst_of_all_counts() -> None:
    judged = chain().look("fuck, kill yourself")
    assert judged is not None and judged.action == "refuse"
    judged = chain().look("суккуб fuck")
    assert judged is not None and (judged.action, judged.text) == ("mask", "суккуб ****")
    assert chain().look("x" * 5_001).why == "length"  # type: ignore[union-attr]


# what a message says


def message(children: str) -> object:
    return read_stanza(f"<message to='b@x' type='chat'>{children}</message>".encode())


@pytest.mark.parametrize(
    ("children", "body"),
    [
        ("<body>hi there</body>", "hi there"),
        ("<body>hi</body><active xmlns='http://jabber.org/protocol/chatstates'/>", "hi"),
        ("<body>hi</body><x xmlns='y'><z/></x>", "hi"),
        ("<body>hi</body><x xmlns='y'>fuck</x>", None),
        ("<body>hi</body><x xmlns='y' a='>'/>", None),
        ("<body>hi</body><x xmlns='y'><![CDATA[fuck]]></x>", None),
        ("<body>fu<![CDATA[ck]]></body>", "fuck"),
        ("<body>fu&#99;k</body>", None),
        ("<body xml:lang='de'>hi</body>", None),
        ("<body>hi</body><subject>fuck</subject>", None),
        ("<subject>hi</subject>", None),
        ("<x xmlns='y'><body>hi</body></x>", None),
        ("<body/>", None),
        ("", None),
    ],
)
def test_the_text_of_a_message_is_found_or_it_is_looked_at_as_a_whole(
    children: str, body: str | None
) -> None:
    stanza = message(children)
    assert body_of(stanza) == body  # type: ignore[arg-type]
    texts = texts_of(stanza)  # type: ignore[arg-type]
    if body is not None:
        assert texts == [body]
    if "fuck" in children.replace("<![CDATA[", "").replace("&#99;", "c"):
        assert any("fuck" in text for text in texts)


def test_all_texts_can_be_changed() -> None:
    html = f"<html xmlns='{ns.XHTML_IM}'><body xmlns='http://www.w3.org/1999/xhtml'><b>fu</b>ck</body></html>"
    stanza = message(f"<subject>fuck</subject><body>you &amp; fuck</body>{html}<x xmlns='y'>a<z/>fuck</x>")
    assert texts_of(stanza) == ["fuck", "you & fuck", "fuck", "a", "fuck"]  # type: ignore[arg-type]
    raw = changed(stanza, lambda text: text.replace("fuck", "****")).raw  # type: ignore[arg-type]
    assert raw.count(b"****") == 3
    assert b"html" not in raw


# sanctions


def sanction(
    number: int, kind: str, until: float | None, scope: str = "all", lifted: float | None = None
) -> Sanction:
    return Sanction(str(number), kind, scope, 0.0, until, "", "", "", "", lifted)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["mute", "chat-limit", "ban"]),
            st.one_of(st.none(), st.floats(0, 100)),
            st.sampled_from(["all", "direct", "groups"]),
            st.one_of(st.none(), st.floats(0, 100)),
        ),
        max_size=6,
    ),
    st.floats(0, 100),
    st.randoms(),
)
def test_what_holds_does_not_depend_on_the_order(
    given_: list[tuple[str, float | None, str, float | None]], now: float, chance: random.Random
) -> None:
    all_ = [sanction(number, *it) for number, it in enumerate(given_)]
    rows = [it.row("a@x") for it in all_]
    chance.shuffle(rows)
    standing = standing_of(rows, now)
    assert standing_from(standing.plain) == standing
    for kind in ("mute", "chat-limit", "ban"):
        for scope in ("all", "direct", "groups", ""):
            holding = [
                it
                for it in all_
                if it.kind == kind
                and it.lifted is None
                and (it.until is None or it.until > now)
                and (it.scope in ("all", scope) or not scope)
            ]
            found_ = standing.of(kind, now, scope)
            assert (found_ is None) == (not holding)
            if found_ is not None:
                ends = [float("inf") if it.until is None else it.until for it in holding]
                assert (float("inf") if found_.until is None else found_.until) == max(ends)


def test_what_is_over_is_over() -> None:
    standing = Standing([sanction(1, "mute", 10.0)])
    assert standing.of("mute", 9.9) is not None
    assert standing.of("mute", 10.0) is None


# rates and texts


@given(
    st.lists(st.floats(0, 3, allow_nan=False), max_size=40),
    st.sampled_from((0.3, 1.0, 7.0)),
    st.integers(1, 9),
)
def test_a_meter_allows_what_a_bucket_of_tokens_does(
    pauses: list[float], per_second: float, burst: int
) -> None:
    clock = [0.0]
    rates = Rates({"message": Rule(per_second, burst, 4.0)}, lambda: clock[0], lambda: False)
    bucket = TokenBucket(per_second, burst, lambda: clock[0])
    for pause in pauses:
        clock[0] += pause
        wait, expected = rates.take("message", "a@x", "1.2.3.4"), bucket.take()
        assert abs(wait - expected) < 1e-3
        if (wait > 0) != (expected > 0):  # by less than is measured
            return


def test_what_is_remembered_as_it_was_written_is_read() -> None:
    memory = Memory()
    for to in ("b@x", "c@x"):
        body = "<body>fu &lt;3 &amp; \u00e9</body>"
        memory.of("a@x").append((2.0, f"<message from='a@x/&apos;' to='{to}'>{body}</message>".encode()))
        memory.of("b@x").append((3.0, ("b@x/r", "a@x/r" if to == "b@x" else to, "&amp; so")))
    assert memory.between("a@x", "b@x", 100.0) == [
        Line(102.0, "a@x/'", "b@x", "fu <3 & \u00e9", "", "memory"),
        Line(103.0, "b@x/r", "a@x/r", "&amp; so", "", "memory"),
    ]


def test_what_was_taken_on_other_nodes_counts() -> None:
    clock, told = [0.0], [0]

    def more() -> bool:
        told[0] += 1
        return True

    rule = {"message": Rule(1.0, 4, 2.0)}
    here, there = (Rates(rule, lambda: clock[0], more) for _ in range(2))
    for _ in range(3):
        assert here.take("message", "a@x", "1.2.3.4", is_told=True) == 0.0
    there.heard(here.said())
    assert there.take("message", "a@x", "1.2.3.4") == 0.0
    assert there.take("message", "a@x", "1.2.3.4") > 0
    assert [there.take("message", f"{one}@x", "1.2.3.4") for one in "bcde"] == [0.0] * 4
    assert there.take("message", "f@x", "1.2.3.4") > 0  # its address has had eight
    assert there.take("message", "f@x", "1.2.3.5") == 0.0
    assert there.take("other", "f@x") == 0.0
    clock[0] += 1
    assert there.take("message", "a@x", "1.2.3.4") == 0.0
    assert told[0] == 2


def test_texts_are_in_the_next_best_language() -> None:
    texts = Texts({"de-at.over": "Du darfst wieder.", "fr.over": "Vous pouvez parler."}, "fr")
    assert texts.say("over", "de-AT") == "Du darfst wieder."
    assert texts.say("over", "de-CH") == "Du kannst wieder chatten."
    assert texts.say("over", "xx") == "Vous pouvez parler."
    assert texts.say("wait", "xx", seconds=3) == "Please wait 3 s."
    assert texts.say("mute", "en", until="{reason}", reason="x") == "You cannot chat until x. x"


@pytest.mark.parametrize("seconds", [1.5, 59, 60])
def test_the_minute_that_is_told_is_not_before_the_end(seconds: float) -> None:
    assert moment(seconds) == "1970-01-01 00:01 UTC"
