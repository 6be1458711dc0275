"""Live databases: what is copied of a real PostgreSQL and a real MariaDB reads like their dumps."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import databases
import psycopg
import pymysql
import pytest
from truth import SAMPLES, differences

from xmppd.migrate.formats import ejabberd_sql, prosody_sql
from xmppd.migrate.record import Losses
from xmppd.migrate.source import LONGEST_VALUE, Format, Options, SourceError, head_of
from xmppd.migrate.sql.live import copied, is_url, merged
from xmppd.migrate.sql.text import database

EJABBERD = SAMPLES / "ejabberd-23.01"
pytestmark = pytest.mark.timeout(900)
"""The first run may have to install both servers."""

TABLES = {"t": ("a", "b", "missing"), "u": (), "none": ("x",)}


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with databases.postgresql() as address:
        yield address


@pytest.fixture(scope="module")
def mariadb() -> Iterator[str]:
    with databases.mariadb() as address:
        yield address


def read(form: Format, path: Path, scratch: Path, domain: str) -> tuple[list[Any], dict[str, int]]:
    losses = Losses()
    assert form.recognises(path, head_of(path))
    with closing(form.open(path, Options(domain=domain, scratch=scratch, losses=losses))) as reader:
        return list(reader), dict(losses.summary())


def alike(form: Format, live: Path, dump: Path, scratch: Path, domain: str) -> None:
    """Two sources have the same accounts, and the same of theirs is lost."""
    (found, lost), (wanted, also) = read(form, live, scratch, domain), read(form, dump, scratch, domain)
    assert lost == also
    assert differences(found) == differences(wanted)
    assert [account.name for account in found] == [account.name for account in wanted]
    assert [len(account.roster) for account in found] == [len(account.roster) for account in wanted]
    assert [account.created for account in found] == [account.created for account in wanted]


def test_ejabberd_on_postgresql(postgresql: str, tmp_path: Path) -> None:
    dump = EJABBERD / "postgresql-new-schema-sha512/sql/pg_dump.sql"
    databases.psql(postgresql, "new", dump)
    live = copied(f"{postgresql}/new", tmp_path, ejabberd_sql.TABLES)
    alike(ejabberd_sql.FORMAT, live, dump, tmp_path, "")


def test_ejabberd_on_mariadb(mariadb: str, tmp_path: Path) -> None:
    dump = EJABBERD / "mariadb-old-schema-plain/sql/chat.example.sql"
    databases.mysql(mariadb, "it's old", dump)
    live = copied(f"{mariadb}/it's%20old", tmp_path, ejabberd_sql.TABLES)
    alike(ejabberd_sql.FORMAT, live, dump, tmp_path, "chat.example")


def test_prosody_on_postgresql(postgresql: str, tmp_path: Path) -> None:
    dump = SAMPLES / "prosody-0.12.3/sqlite-sha256/prosody.sql"
    tables = {
        "prosody": ("host", "user", "store", "key", "type", "value"),
        "prosodyarchive": ("sort_id", "host", "user", "store", "key", "when", "with", "type", "value"),
    }
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("CREATE DATABASE prosody")
    url = f"{postgresql}/prosody"
    with psycopg.connect(url) as connection, closing(sqlite3.connect(":memory:")) as source:
        source.executescript(dump.read_text())
        for table, columns in tables.items():
            fields = ", ".join(
                f'"{column}" {"integer" if column in ("sort_id", "when") else "text"}' for column in columns
            )
            connection.execute(f"CREATE TABLE {table} ({fields})")
            names = ", ".join(f'"{column}"' for column in columns)
            rows = source.execute(f"SELECT {names} FROM {table}").fetchall()
            marks = ", ".join(["%s"] * len(columns))
            connection.cursor().executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    alike(prosody_sql.FORMAT, copied(url, tmp_path, tables), dump, tmp_path, "")


def everything(path: Path, scratch: Path) -> tuple[list[Any], Any, Any]:
    with closing(database(path, scratch, TABLES)) as dump:
        return list(dump.rows("SELECT a, b, missing FROM t ORDER BY b")), dump.counts, dump.present


HARD = ["two\nlines\r\n", "tab\t\\N \\. \\", 'it\'s "x" `y`', "é́ 名 🎮", "", None]


def test_values_of_postgresql_come_as_they_are(postgresql: str, tmp_path: Path) -> None:
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("CREATE DATABASE hard")
    with psycopg.connect(f"{postgresql}/hard") as connection:
        connection.execute('CREATE TABLE "T" (a text, b integer); CREATE TABLE u (x text)')
        connection.execute(
            "CREATE SCHEMA other; CREATE TABLE other.t (a text); INSERT INTO u VALUES ('a'), ('b')"
        )
        connection.cursor().executemany(
            'INSERT INTO "T" VALUES (%s, %s)', [(v, n) for n, v in enumerate(HARD)]
        )
    rows, counts, present = everything(copied(f"{postgresql}/hard", tmp_path, TABLES), tmp_path)
    assert rows == [(value, str(number), None) for number, value in enumerate(HARD)]
    assert (counts, present) == ({"u": 2}, {"t": {"a", "b"}, "u": frozenset()})


def connect(mariadb: str, **options: Any) -> "pymysql.Connection[Any]":
    port = int(mariadb.rpartition(":")[2])
    return pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True, **options)


def test_values_of_mariadb_come_as_they_are(mariadb: str, tmp_path: Path) -> None:
    with connect(mariadb, charset="utf8mb4") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE hard CHARACTER SET utf8mb4")
        cursor.execute("USE hard")
        cursor.execute("CREATE TABLE t (a text, b integer)")
        cursor.execute("CREATE TABLE u (x blob)")
        cursor.execute("INSERT INTO u VALUES ('a'), ('b')")
        cursor.executemany(
            "INSERT INTO t VALUES (%s, %s)", [(value, number) for number, value in enumerate(HARD)]
        )
    rows, counts, present = everything(copied(f"{mariadb}/hard", tmp_path, TABLES), tmp_path)
    assert rows == [(value, str(number), None) for number, value in enumerate(HARD)]
    assert (counts, present) == ({"u": 2}, {"t": {"a", "b"}, "u": frozenset()})


def test_spoilt_text_of_a_blob_is_mended_and_counted(mariadb: str, tmp_path: Path) -> None:
    with connect(mariadb) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE spoilt")
        cursor.execute("USE spoilt")
        cursor.execute("CREATE TABLE t (a blob, b integer)")
        cursor.executemany(
            "INSERT INTO t VALUES (%s, %s)", [(b"J\xfcrgen", 0), ("Ã©tÃ©".encode(), 1), ("é".encode(), 2)]
        )
    losses = Losses()
    rows, _, _ = everything(copied(f"{mariadb}/spoilt", tmp_path, TABLES, losses), tmp_path)
    assert [row[0] for row in rows] == ["Jürgen", "Ã©tÃ©", "é"]
    assert losses.summary() == {"not-utf8": 1, "mojibake": 1}


def test_a_value_beyond_the_limit_is_an_error_and_nothing_is_left(postgresql: str, tmp_path: Path) -> None:
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("CREATE DATABASE big")
    with psycopg.connect(f"{postgresql}/big") as connection:
        connection.execute(
            f"CREATE TABLE t (a text); INSERT INTO t VALUES (repeat('x', {LONGEST_VALUE + 1}))"
        )
    with pytest.raises(SourceError, match=r"t: cannot be copied: .*too big"):
        copied(f"{postgresql}/big", tmp_path, TABLES)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_let_in_is_an_error_without_the_password(
    postgresql: str, mariadb: str, tmp_path: Path
) -> None:
    closed = databases.free_port()
    for url in (
        f"{postgresql}/gone".replace("none", "s%65cret"),
        f"postgresql://a:s%65cret@127.0.0.1:{closed}/x",
        f"mysql://a:s%65cret@127.0.0.1:{closed}/x",
        f"{mariadb}/gone".replace("root@", "nobody:s%65cret@"),
    ):
        with pytest.raises(SourceError, match="cannot be reached") as error:
            copied(url, tmp_path, TABLES)
        assert "s%65cret" not in str(error.value)
        assert "secret" not in str(error.value)
        assert list(tmp_path.iterdir()) == []


def test_a_password_that_an_error_repeats_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be reached") as error:
        copied(f"postgresql://a:refused@127.0.0.1:{databases.free_port()}/x", tmp_path, TABLES)
    assert "refused" not in str(error.value)


@pytest.mark.parametrize("url", ["oracle://x/y", "mysql://x:port/y", "postgresql://[/y", "plain"])
def test_what_is_no_address_is_said(tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceError, match="is no address of a database"):
        copied(url, tmp_path, TABLES)


def test_a_missing_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SourceError, match=r"driver psycopg is missing .*pip install 'xmppd\[migrate\]'"):
        copied("postgresql://localhost/x", tmp_path, TABLES)


def test_addresses_are_told_from_files() -> None:
    assert [is_url(text) for text in ("postgresql://x/y", "MySQL://x", "mariadb://x/y", "postgres://x")] == [
        True
    ] * 4
    assert [is_url(text) for text in ("dump.sql", "/a/b", "mysql", "file://x", "")] == [False] * 5


def test_tables_of_several_formats_are_merged() -> None:
    assert merged([{"t": ("a", "b"), "u": ()}, {"T": ("b", "c"), "v": ("x",)}]) == {
        "t": ("a", "b", "c"),
        "u": (),
        "v": ("x",),
    }


def test_a_database_is_a_source_like_any_other(postgresql: str, tmp_path: Path) -> None:
    dump = EJABBERD / "postgresql-new-schema-sha512/sql/pg_dump.sql"
    databases.psql(postgresql, "imported", dump)
    url = f"{postgresql}/imported".replace("postgres@", "postgres:hidden@")
    config = tmp_path / "x.yaml"
    config.write_text(
        f"server: {{domains: [chat.example, games.example], data_folder: {tmp_path / 'data'}}}\n"
    )

    def run(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "xmppd", "migrate", *words, "--config", str(config), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1, done.stderr  # one account cannot be an address here
        return dict(json.loads(done.stdout))

    done = run("import", url, "--create")
    assert (done["made"], done["refused"]) == (59, 1)
    assert run("verify", url)["same"] == 59
    kept = (tmp_path / "data" / "migrations" / done["run"] / "run.json").read_text()
    assert "hidden" not in kept
    assert "/imported" in kept


def test_a_running_database_is_shadowed(postgresql: str, tmp_path: Path) -> None:
    databases.psql(postgresql, "shadowed", EJABBERD / "postgresql-new-schema-sha512/sql/pg_dump.sql")
    url = f"{postgresql}/shadowed"
    config = tmp_path / "x.yaml"
    config.write_text(
        f"server: {{domains: [chat.example, games.example], data_folder: {tmp_path / 'data'}}}\n"
    )

    def run(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "xmppd", "migrate", *words, "--config", str(config), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout, done.stderr
        return dict(json.loads(done.stdout))

    def one_round() -> dict[str, int]:
        told = run("shadow", url, "--once", "--create")["last round"]
        return {word: told.get(word, 0) for word in ("accounts", "made", "changed", "unchanged", "refused")}

    nothing = {"accounts": 60, "made": 0, "changed": 0, "unchanged": 0, "refused": 1}
    assert one_round() == {**nothing, "made": 59}
    assert one_round() == {**nothing, "unchanged": 59}
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT username, server_host, jid FROM rosterusers WHERE server_host = 'chat.example'"
            " AND subscription = 'B' ORDER BY username, jid LIMIT 1"
        ).fetchone()
        assert found is not None
        connection.execute(
            "UPDATE rosterusers SET nick = 'seen by the shadow'"
            " WHERE username = %s AND server_host = %s AND jid = %s",
            found,
        )
    assert one_round() == {**nothing, "changed": 1, "unchanged": 58}
    target = tmp_path / "after.jsonl"
    run("export", str(target))
    with target.open(encoding="utf-8") as lines:
        rows = {row["account"]: row for row in map(json.loads, lines)}
    names = {item["jid"]: item.get("name") for item in rows[f"{found[0]}@{found[1]}"]["roster"]}
    assert names[found[2]] == "seen by the shadow"
