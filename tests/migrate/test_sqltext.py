"""SQL dumps in the spellings of all shells, and what is no dump."""

import gzip
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xmppd.migrate.record import Losses
from xmppd.migrate.source import LONGEST_VALUE, SourceError
from xmppd.migrate.sql import rows as sqlrows
from xmppd.migrate.sql import scan as sqlscan
from xmppd.migrate.sql.text import Dump, database, tables_in, tables_of

TABLES = {"t": ("a", "b", "c")}
Row = Sequence[Any]
HARD = [
    "",
    "O'Brien",
    "''",
    "\\",
    "\\'",
    "a\\nb",
    "two\nlines",
    "cr\rlf\r\n",
    "tab\there",
    'double"quote',
    "`back`",
    "semi;colon",
    "),(",
    "');--",
    "-- no comment\n/* nor */ this # one",
    "$$ $tag$",
    "NULL",
    "\\N",
    "\\.",
    "é́ 名 🎮 \u2028",
    "\x0b\x0c\x08\x1a\x7f",
    "0x41",
    "char(10)",
]


def loaded(tmp_path: Path, text: str | bytes, tables: Any = TABLES, losses: Losses | None = None) -> Dump:
    path = tmp_path / "dump.sql"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return database(path, tmp_path, tables, losses)


def rows(tmp_path: Path, text: str | bytes, **kwargs: Any) -> list[Any]:
    with closing(loaded(tmp_path, text, **kwargs)) as dump:
        return list(dump.rows("SELECT a, b, c FROM t ORDER BY rowid"))


def fails(tmp_path: Path, text: str | bytes, match: str) -> str:
    with pytest.raises(SourceError, match=match) as error:
        loaded(tmp_path, text).close()
    return str(error.value)


# Writers: what the shells write.


def copy(values: Sequence[Row]) -> str:
    def field(value: Any) -> str:
        if value is None:
            return "\\N"
        out = str(value).replace("\\", "\\\\")
        for letter, name in (("\b", "b"), ("\f", "f"), ("\n", "n"), ("\r", "r"), ("\t", "t"), ("\v", "v")):
            out = out.replace(letter, "\\" + name)
        return out

    lines = ["\t".join(map(field, row)) + "\n" for row in values]
    return f"COPY public.t (a, b, c) FROM stdin;\n{''.join(lines)}\\.\n\n"


def standard(value: Any) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def inserts(values: Sequence[Row]) -> str:
    return "CREATE TABLE public.t (\n    a text NOT NULL,\n    b text,\n    c text\n);\n" + "".join(
        f"INSERT INTO public.t VALUES ({', '.join(map(standard, row))});\n" for row in values
    )


def mysql(values: Sequence[Row]) -> str:
    def field(value: Any) -> str:
        if value is None:
            return "NULL"
        pairs = (("\\", "\\\\"), ("\0", "\\0"), ("\n", "\\n"), ("\r", "\\r"))
        for letter, name in (*pairs, ("'", "\\'"), ('"', '\\"'), ("\x1a", "\\Z")):
            value = value.replace(letter, name)
        return f"'{value}'"

    head = (
        "-- MySQL dump 10\n/*!40101 SET NAMES utf8mb4 */;\nDROP TABLE IF EXISTS `t`;\nCREATE TABLE `t` ("
        "\n  `a` varchar(191) NOT NULL DEFAULT 'x,y',\n  `b` text COMMENT 'it''s, (b)',\n  `c` decimal(10,2),"
        "\n  PRIMARY KEY (`a`),\n  KEY `k` (`b`(75),`c`)\n) ENGINE=InnoDB;\nLOCK TABLES `t` WRITE;\n"
    )
    some = ",".join("(" + ",".join(map(field, row)) + ")" for row in values)
    return head + (f"INSERT INTO `t` VALUES {some};\n" if values else "") + "-- Dump completed\n"


