"""Addresses by RFC 7622: its examples, the ASCII short cut against the long way, and properties over any
text.
"""

from __future__ import annotations

import idna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from precis_i18n import get_profile

from xmppd import jid
from xmppd.errors import JidError
from xmppd.jid import Jid

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)  # surrogates too
ASCII = st.text(st.characters(max_codepoint=127), max_size=12)
ADDRESS_LIKE = st.lists(
    st.sampled_from(
        ["a", "B", "é", "ß", "Σ", "ς", "İ", "K", "\uff20", "\uff0f", "。", ".", "-", "--", "xn--", "zca"]
    )
    | st.sampled_from(
        ["@", "/", " ", "\u00a0", "\u0301", "\u200d", "א", "1", "٣", "ﾊﾟ", "\ud800", "\0", "[::1]", "😀"]
    )
    | st.characters(exclude_categories=())
).map("".join)


# RFC 7622 3.5, table 1
@pytest.mark.parametrize(
    ("text", "local", "domain", "resource"),
    [
        ("juliet@example.com", "juliet", "example.com", ""),
        ("juliet@example.com/foo", "juliet", "example.com", "foo"),
        ("juliet@example.com/foo bar", "juliet", "example.com", "foo bar"),
        ("juliet@example.com/foo@bar", "juliet", "example.com", "foo@bar"),
        ("foo\\20bar@example.com", "foo\\20bar", "example.com", ""),
        ("fussball@example.com", "fussball", "example.com", ""),
        ("fußball@example.com", "fußball", "example.com", ""),
        ("π@example.com", "π", "example.com", ""),
        ("Σ@example.com/foo", "\u03c3", "example.com", "foo"),
        ("king@example.com/♚", "king", "example.com", "♚"),
        ("example.com", "", "example.com", ""),
        ("example.com/foobar", "", "example.com", "foobar"),
        ("a.example.com/b@example.net", "", "a.example.com", "b@example.net"),
        # and more
        ("Juliet@EXAMPLE.com/Balcony", "juliet", "example.com", "Balcony"),
        ("a@b/c/d", "a", "b", "c/d"),
        ("a@b/ c ", "a", "b", " c "),
        ("example.com.", "", "example.com", ""),
        ("a@BÜCHER.example", "a", "bücher.example", ""),
        ("a@xn--bcher-kva.example", "a", "bücher.example", ""),
        ("a@XN--BCHER-KVA.example", "a", "bücher.example", ""),
        ("a@example。com", "a", "example.com", ""),
        ("\uff46ull@b", "full", "b", ""),
        ("e\u0301@b/e\u0301", "\u00e9", "b", "\u00e9"),
        ("a@b/x\u00a0y", "a", "b", "x y"),
        ("a@127.0.0.1", "a", "127.0.0.1", ""),
        ("a@[::1]/r", "a", "[::1]", "r"),
        ("a@[2001:DB8::0:1]", "a", "[2001:db8::1]", ""),
        ("!#$%()*+,-.;=?[\\]^_`{|}~@b", "!#$%()*+,-.;=?[\\]^_`{|}~", "b", ""),
    ],
)
def test_accepts(text: str, local: str, domain: str, resource: str) -> None:
    jid = Jid.parse(text)
    assert (jid.local, jid.domain, jid.resource) == (local, domain, resource)
    assert jid.bare == (f"{local}@{domain}" if local else domain)
    assert jid.full == str(jid) == jid.bare + (f"/{resource}" if resource else "")
    assert jid.is_bare == (not resource)
    assert Jid.of(local, domain, resource) == jid


