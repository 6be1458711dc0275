"""Damage to stanzas: by structure, by bytes, and by the catalogue of hazards in tests/xml."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from random import Random

TOKENS = (
    b"<", b">", b"/>", b"</", b"'", b'"', b"=", b" ", b"&", b"]]>", b"<![CDATA[", b"<!--", b"-->", b"<?",
    b"?>",
    b"\xff", b"\xc3", b"\x80", b"\0", b"\r", b" xmlns='", b" xmlns:a='", b"a:", b"<message", b"</message>",
    b"</stream:stream>", b"<stream:stream>", b"&#0;", b"&#32;", b"&lt;", b"\xc0\xbc",
    b"\xed\xa0\x80", b"\xef\xbb\xbf",
)  # fmt: skip
NAMESPACES = (
    "jabber:client",
    "jabber:server",
    "",
    "urn:x",
    "jabber:iq:roster",
    "a}b",
    "http://etherx.jabber.org/streams",
)
_ATTRIBUTE = re.compile(rb" ([\w:]+)=('[^']*'|\"[^\"]*\")")
_CHILD = re.compile(rb"<(\w+)[^<>]*(?:/>|>[^<>]*</\1>)")


def hazards() -> tuple[bytes, ...]:
    """What tests/xml knows to be hazardous, accepted or not."""
    path = Path(__file__).parents[2] / "xml" / "test_hazards.py"
    spec = importlib.util.spec_from_file_location("fuzzing_hazards", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return tuple(module.ALL)


class Mutator:
    """Spoils stanzas."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.hazards = hazards()

    def mutate(self, raw: bytes) -> bytes:
        """The stanza with one to three things done to it."""
        for _ in range(self.random.choice((1, 1, 2, 3))):
            raw = self.random.choice(MUTATIONS)(self.random, raw)
        return raw

    def huge(self) -> bytes:
        """Something big: near a bound, or beyond it (stanzas of 10 000 bytes, depth 64, 64 attributes)."""
        random = self.random
        size = random.choice((8_500, 9_900, 10_000, 10_001, 30_000))
        match random.randrange(7):
            case 0:
                return b"<message to='bob@localhost'><body>" + b"x" * size + b"</body></message>"
            case 1:
                return b"<message to='bob@localhost' id='" + b"i" * size + b"'/>"
            case 2:
                depth = random.choice((40, 60, 63, 64, 65, 200))
                return b"<message to='bob@localhost'>" + b"<a>" * depth + b"</a>" * depth + b"</message>"
            case 3:
                count = random.choice((20, 60, 64, 65, 70, 300))
                attrs = b"".join(b" a%d='1'" % index for index in range(count))
                return b"<message to='bob@localhost'><a" + attrs + b"/></message>"
            case 4:
                count = random.choice((100, 1000, 1600, 2500))
                return b"<message to='bob@localhost'>" + b"<a/>" * count + b"</message>"
            case 5:
                name = b"n" * random.choice((100, 280, 512, 600, 5000))
                return b"<message to='bob@localhost'><" + name + b"/></message>"
            case _:
                count = random.choice((5, 30, 33, 120))
                declared = b"".join(b" xmlns:p%d='urn:%d'" % (index, index) for index in range(count))
                return b"<message to='bob@localhost'" + declared + b"><p1:a/></message>"

    def hazard(self) -> bytes:
        """One of the catalogue."""
        return self.random.choice(self.hazards)


def drop_attribute(random: Random, raw: bytes) -> bytes:
    """Without one of its attributes."""
    found = list(_ATTRIBUTE.finditer(raw))
    if not found:
        return raw
    gone = random.choice(found)
    return raw[: gone.start()] + raw[gone.end() :]


def double_attribute(random: Random, raw: bytes) -> bytes:
    """With one attribute twice, or put into another tag."""
    found = list(_ATTRIBUTE.finditer(raw))
    if not found:
        return raw
    twice = random.choice(found)
    at = twice.end() if random.random() < 0.5 else random.choice(found).end()
    return raw[:at] + twice[0] + raw[at:]


def swap_values(random: Random, raw: bytes) -> bytes:
    """With the value of one attribute in another."""
    found = list(_ATTRIBUTE.finditer(raw))
    if len(found) < 2:
        return raw
    one, other = random.sample(found, 2)
    return raw[: one.start(2)] + other[2] + raw[one.end(2) :]


def change_namespace(random: Random, raw: bytes) -> bytes:
    """With a declaration of the default namespace in some tag, or another prefix."""
    tags = [match.end() for match in re.finditer(rb"<\w+", raw)]
    if not tags:
        return raw
    at = random.choice(tags)
    name = random.choice(NAMESPACES).encode()
    prefix = random.choice((b"", b"", b":a", b":stream", b":xml"))
    return raw[:at] + b" xmlns" + prefix + b"='" + name + b"'" + raw[at:]


def nest(random: Random, raw: bytes) -> bytes:
    """In another stanza, or with itself inside."""
    kind = random.choice((b"message", b"iq", b"presence", b"x"))
    wrapped = b"<" + kind + b" to='bob@localhost/b1'>" + raw + b"</" + kind + b">"
    at = raw.find(b"</")
    return wrapped if at < 0 or random.random() < 0.5 else raw[:at] + raw + raw[at:]


def repeat_child(random: Random, raw: bytes) -> bytes:
    """With a child twice."""
    found = list(_CHILD.finditer(raw, 1))
    if not found:
        return raw
    child = random.choice(found)
    return raw[: child.end()] + child[0] + raw[child.end() :]


def drop_child(random: Random, raw: bytes) -> bytes:
    """Without one of its children."""
    found = list(_CHILD.finditer(raw, 1))
    if not found:
        return raw
    child = random.choice(found)
    return raw[: child.start()] + raw[child.end() :]


def rename(random: Random, raw: bytes) -> bytes:
    """Another kind of stanza."""
    kinds = (b"message", b"presence", b"iq", b"Message", b"r", b"auth", b"starttls")
    one, other = random.choice(kinds[:3]), random.choice(kinds)
    return raw.replace(b"<" + one, b"<" + other).replace(b"</" + one, b"</" + other)


def write_token(random: Random, raw: bytes) -> bytes:
    """With a piece of markup somewhere."""
    at = random.randrange(len(raw) + 1)
    return raw[:at] + random.choice(TOKENS) + raw[at:]


def change_byte(random: Random, raw: bytes) -> bytes:
    """With another byte somewhere."""
    at = random.randrange(len(raw))
    return raw[:at] + bytes([random.randrange(256)]) + raw[at + 1 :]


def cut(random: Random, raw: bytes) -> bytes:
    """Without its end, or something in the middle."""
    at = random.randrange(len(raw))
    return (
        raw[:at] or b" "
        if random.random() < 0.5
        else raw[:at] + raw[at + random.choice((1, 2, 10)) :] or b" "
    )


def double(random: Random, raw: bytes) -> bytes:
    """Twice in a row."""
    return raw + raw


def entities(random: Random, raw: bytes) -> bytes:
    """With a letter of the content written as a reference."""
    at = raw.find(b">") + 1
    return raw[:at] + random.choice((b"&#x41;", b"&#65;", b"&amp;", b"&lol;", b"&#x1;", b"&#xD;")) + raw[at:]


MUTATIONS = (
    drop_attribute,
    double_attribute,
    swap_values,
    swap_values,
    change_namespace,
    nest,
    repeat_child,
    drop_child,
    rename,
    write_token,
    change_byte,
    cut,
    double,
    entities,
)