def shell(values: Sequence[Row]) -> str:
    """As SQLite's shell writes since 2017."""

    def field(value: Any) -> str:
        out = standard(value)
        for letter, name, code in (("\n", "\\n", 10), ("\r", "\\r", 13)):
            if letter in out:
                while name in out:
                    name = f"({name}0)"
                out = f"replace({out.replace(letter, name)},'{name}',char({code}))"
        return out

    lines = "".join(f"INSERT INTO t VALUES({','.join(map(field, row))});\n" for row in values)
    return f"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t (a text, b, c);\n{lines}COMMIT;\n"


def unistr_shell(values: Sequence[Row]) -> str:
    """As SQLite's shell writes since 2025."""

    def field(value: Any) -> str:
        if value is None or not any(letter < " " for letter in value):
            return standard(value)
        text = value.replace("\\", "\\\\").replace("'", "''")
        return "unistr('" + "".join(f"\\u{ord(c):04x}" if c < " " else c for c in text) + "')"

    lines = "".join(f"INSERT INTO t VALUES({','.join(map(field, row))});\n" for row in values)
    return f"BEGIN TRANSACTION;\nCREATE TABLE t (a text, b, c);\n{lines}COMMIT;\n"


WRITERS = (copy, inserts, mysql, shell, unistr_shell)
writers = pytest.mark.parametrize("write", WRITERS)
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.none() | st.text(letters | st.sampled_from("'\"\\`;,()\n\r\t$-#"), max_size=12)


@writers
def test_hard_values_come_as_they_were(tmp_path: Path, write: Callable[[Sequence[Row]], str]) -> None:
    values = [(first, second, None) for first in HARD for second in HARD]
    assert rows(tmp_path, write(values)) == values


@writers
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    values=st.lists(st.tuples(texts, texts, texts), max_size=8),
    piece=st.integers(1, 60),
    room=st.sampled_from([300, 65_536]),
)
def test_any_text_is_read_in_any_pieces(
    tmp_path: Path, write: Callable[[Sequence[Row]], str], values: list[Row], piece: int, room: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlscan, "PIECE", piece)
        patch.setattr(sqlscan, "ROOM", room)
        patch.setattr(sqlrows, "ROOM", room)
        assert rows(tmp_path, write(values)) == values


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(values=st.lists(st.tuples(texts, texts, st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=4))))
def test_what_python_dumps_of_sqlite_is_read(tmp_path: Path, values: list[Row]) -> None:
    with closing(sqlite3.connect(":memory:")) as made:
        made.execute("CREATE TABLE t (a, b, c)")
        made.executemany("INSERT INTO t VALUES (?, ?, ?)", values)
        text = "\n".join(made.iterdump())
    assert [(a, b, as_text(c)) for a, b, c in values] == rows(tmp_path, text)