# RFC 7622 3.5, table 2 (its two examples with U+265A and U+2163 in the local part included)
@pytest.mark.parametrize(
    "text",
    [
        '"juliet"@example.com',
        "foo bar@example.com",
        "juliet@example.com/",
        "@example.com",
        "@example.com/",
        "henry\u2163@example.com",
        "♚@example.com",
        "juliet@",
        "/foobar",
        "",
        "@",
        "/",
        "a@b@c",
        "a@@b",
        "a@b/\n",
        "a@b/\u200b",
        "a@b/\ud800",
        "a&b@c",
        "a'b@c",
        "a:b@c",
        "a<b@c",
        "a\uff20b@c",
        "a\0@b",
        "a@-b",
        "a@b-",
        "a@b..c",
        "a@.b",
        "a@.",
        "a@b..",
        "a@b_c",
        "a@ab--cd",
        "a@xn--a",
        "a@b c",
        "a@☃.net",
        "a@b\u200d",
        "a@[::1",
        "a@[1.2.3.4]",
        "a@[fe80::1%eth0]",
        "a@" + "b" * 64,
        "a" * 1024 + "@b",
        "é" * 512 + "@b",
        "a@b/" + "r" * 1024,
        "a@" + "b." * 511 + "bb",
        "a" * 5000,
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(JidError):
        Jid.parse(text)


def test_longest_parts() -> None:
    domain = ".".join(["d" * 63] * 15 + ["d" * 63])
    jid = Jid.parse(f"{'l' * 1023}@{domain}/{'r' * 1023}")
    assert len(jid.full) == 3 * 1023 + 2
    assert Jid.parse(f"{'é' * 511}@b").local == "é" * 511


def test_equality_and_hash_follow_the_normal_form() -> None:
    assert Jid.parse("A@B/c") == Jid.parse("a@b/c")
    assert len({Jid.parse("A@B/c"), Jid.parse("a@b/c"), Jid.parse("a@b")}) == 2
    assert Jid.parse("a@b") != "a@b"


def test_is_immutable() -> None:
    with pytest.raises(AttributeError):
        Jid.parse("a@b").local = "c"  # type: ignore[misc]


def test_with_resource() -> None:
    assert Jid.parse("a@b/c").with_resource("x\u00a0y").full == "a@b/x y"
    with pytest.raises(JidError):
        Jid.parse("a@b").with_resource("")
    with pytest.raises(JidError):
        Jid.parse("a@b").with_resource("\n")


def test_of_cannot_smuggle_separators() -> None:
    for local, domain, resource in (
        ("a@b", "c", ""),
        ("a", "b/c", ""),
        ("a/b", "c", ""),
        ("", "a@b", ""),
        ("a", "", ""),
    ):
        with pytest.raises(JidError):
            Jid.of(local, domain, resource)


def parsed(text: str) -> Jid | None:
    """The address, or None; any exception but JidError fails the test."""
    try:
        return Jid.parse(text)
    except JidError:
        return None


@given(ANY_TEXT | ADDRESS_LIKE)
def test_parsing_is_idempotent_and_never_fails_otherwise(text: str) -> None:
    jid = parsed(text)
    if jid is not None:
        again = Jid.parse(jid.full)
        assert (again.local, again.domain, again.resource) == (jid.local, jid.domain, jid.resource)
        assert Jid.parse(jid.bare).bare == jid.bare


@given(ANY_TEXT | ADDRESS_LIKE, ANY_TEXT | ADDRESS_LIKE, ANY_TEXT | ADDRESS_LIKE)
def test_parts_and_text_agree(local: str, domain: str, resource: str) -> None:
    try:
        jid = Jid.of(local, domain, resource)
    except JidError:
        return
    assert Jid.parse(jid.full) == jid


def slowly(local: str, domain: str, resource: str) -> tuple[str, str, str] | None:
    """The rules spelled out with the libraries alone, without any short cut."""
    try:
        local = get_profile("UsernameCaseMapped").enforce(local)
        labels = idna.uts46_remap(domain).removesuffix(".").split(".")
        labels = [idna.ulabel(idna.alabel(idna.ulabel(label))) for label in labels]
        resource = get_profile("OpaqueString").enforce(resource)
    except ValueError:
        return None
    return None if set(local) & set("\"&'/:<>@") else (local, ".".join(labels), resource)


@given(ASCII, st.text("aZ09-._xn", max_size=10) | ASCII, ASCII)
def test_the_ascii_short_cut_agrees_with_the_long_way(local: str, domain: str, resource: str) -> None:
    try:
        jid = Jid.of(
            local or "\n", domain, resource or "\n"
        )  # "" means absent, which the long way does not know
    except JidError:
        expected = None
    else:
        expected = (jid.local, jid.domain, jid.resource)
    if not domain.startswith("["):
        assert slowly(local, domain, resource) == expected


@pytest.mark.parametrize("code", range(128))
def test_every_ascii_character_in_every_part(code: int) -> None:
    char = chr(code)
    for template in ("a{}b@c", "{}@c"):
        local = template.partition("@")[0].format(char)
        expected = slowly(local, "c", "r")
        jid = parsed(template.format(char)) if char not in "@/" else None
        assert (jid.local if jid else None) == (expected[0] if expected else None)
    expected = slowly("a", "c", f"x{char}")
    jid = parsed(f"a@c/x{char}")
    assert (jid.resource if jid else None) == (expected[2] if expected else None)


NON_ASCII_LABEL = st.text(
    st.sampled_from("aZ09-éßıאبٱ٣۳٤\u0301\u200c\u200d·・中ア") | st.characters(exclude_categories=("Cs",)),
    max_size=12,
)


@given(st.lists(NON_ASCII_LABEL, min_size=1, max_size=3).map(".".join))
def test_the_short_cut_for_labels_agrees_with_the_long_way(domain: str) -> None:
    try:
        found = Jid.of("", domain).domain
    except JidError:
        found = None
    expected = slowly("a", domain, "r")
    assert found == (expected[1] if expected else None)


def test_what_is_no_address_is_remembered() -> None:
    text = "é" * 60 + "@b/\u200b"
    jid.release()
    for _ in range(3):
        with pytest.raises(JidError, match="not allowed there"):
            Jid.parse(text)
    assert jid._judged.cache_info().misses == 1


@pytest.mark.parametrize("size", [4093, 50_000])
@pytest.mark.parametrize("char", ["a", "é", "٣", "・", "\u0301", "\u00ad", "\uff41", "."])
def test_what_can_never_fit_is_refused(char: str, size: int) -> None:
    for make in (
        lambda: Jid.of(char * size, "b"),
        lambda: Jid.of("a", char * size),
        lambda: Jid.of("a", "b", char * size),
        lambda: Jid.parse("a@b").with_resource(char * size),
        lambda: Jid.parse(f"a@b/{char * size}"),
    ):
        with pytest.raises(JidError):
            make()


def test_what_shrinks_may_be_longer_before() -> None:
    assert Jid.of("\uff41" * 1023, "b", "\u3000" * 1023).full == f"{'a' * 1023}@b/{' ' * 1023}"
    assert Jid.of("\uff55\u0308\u0304" * 511, "b").local == "\u01d6" * 511
    for longer in (("\uff41" * 1024, "b", ""), ("a", "b", "\u3000" * 1024)):
        with pytest.raises(JidError):
            Jid.of(*longer)
