"""The part of Lua in which Prosody stores data."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from luawriter import dat, item

from xmppd.migrate.prosody import lua
from xmppd.migrate.prosody.lua import Flag, LuaError, Table, items_of, table_of

SAMPLES = Path(__file__).parent / "samples" / "prosody-0.12.3"

# Bytes of any kind, as text: what is no UTF-8 becomes surrogates.
texts = st.one_of(st.text(), st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
numbers = st.one_of(
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer()),
)
keys = st.one_of(texts, numbers, st.sampled_from(Flag))
tables: st.SearchStrategy[Table] = st.deferred(
    lambda: st.dictionaries(keys, values, max_size=5) | st.lists(values, max_size=5).map(numbered)
)
values = st.one_of(texts, numbers, st.booleans(), tables)


def numbered(found: list[lua.Value]) -> Table:
    return dict(enumerate(found, 1))


def typed(value: object) -> object:
    """With types, for 1 == True == 1.0."""
    if isinstance(value, dict):
        return {(type(key), key): typed(inner) for key, inner in value.items()}
    return type(value), value


@given(tables)
def test_what_prosody_writes_is_read_back(table: Table) -> None:
    assert typed(table_of(dat(table))) == typed(table)


@given(st.lists(tables, max_size=6), st.sampled_from((1, 7, 64, 1 << 20)))
def test_lists_are_read_back_in_any_pieces(found: list[Table], chunk: int) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(chunk, size or 0))

    data = b"".join(map(item, found))
    assert [typed(table) for table in items_of(Slow(data))] == [typed(table) for table in found]


@given(tables, st.data())
def test_a_file_cut_anywhere_is_an_error(table: Table, data: st.DataObject) -> None:
    whole = dat(table).rstrip(b";\n")
    with pytest.raises(LuaError):
        table_of(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary())
def test_any_bytes_are_a_table_or_an_error(data: bytes) -> None:
    for text in (data, b"return {" + data + b"}"):
        error = None
        try:
            table_of(text)
        except LuaError as caught:
            error = caught
        if error is not None:
            assert 0 <= error.byte <= len(text)
            assert error.line == text.count(b"\n", 0, error.byte) + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", {}),
        ("{1,2;3}", {1: 1, 2: 2, 3: 3}),
        ("{a=1,b_2 = 'x'}".replace("'", '"'), {"a": 1, "b_2": "x"}),
        ("{[1]=5;[-2]=6;[1.5]=7;[false]=8;[true]=9}", {1: 5, -2: 6, 1.5: 7, Flag.FALSE: 8, Flag.TRUE: 9}),
        ('{["a\\098"]="\\0\\7\\65\\065"}', {"ab": "\0\x07AA"}),
        ('{"\\a\\b\\f\\n\\r\\t\\v\\\\\\"\\\'"}', {1: "\a\b\f\n\r\t\v\\\"'"}),
        ('{"two\\\nlines"}', {1: "two\nlines"}),
        ('{"two\\\r\nlines"}', {1: "two\nlines"}),
        ('{"\\195\\188\\255"}', {1: "\u00fc\udcff"}),
        ("{1e3,-1.5E-2,10000.0}", {1: 1000, 2: -0.015, 3: 10000}),
        ("{nil,2}", {2: 2}),
        ("{a=1;a=nil;b=2;b=3}", {"b": 3}),
        ("{{},{{}}}", {1: {}, 2: {1: {}}}),
        ("\r\n{\t}\n", {}),
    ],
)
def test_values(text: str, expected: Table) -> None:
    assert typed(table_of(f"return {text};\n".encode())) == typed(expected)


def test_raw_bytes_in_strings_are_utf8() -> None:
    assert table_of('return {["Schlüssel"]="prüf\\195\\188ng"}'.encode()) == {"Schlüssel": "prüfüng"}
    assert table_of(b'return {"\xff"}') == {1: "\udcff"}


@pytest.mark.parametrize(
    ("text", "why", "byte"),
    [
        ("", "the file ends too early", 0),
        ("return", "the file ends too early", 6),
        ("return {", "the file ends too early", 8),
        ('return {\n"a', "a string that does not end on its line, or has more than 1048576 escapes", 9),
        ('return {\n"a\n"}', "a string that does not end on its line, or has more than 1048576 escapes", 9),
        ("return {} {}", "expected ';', ',' or '}'", 10),
        ("return {};return {}", "something follows the table", 10),
        ("return 5", "expected 'return {'", 7),
        ("x = {}", "expected 'return {'", 0),
        ("return os.execute('x')", "a call", 7),
        ('return {os.execute("x")}', "a call", 8),
        ('return {f{"x"}}', "a call", 8),
        ("return {x}", "expected a value", 8),
        ("return {function() end}", "a call", 8),
        ('return {"a".."b"}', "a concatenation", 11),
        ("return {1+1}", "expected ';', ',' or '}'", 9),
        ("return {(1/0)}", "expected a value", 8),
        ("return {-nan}", "expected a value", 8),
        ("return {0x10}", "expected ';', ',' or '}'", 9),
        ("return {[[x]]}", "a long bracket", 8),
        ("return {[==[x]==]}", "a long bracket", 8),
        ("-- x\nreturn {}", "a comment", 0),
        ("return {--x\n}", "a comment", 8),
        ("return {'x'}", "expected a value", 8),
        ('return {"\\x41"}', "an escape that is not known", 9),
        ('return {"ab\\256"}', "an escape that is not known", 11),
        ('return {"\\065\\999"}', "an escape that is not known", 9),
        ('return {"\\z"}', "an escape that is not known", 9),
        ('return {["\\q"]=1}', "an escape that is not known", 10),
        ("return {1 2}", "expected ';', ',' or '}'", 10),
        ("return {a=}", "expected a value", 10),
        ("return {a={} b=1}", "expected ';', ',' or '}'", 13),
        ("return {[nil]=1}", "expected a value", 8),
        ("return {[{}]=1}", "expected a value", 8),
        ("return {end=1}", "a word of the language as a key", 8),
        ("return {;}", "expected a value", 8),
        ("return {1e9999}", "a number out of range", 8),
        ("return {" + "9" * 65 + "}", "expected ';', ',' or '}'", 72),
        ("return {\x00}", "expected a value", 8),
    ],
)
def test_all_else_is_an_error_with_its_place(text: str, why: str, byte: int) -> None:
    with pytest.raises(LuaError) as caught:
        table_of(text.encode())
    assert (caught.value.why, caught.value.byte) == (why, byte)


def test_errors_say_nothing_of_what_is_there() -> None:
    with pytest.raises(LuaError) as caught:
        table_of(b'return {["password"] = "hunter2')
    assert (
        str(caught.value)
        == "line 1 (byte 23): a string that does not end on its line, or has more than 1048576 escapes"
    )


def test_a_list_says_where_it_breaks_off_behind_its_good_items() -> None:
    data = item({"a": 1}) * 3 + b"item({\n\t1;"
    found = items_of(io.BytesIO(data))
    assert [next(found) for _ in range(3)] == [{"a": 1}] * 3
    with pytest.raises(LuaError) as caught:
        next(found)
    assert (caught.value.line, caught.value.byte) == (data.count(b"\n") + 1, len(data))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"item({}", "the file ends too early"),
        (b"item(5);", "expected 'item({'"),
        (b"item({}, {});", "expected ')'"),
        (b"return {};", "expected 'item({'"),
        (b"os.exit({});", "a call"),
        (b"item({})\x00", "expected 'item({'"),
    ],
)
def test_a_list_has_items_only(data: bytes, why: str) -> None:
    with pytest.raises(LuaError) as caught:
        list(items_of(io.BytesIO(data)))
    assert caught.value.why == why


def test_lists_may_be_padded() -> None:
    assert list(items_of(io.BytesIO(b"  \n item({1}) ;; item ( {2} )\n\t"))) == [{1: 1}, {1: 2}]
    assert list(items_of(io.BytesIO(b""))) == []


def test_depth_is_bounded() -> None:
    def nested(depth: int) -> bytes:
        return b"return " + b"{" * depth + b"}" * depth

    assert table_of(nested(lua.DEEPEST + 1))
    with pytest.raises(LuaError, match=f"more than {lua.DEEPEST} tables"):
        table_of(nested(lua.DEEPEST + 2))
    with pytest.raises(LuaError, match=f"more than {lua.DEEPEST} tables"):
        table_of(b"return " + b"{" * 1_000_000)


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lua, "LONGEST_VALUE", 10)
    assert table_of(b'return {"0123456789"}') == {1: "0123456789"}
    for text in (b'{"0123456789a"}', b'{["0123456789a"]=1}', b'{"0123456789\\097"}'):
        with pytest.raises(LuaError, match="a string of more than 10 bytes"):
            table_of(b"return " + text)
    monkeypatch.setattr(lua, "MOST_VALUES", 5)
    assert table_of(b"return {1,2,{4,5}}")
    with pytest.raises(LuaError, match="more than 5 values"):
        table_of(b"return {1,2,3,4,5,6}")
    with pytest.raises(LuaError, match="more than 5 values"):
        table_of(b"return {{},{},{},{},{},{}}")
    monkeypatch.setattr(lua, "LONGEST_TABLE", 30)
    with pytest.raises(LuaError, match="more than 30 bytes"):
        table_of(b"return {}" + b" " * 30)


def test_items_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lua, "LONGEST_ITEM", 100)
    monkeypatch.setattr(lua, "CHUNK", 16)
    small = item({1: "x" * 50})
    assert len(list(items_of(io.BytesIO(small * 20)))) == 20
    with pytest.raises(LuaError, match="an item of more than 100 bytes"):
        list(items_of(io.BytesIO(small + b'item({"' + b"x" * 10_000)))


def test_escapes_of_one_string_are_bounded() -> None:
    (text,) = table_of(b'return {"' + b"\\255" * lua.MOST_ESCAPES + b'"}').values()
    assert text == "\udcff" * lua.MOST_ESCAPES
    with pytest.raises(LuaError, match="more than 1048576 escapes"):
        table_of(b'return {"' + b"\\255" * (lua.MOST_ESCAPES + 1) + b'"}')


@pytest.mark.parametrize(
    "path", sorted(SAMPLES.glob("internal-*/data/*/roster/*.dat")), ids=lambda path: path.stem
)
def test_samples_are_written_back_as_they_were(path: Path) -> None:
    data = path.read_bytes()
    assert dat(table_of(data)) == data