def as_text(value: Any) -> Any:
    """A blob is text where it is UTF-8."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def test_what_the_real_shell_dumps_is_read(tmp_path: Path) -> None:
    values = [(first, second, number) for number, first in enumerate(HARD) for second in HARD]
    with closing(sqlite3.connect(tmp_path / "made.sqlite")) as made, made:
        made.execute("CREATE TABLE t (a TEXT, b TEXT, c INTEGER)")
        made.executemany("INSERT INTO t VALUES (?, ?, ?)", values)
    text = subprocess.run(["sqlite3", tmp_path / "made.sqlite", ".dump"], capture_output=True, check=True)
    assert rows(tmp_path, text.stdout) == values


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("NULL", None),
        ("null", None),
        ("-12", -12),
        ("1.5e3", 1500.0),
        ("99999999999999999999", 1e20),
        ("true", 1),
        ("'x'::text", "x"),
        ("'x'::character varying(20)", "x"),
        ("X'c3a9'", "é"),
        ("0xC3A9", "é"),
        ("_binary 'a'", "a"),
        ("_utf8mb4'a'", "a"),
        ("N'a'", "a"),
        (r"E'a\nb\\c\'d'", "a\nb\\c'd"),
        ("'a'||char(10)||'b'", "a\nb"),
        ("replace(replace('a\\nb\\rc','\\n',char(10)),'\\r',char(13))", "a\nb\rc"),
        ("replace('a','','b')", "a"),
        ("char(104,105)", "hi"),
        ("unistr('\\u00e9\\+01f3ae\\\\')", "é🎮\\"),
        ("concat('a', 1)", "a1"),
    ],
)
@pytest.mark.parametrize("before", ["", "('x','y',1),", "('x','y','z'),"])
def test_values_are_read_however_written(tmp_path: Path, written: str, meant: Any, before: str) -> None:
    text = f"INSERT INTO t (a, b, c) VALUES {before}\n ('1', '2', {written}) ;"
    assert rows(tmp_path, text)[-1] == ("1", "2", meant)


def test_a_backslash_escapes_in_dumps_of_mysql_alone(tmp_path: Path) -> None:
    text = r"INSERT INTO `t` (`a`) VALUES ('o\\27hara\t\%');"
    assert rows(tmp_path, text) == [("o\\27hara\t\\%", None, None)]
    assert rows(tmp_path, r"INSERT INTO t (a) VALUES ('o\27hara\');") == [("o\\27hara\\", None, None)]


def test_copy_knows_bytes_in_octal_and_hexadecimal(tmp_path: Path) -> None:
    text = "COPY t (a, b, c) FROM stdin;\n\\101\\x42\\v\t\\303\\251\tx\\qy\n\\.\n"
    assert rows(tmp_path, text) == [("AB\v", "é", "xqy")]


def test_columns_are_found_by_name_without_case_and_others_are_passed(tmp_path: Path) -> None:
    text = "INSERT INTO \"public\".\"T\" (\"C\", extra, `A`) VALUES (1, 'it''s, (', 'x'), (2, 5, NULL);"
    with closing(loaded(tmp_path, text)) as dump:
        assert list(dump.rows("SELECT a, b, c FROM t")) == [("x", None, 1), (None, None, 2)]
        assert dump.present == {"t": {"a", "c"}}


def test_tables_without_columns_are_counted(tmp_path: Path) -> None:
    text = copy([("1", "2", "3")] * 3) + "INSERT INTO u VALUES (1), (2);\n"
    with closing(loaded(tmp_path, "CREATE TABLE u (x int);\n" + text, {"t": (), "u": (), "v": ()})) as dump:
        assert dump.counts == {"t": 3, "u": 2, "v": 0}


def test_definitions_with_comments_and_constraints_are_read(tmp_path: Path) -> None:
    text = """CREATE TABLE IF NOT EXISTS t (
        -- the name, it's not null
        a character varying(20) DEFAULT 'a, (b'::character varying NOT NULL CHECK (a <> ')'), /* , (c */
        "key" numeric(10, 2),
        b text,
        CONSTRAINT one UNIQUE (a, b),
        PRIMARY KEY (a), c text
    );
    INSERT INTO t VALUES ('1', 2.5, '3', '4');"""
    assert rows(tmp_path, text) == [("1", "3", "4")]


def test_what_is_no_row_is_passed_over(tmp_path: Path) -> None:
    text = """--
# only MySQL has this
/*!40000 ALTER TABLE `t` DISABLE KEYS */; /* ; ' */ ;;
SET a = 'x;''y\\';';
INSERT INTO `other` VALUES ('a;\\'b', "c;"), (`d;`, -- ';
 1);
DELIMITER ;;
CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW BEGIN INSERT INTO t VALUES ('no'); END ;;
DELIMITER ;
INSERT INTO `t` (`a`) VALUES ('yes');
"""
    assert rows(tmp_path, text) == [("yes", None, None)]
    text = """\\restrict abc'def
CREATE FUNCTION f() RETURNS trigger AS $_$ BEGIN; INSERT INTO t VALUES ('no'); ' $$ END; $_$ LANGUAGE x;
COPY other (x) FROM stdin;
it's; INSERT INTO t (a) VALUES ('no');
\\.
INSERT INTO t (a) VALUES ('yes') ON CONFLICT DO NOTHING;
INSERT INTO other SELECT 'a' FROM t;
"""
    assert rows(tmp_path, text) == [("yes", None, None)]
    text = """BEGIN TRANSACTION; CREATE TABLE t(a);
