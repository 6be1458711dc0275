"""Rosters of Prosody read contact by contact: what is read so is what the reader of any table reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from luawriter import dat

from xmppd.migrate.prosody.lua import Flag, LuaError, table_of
from xmppd.migrate.prosody.stores import contacts_of
from xmppd.migrate.prosody.usual import LONGEST, usual_contacts
from xmppd.migrate.record import Contact, Losses

SAMPLES = Path(__file__).parent / "samples"

texts = st.one_of(
    st.sampled_from(
        ["a@x", "b@x", "pending", "", 'q"] = true;', "{};", "Jürgen", "名無し", "\n", "tab\t", "\\", "'"]
    ),
    st.text(max_size=6),
    st.binary(max_size=4).map(lambda data: data.decode("utf-8", "surrogateescape")),
)
usual_groups = st.dictionaries(texts, st.just(True), max_size=3)
usual_items = st.fixed_dictionaries(
    {},
    optional={
        "name": texts,
        "subscription": st.sampled_from(["none", "to", "from", "both"]),
        "ask": st.just("subscribe"),
        "groups": usual_groups,
    },
)
odd_items = st.dictionaries(
    st.sampled_from(["name", "subscription", "ask", "groups", "approved", "persist", "x"]),
    st.one_of(texts, st.booleans(), st.integers(0, 9), st.just("remove"), usual_groups),
    max_size=3,
)
metadata = st.fixed_dictionaries(
    {}, optional={"version": st.integers(0, 99), "pending": st.dictionaries(texts, st.just(True), max_size=1)}
)


@st.composite
def rosters(draw: st.DrawFn) -> Any:
    roster: dict[Any, Any] = {}
    if draw(st.booleans()):
        roster[Flag.FALSE] = draw(metadata)
    items: Any = usual_items if draw(st.booleans()) else st.one_of(usual_items, odd_items)
    roster.update(draw(st.dictionaries(texts, items, max_size=4)))
    return roster


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Such a roster as a file, maybe with letters that are not escaped, maybe spoilt at one place."""
    data: bytes = dat(draw(rosters()))
    if draw(st.booleans()):
        data = re.sub(rb"\\([12][0-9]{2})", lambda found: bytes([int(found[1]) & 255]), data)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data)))
        piece = draw(
            st.sampled_from([b"", b'"', b"\\", b"\n", b"\t", b";", b"}", b"{", b"\xc3", b"1", b"nil"])
        )
        data = data[:at] + piece + data[at + draw(st.integers(0, 2)) :]
    return data


def by_the_table(data: bytes) -> list[Contact] | None:
    """The contacts by the reader of any table; None where it refuses some of it, or a request waits."""
    losses = Losses()
    try:
        found = contacts_of(table_of(data), "a@x", losses)
    except LuaError:
        return None
    return None if losses.kinds or any(it.pending for it in found) else found


@settings(max_examples=500)
@given(files())
def test_it_is_what_the_table_says(data: bytes) -> None:
    found = usual_contacts(data)
    assert found is None or found == by_the_table(data)


@given(
    st.dictionaries(
        st.sampled_from(["a@x", "J\xfcrgen@x", "\u540d@x", "o'hara@x"]), usual_items.filter(bool), min_size=1
    )
)
def test_usual_rosters_are_read_so(roster: Any) -> None:
    data = dat({Flag.FALSE: {"version": 3, "pending": {}}, **roster})
    assert usual_contacts(data) == by_the_table(data)


@pytest.mark.parametrize(
    "text",
    [
        '["name"] = "one";\n\t\t["name"] = "two";',
        '["groups"] = {\n\t\t\t["A"] = true;\n\t\t};\n\t\t["groups"] = {};',
        '["groups"] = {\n\t\t};',
        '["groups"] = {\n\t\t\t["A"] = true;\n\t\t\t["A"] = true;\n\t\t};',
        '["name"] = "J\xfcrgen \\195\\188";',
    ],
)
def test_of_what_is_there_twice_the_last_counts(text: str) -> None:
    one = f'\t["a@x"] = {{\n\t\t["subscription"] = "to";\n\t\t{text}\n\t}};\n'
    data = f'return {{\n{one}\t["b@x"] = {{\n\t}};\n{one}}};\n'.encode()
    found = usual_contacts(data)
    assert found is not None and [it.jid for it in found] == ["a@x", "b@x"]
    assert found == by_the_table(data)


@pytest.mark.parametrize(
    "data",
    [
        b"return {\n};",
        b'return {\n\t[false] = {\n\t\t["pending"] = {\n\t\t\t["b@x"] = true;\n\t\t};\n\t};\n};\n',
        b'return {\n\t["a@x"] = {\n\t\t["approved"] = true;\n\t};\n};\n',
        b'return {\n\t["\xff@x"] = {\n\t};\n};\n',
        b'return {\n\t["a@x"] = {\n\t\t["name"] = "\\255";\n\t};\n};\n',
        b'return {\n\t["a@x"] = {\n\t\t["name"] = "\\q";\n\t};\n};\n',
        b'return {\n\t["pending"] = {\n\t};\n};\n',
        b"return {\n" + b'\t["a@x"] = {\n\t};\n' * (LONGEST // 16) + b"};\n",
    ],
    ids=["short", "request", "approved", "bytes", "escaped-bytes", "escape", "pending", "long"],
)
def test_all_else_is_left_to_the_reader_of_tables(data: bytes) -> None:
    assert usual_contacts(data) is None


def test_rosters_that_prosody_wrote_are_usual() -> None:
    found = [path.read_bytes() for path in SAMPLES.glob("prosody-*/*/data/*/roster/*.dat")]
    read = [usual_contacts(data) for data in found]
    assert [contacts for contacts in read if contacts is not None] == [
        by_the_table(data) for data, contacts in zip(found, read, strict=True) if contacts is not None
    ]
    assert sum(contacts is not None for contacts in read) > len(found) * 2 // 3