CREATE TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO t VALUES ('no'); DELETE FROM t; END;
INSERT INTO t VALUES('yes');
COMMIT;"""
    assert rows(tmp_path, text) == [("yes", None, None)]


def test_line_breaks_of_windows_and_other_encodings(tmp_path: Path) -> None:
    text = "COPY t (a, b, c) FROM stdin;\r\n1\t2\\r\t3\r\n4\t5\t6\r\n\\.\r\n"
    assert rows(tmp_path, text) == [("1", "2\r", "3"), ("4", "5", "6")]
    text = inserts([("é", "名", "x")])
    assert rows(tmp_path, b"\xef\xbb\xbf" + text.encode()) == [("é", "名", "x")]
    assert rows(tmp_path, b"\xff\xfe" + text.encode("utf-16-le")) == [("é", "名", "x")]
    text = "SET client_encoding = 'LATIN1';\n" + inserts([("Jürgen", "ß", "x")])
    assert rows(tmp_path, text.encode("latin-1")) == [("Jürgen", "ß", "x")]


def test_a_gzipped_dump_is_read(tmp_path: Path) -> None:
    data = gzip.compress(copy([("1", "2", "3")]).encode())
    assert rows(tmp_path, data) == [("1", "2", "3")]
    fails(tmp_path, data[:-12], "cannot be read")


SPOILT = "Семья".encode().decode("latin-1")


@pytest.mark.parametrize("filler", ["é", "x" * 3000 + "é"])
def test_spoilt_text_is_counted_and_mended(tmp_path: Path, filler: str) -> None:
    losses = Losses()
    values = (
        b"J\xfcrgen",
        "cut é".encode() + b"\xf0\x9f",
        "é".encode() + b"\xff!",
        "Ã©tÃ©",
        SPOILT,
        "naïve",
    )
    lines = b"".join(
        b"\t".join([value if isinstance(value, bytes) else value.encode(), b"", filler.encode()]) + b"\n"
        for value in values
    )
    found = rows(tmp_path, b"COPY t (a, b, c) FROM stdin;\n" + lines + b"\\.\n", losses=losses)
    assert [row[0] for row in found] == ["Jürgen", "cut é", "é\ufffd!", "Ã©tÃ©", SPOILT, "naïve"]
    assert losses.summary() == {"not-utf8": 3, "mojibake": 2}
    assert losses.kinds["mojibake"].samples[0] == ("", "t.a")


@pytest.mark.parametrize("before", range(0, 400, 50))
def test_spoilt_text_is_mended_when_the_window_has_moved_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(sqlscan, "PIECE", 400)
    monkeypatch.setattr(sqlscan, "ROOM", 100)
    monkeypatch.setattr(sqlrows, "ROOM", 100)
    monkeypatch.setattr(sqlrows, "LOW", 0)
    losses = Losses()
    plain = b"".join(b"INSERT INTO t (a, b) VALUES ('%d', 'x');\n" % number for number in range(40))
    odd = b"INSERT INTO t (a, b, c) VALUES ('J\xfcrgen', '', '');\n"
    other = b"DELETE FROM other WHERE a = 1;\n" * 100
    text = b" " * before + plain + odd + plain + odd + other + plain
    found = rows(tmp_path, text, losses=losses)
    assert [row[0] for row in found].count("Jürgen") == 2
    assert len(found) == 122
    assert losses.summary() == {"not-utf8": 2}


def test_question_marks_of_mysql_are_counted(tmp_path: Path) -> None:
    losses = Losses()
    values = ["? Guild", "?????", "who?", "a ?", "http://x/?a=b"]
    rows(tmp_path, mysql([(value, None, None) for value in values]), losses=losses)
    assert losses.summary() == {"question-marks": 3}
    losses = Losses()
    rows(tmp_path, copy([(value, None, None) for value in values]), losses=losses)
    assert losses.summary() == {}


def test_export2sql_is_read_in_both_ways_of_escaping(tmp_path: Path) -> None:
    value = 'it\'s "two"\nlines \\ tab\t'
    for written in (
        "'it''s \"two\"\nlines \\ tab\t'",
        "'it''s \\\"two\\\"\\nlines \\\\ tab\\t'",
    ):
        text = (
            "-- \n-- Mnesia table: roster\n--\ndelete from t where a='x''y;' and 0=0;\n"
            f"insert into t(a, b) values ('1', {written});\n"
        )
        with closing(loaded(tmp_path, text)) as dump:
            assert list(dump.rows("SELECT a, b FROM t")) == [("1", value)]
            assert dump.marks == ["roster"]


# What is no dump.


@pytest.mark.parametrize(
    ("text", "why", "place"),
    [
        ("hello, world\n", "no statement of SQL", ":1 (byte 0)"),
        ("SELECT 1;\n\x89PNG\r\n", "no statement of SQL", ":2 (byte 10)"),
        ("SELECT 'é';\n<xml/>", "no statement of SQL", ":2 (byte 13)"),
        ("SELECT 1;\nSELECT 'abc\n\n", "ends in the middle of a string", ":2 (byte 17)"),
        ("SELECT 1;\n SELECT 2\n", "ends in the middle of a statement", ":2 (byte 11)"),
        ("/* abc", "ends in the middle of a comment", ":1"),
        ("INSERT INTO t (a) VALUES ('1'),\n('2", "ends in the middle of a string", ":2 (byte 33)"),
        ("INSERT INTO t (a) VALUES ('1'),\n('2'", "ends in the middle of a row", ":2 (byte 32)"),
        ("INSERT INTO t (a) VALUES ('1'),\n", "ends in the middle of a statement", ":1"),
        ("INSERT INTO t (a) VALUES ('1')", "ends in the middle of a row", ":1"),
        ("INSERT INTO t (a) VALUES ('1', '2');", "more values|2 values and not 1", ":1"),
        ("INSERT INTO t (a, b) VALUES\n('1');", "1 values and not 2", ":2"),
        ("INSERT INTO t (a) VALUES ('1') '2';", "not followed", ":1"),
        ("INSERT INTO t (a) VALUES (load_file('/etc/passwd'));", r"load_file\(\) is no value", ":1"),
        ("INSERT INTO t (a) VALUES (SELECT 1);", "no value", ":1"),
        ("INSERT INTO t (a) VALUES (X'zz');", "no blob", ":1"),
        ("INSERT INTO t (a) VALUES (char(-1));", "no letter", ":1"),
        ("INSERT INTO t SELECT 1;", "no INSERT with VALUES", ":1"),
        ("INSERT INTO t VALUES (1);", "columns of t are not known", ":1"),
        ("CREATE TABLE t (a, b", "columns of this table", ":1"),
        ("COPY t (a, b, c) FROM stdin;\n1\t2\t3\n1\t2\n", "2 columns and not 3|ends in the middle", ":"),
        ("COPY t (a, b, c) FROM stdin;\n1\t2\t3\n1\t2\n\\.\n", "2 columns and not 3", ":3 (byte 35)"),
        ("COPY t (a, b, c) FROM stdin;\n1\t2\t3\n", "ends in the middle of the rows", ":1"),
        ("COPY other (a) FROM stdin;\n1\n", "ends in the middle of the rows", ":1"),
        ("-- PostgreSQL database dump\nSELECT 1;\n", "before the line '-- PostgreSQL database dump c", ":"),
        ("-- MariaDB dump 10.19\nSELECT 1;\n", "before the line '-- Dump completed'", ":"),
        ("BEGIN TRANSACTION;\nCREATE TABLE t (a);\n", "before the line 'COMMIT'", ":"),
        ("BEGIN TRANSACTION;\nROLLBACK; -- due to errors\n", "met errors", ":2"),
        ("", "is empty", "dump.sql"),
        ("\n \n", "is empty", "dump.sql"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, why: str, place: str) -> None:
    assert place in fails(tmp_path, text, why)


@writers
def test_a_dump_that_was_cut_anywhere_is_no_dump(
    tmp_path: Path, write: Callable[[Sequence[Row]], str]
) -> None:
    whole = write([("a'b\\", "two\nlines", None), ("c", ");", "d")]).strip()
    begin = max(whole.find("VALUES"), whole.find("stdin;"))
    for end in range(begin + 10, len(whole)):
        try:
            dump = loaded(tmp_path, whole[:end])
        except SourceError:
            continue
        rest = whole[end:].strip()
        assert write is inserts or rest == ""  # a script of whole statements has no end
        assert rest == "" or rest.startswith("INSERT")
        dump.close()


def test_two_databases_in_one_dump_are_not_mixed(tmp_path: Path) -> None:
    text = "INSERT INTO t (a) VALUES ('1');\n"
    fails(tmp_path, f"USE `one`;\n{text}USE `two`;\n{text}", "several tables t")
    fails(tmp_path, f"\\connect one\n{text}\\connect two\n{text}", "several tables t")
    other = text.replace("t (", "other.t (")
    fails(tmp_path, text + other, "several tables t")
    assert rows(tmp_path, f"USE `one`;\n{text}USE `one`;\n{text}") == [("1", None, None)] * 2


BIG = "x" * (LONGEST_VALUE + 10)


@pytest.mark.parametrize(
    "text",
    [
        f"INSERT INTO t (a) VALUES\n('{BIG}');",
        f"INSERT INTO t (a) VALUES\n('{chr(39) * 2 * (LONGEST_VALUE + 10)}');",
        f"INSERT INTO t (a) VALUES\n(0x{'41' * (LONGEST_VALUE + 10)});",
        f"COPY t (a) FROM stdin;\n{BIG}\n\\.\n",
        "INSERT INTO t (a) VALUES\n(" + "replace(" * 20 + "'aa'" + ",'a','aaaaaaaa')" * 20 + ");",
        "INSERT INTO t (a) VALUES\n(" + "'x'||" * 3 + f"'{BIG[:-20]}'||'{BIG[:-20]}');",
    ],
    ids=["string", "quotes", "blob", "copy", "replace", "joined"],
)
def test_a_value_beyond_the_limit_costs_a_sentence(tmp_path: Path, text: str) -> None:
    assert ":2 (byte " in fails(tmp_path, text, f"more than {LONGEST_VALUE} bytes")


def test_a_huge_value_that_nobody_wants_is_passed_over(tmp_path: Path) -> None:
    text = f"INSERT INTO u VALUES ('{BIG}', '{chr(39) * 2 * 100_000}');\nINSERT INTO t (a) VALUES ('1');\n"
    assert rows(tmp_path, text) == [("1", None, None)]


def test_calls_within_calls_have_an_end(tmp_path: Path) -> None:
    text = f"INSERT INTO t (a) VALUES ({'concat(' * 5000}1{')' * 5000});"
    fails(tmp_path, text, "calls within each other")


# Files of SQLite.


def made(tmp_path: Path, *statements: str) -> Path:
    path = tmp_path / "it's 100% #1?.sqlite"
    with closing(sqlite3.connect(path)) as file, file:
        for statement in statements:
            file.execute(statement)
    return path


def test_an_sqlite_file_has_the_same_shape(tmp_path: Path) -> None:
    path = made(
        tmp_path,
        "CREATE TABLE T (A TEXT, c TEXT, extra)",
        "INSERT INTO T VALUES ('0123', CAST(X'ff41' AS TEXT), 1)",
    )
    with closing(database(path, tmp_path, {**TABLES, "none": ("x",), "u": ()})) as dump:
        assert list(dump.rows("SELECT a, b, c FROM t")) == [("0123", None, "\ufffdA")]
        assert list(dump.rows("SELECT x FROM none")) == []
        assert dump.present == {"t": {"a", "c"}}
        assert dump.counts == {"u": 0}
        with pytest.raises(sqlite3.OperationalError):
            dump.execute("INSERT INTO main.t (a) VALUES (1)")
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_views_of_an_sqlite_file_are_not_run(tmp_path: Path) -> None:
    path = made(tmp_path, "CREATE VIEW t AS SELECT 1 AS a, 2 AS b, 3 AS c")
    with closing(database(path, tmp_path, TABLES)) as dump:
        assert list(dump.rows("SELECT * FROM t")) == []
        assert "t" not in dump.present


def test_a_broken_sqlite_file_is_an_error(tmp_path: Path) -> None:
    path = made(tmp_path, "CREATE TABLE t (a, b, c)", *["INSERT INTO t VALUES (randomblob(3000), 2, 3)"] * 20)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\x77" * (len(data) - 4096))
    with (
        pytest.raises(SourceError, match="cannot be read"),
        closing(database(path, tmp_path, TABLES)) as dump,
    ):
        list(dump.rows("SELECT * FROM t"))
    path.write_bytes(data[:100])
    with pytest.raises(SourceError, match="cannot be read"):
        database(path, tmp_path, TABLES)


def test_an_sqlite_file_in_use_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path, "CREATE TABLE t (a, b, c)")
    path.with_name(path.name + "-wal").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"is in use: .*-wal"):
        database(path, tmp_path, TABLES)


def test_a_value_beyond_the_limit_of_an_sqlite_file_is_an_error(tmp_path: Path) -> None:
    path = made(
        tmp_path, "CREATE TABLE t (a, b, c)", f"INSERT INTO t (a) VALUES (zeroblob({LONGEST_VALUE + 1}))"
    )
    with pytest.raises(SourceError, match="too big"), closing(database(path, tmp_path, TABLES)) as dump:
        list(dump.rows("SELECT * FROM t"))


# Recognising.


def test_tables_are_found_in_the_beginning(tmp_path: Path) -> None:
    assert tables_in(b"CREATE TABLE public.Users (\nINSERT INTO `rosterusers` VALUES\nCOPY x.y (a)") == {
        "users",
        "rosterusers",
        "y",
    }
    assert tables_in(b"\x00\xff{}<xml/>") == set()
    path = made(tmp_path, "CREATE TABLE Users (a, b)")
    assert tables_of(path) == {"users": {"a", "b"}}
    text = tmp_path / "x.sql"
    text.write_text("CREATE TABLE `Users` (`A` int, b text);\nINSERT INTO u (`X`, y) VALUES (1, 2);\nCOPY v ")
    assert tables_of(text) == {"users": {"a", "b"}, "u": {"x", "y"}, "v": frozenset()}
    path.write_bytes(path.read_bytes()[:60])
    assert tables_of(path) == {}


def test_nothing_is_left_in_the_scratch_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.sql"
    path.write_text(copy([("1", "2", "3")]))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with closing(database(path, scratch, TABLES)):
        assert list(scratch.iterdir()) == []
    with pytest.raises(SourceError, match="no database can be made"):
        database(path, tmp_path / "gone", TABLES)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ('host text, "user" text, key text, index integer', {"host", "user", "key", "index"}),
        ("a int, key character varying(255), period text", {"a", "key", "period"}),
        ("`a` int, KEY `by_a` (`a`), INDEX (`a`)", {"a"}),
        ("a int, KEY by_a (a), KEY b USING BTREE (a), key varchar(9)", {"a", "key"}),
        ("a int, PRIMARY KEY (a), CONSTRAINT x UNIQUE (a), LIKE b", {"a"}),
    ],
)
def test_what_else_stands_between_columns(tmp_path: Path, columns: str, found: set[str]) -> None:
    path = tmp_path / "x.sql"
    path.write_text(f"CREATE TABLE x ({columns});\n")
    assert tables_of(path) == {"x": found}


def test_an_insert_behind_a_name_that_no_table_has(tmp_path: Path) -> None:
    path = tmp_path / "x.sql"
    path.write_text(
        "CREATE TABLE `a` (`b` int);\nINSERT\nINTO `c` (`d`) VALUES (1);\nxINSERT INTO `e` (`f`) VALUES (1);"
    )
    assert tables_of(path)["a"] == {"b"}
