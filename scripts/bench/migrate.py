"""migrate: how fast another server's rosters are read, imported and compared, and with how much memory.

Makes the same accounts with --contacts contacts each as JSON Lines, as a folder of Prosody and as an
SQL dump of ejabberd; then for each `xmppd migrate import` into an empty store and `xmppd migrate verify`
of it, by the command that operators use, without a server. Peak memory is the largest of all processes of the
command, in MiB. Asked: 10,000 rows/s into one node of Cassandra, 40,000 into SQLite, on two cores, and a
comparison that is as fast at least.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engines import Engines

ROOT = Path(__file__).resolve().parents[2]
XMPPD = ROOT / ".venv/bin/xmppd"
DOMAIN = "load.example"
STATES = ("both", "both", "both", "to", "from", "none")
NAMES = ("Anna", "Boris", "Clara", "Dmitri", "Elena", "Zoë", "Jürgen", "名無し")
MADE = "2026-01-01 00:00:00"
GROUPS = ("Friends", "Guild", "Work", "Family")


def contacts_of(number: int, accounts: int, count: int) -> Iterator[tuple[str, str, str, list[str]]]:
    """Contact, subscription, name and groups: the same each time for one account."""
    rng = random.Random(number)
    for step in range(1, count + 1):
        other = (number + step * 7) % accounts
        groups = rng.sample(GROUPS, rng.choice((0, 1, 1, 2)))
        yield f"user{other:07}@{DOMAIN}", rng.choice(STATES), f"{rng.choice(NAMES)} {other}", groups


def key(number: int, word: str) -> bytes:
    """Keys that nobody can log in with: of the right length, which is all that counts here."""
    return hashlib.sha1(f"{word}{number}".encode()).digest()


def make_jsonl(path: Path, accounts: int, contacts: int) -> None:
    """One line an account."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(accounts):
            keys = {name: b64encode(key(number, name)).decode() for name in ("salt", "stored", "server")}
            roster = [
                {"jid": jid, "subscription": state, "name": name, "groups": groups}
                for jid, state, name, groups in contacts_of(number, accounts, contacts)
            ]
            row = {
                "account": f"user{number:07}@{DOMAIN}",
                "keys": {"sha1": {**keys, "iterations": 4096}},
                "roster": roster,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def make_prosody(path: Path, accounts: int, contacts: int) -> None:
    """A data folder of Prosody's internal storage."""
    folders = {store: path / "load%2eexample" / store for store in ("accounts", "roster")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for number in range(accounts):
        stored, server = key(number, "stored").hex(), key(number, "server").hex()
        (folders["accounts"] / f"user{number:07}.dat").write_text(
            f'return {{\n\t["salt"] = "0000{number:032}";\n\t["iteration_count"] = 10000;\n'
            f'\t["stored_key"] = "{stored}";\n\t["server_key"] = "{server}";\n}};\n'
        )
        lines = ["return {", "\t[false] = {", '\t\t["version"] = 3;', "\t};"]
        for jid, state, name, groups in contacts_of(number, accounts, contacts):
            lines += [f'\t["{jid}"] = {{', f'\t\t["name"] = "{name}";', f'\t\t["subscription"] = "{state}";']
            lines += [
                '\t\t["groups"] = {',
                *(f'\t\t\t["{group}"] = true;' for group in groups),
                "\t\t};",
                "\t};",
            ]
        (folders["roster"] / f"user{number:07}.dat").write_text("\n".join([*lines, "};", ""]))


def make_ejabberd(path: Path, accounts: int, contacts: int) -> None:
    """A dump of ejabberd's new schema as pg_dump writes it."""
    letters = {"both": "B", "to": "T", "from": "F", "none": "N"}
    with path.open("w", encoding="utf-8") as file:
        file.write("--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\n")
        file.write("COPY public.rostergroups (username, server_host, jid, grp) FROM stdin;\n")
        for number in range(accounts):
            for jid, _, _, groups in contacts_of(number, accounts, contacts):
                for group in groups:
                    file.write(f"user{number:07}\t{DOMAIN}\t{jid}\t{group}\n")
        file.write(
            "\\.\n\nCOPY public.rosterusers (username, server_host, jid, nick, subscription, ask, "
            "askmessage, server, subscribe, type, created_at) FROM stdin;\n"
        )
        for number in range(accounts):
            for jid, state, name, _ in contacts_of(number, accounts, contacts):
                columns = (
                    f"user{number:07}",
                    DOMAIN,
                    jid,
                    name,
                    letters[state],
                    "N",
                    "",
                    "N",
                    "",
                    "item",
                    MADE,
                )
                file.write("\t".join(columns) + "\n")
        file.write(
            "\\.\n\nCOPY public.users (username, server_host, password, serverkey, salt, iterationcount, "
            "created_at) FROM stdin;\n"
        )
        for number in range(accounts):
            stored, server, salt = (
                b64encode(key(number, word)).decode() for word in ("stored", "server", "salt")
            )
            file.write(f"user{number:07}\t{DOMAIN}\t{stored}\t{server}\t{salt}\t4096\t2026-01-01 00:00:00\n")
        file.write("\\.\n\n--\n-- PostgreSQL database dump complete\n--\n\n")


SOURCES: dict[str, tuple[str, str, Callable[[Path, int, int], None]]] = {
    "jsonl": ("load.jsonl", "jsonl", make_jsonl),
    "prosody": ("prosody", "prosody", make_prosody),
    "ejabberd": ("ejabberd.sql", "ejabberd-sql", make_ejabberd),
}


def run(config: Path, *words: str) -> tuple[float, float, dict[str, Any]]:
    """A command: seconds, the largest of its processes in MiB, and its result."""
    done = subprocess.Popen(
        [sys.executable, __file__, "--measure", str(XMPPD), *words, "--config", str(config), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = done.communicate()
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {err}\n{out}")
    *_, last = out.strip().splitlines()
    seconds, peak = json.loads(last)
    return seconds, peak, json.loads(out.strip().rpartition("\n")[0])


def measure(words: list[str]) -> int:
    """Run a command, then print seconds and peak memory of the largest process as one line of JSON."""
    begun = time.monotonic()
    code = subprocess.call(words)
    seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    sys.stdout.write(json.dumps([seconds, peak]) + "\n")
    return code


@contextlib.contextmanager
def store_of(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """The section `store` of a configuration with an empty store."""
    if name == "sqlite":
        yield {}
        return
    engines = Engines(folder / "engines", nodes=1, redis=False, tied=True)
    try:
        engines.start()
        host, port = engines.contact_points[0]
        yield {
            "engine": "cassandra",
            "cassandra": {"contact_points": [f"{host}:{port}"], "keyspace": "migrate"},
        }
    finally:
        engines.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--accounts", type=int, default=20_000)
    parser.add_argument("--contacts", type=int, default=50)
    parser.add_argument("--only", default=",".join(SOURCES))
    parser.add_argument("--store", default="sqlite", choices=("sqlite", "cassandra"))
    parser.add_argument("--keep", type=Path, help="a folder in which sources are kept for the next time")
    given = parser.parse_args()
    rows = given.accounts * given.contacts
    print("| source | rows | import s | rows/s | peak MiB | verify s | rows/s | peak MiB | again s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="xmppd-migrate-") as place:
        folder = Path(place)
        sources = given.keep or folder / "sources"
        sources.mkdir(parents=True, exist_ok=True)
        with store_of(given.store, folder) as store:
            for number, name in enumerate(given.only.split(",")):
                file, form, make = SOURCES[name]
                source = sources / f"{given.accounts}-{given.contacts}-{file}"
                if not source.exists():
                    make(source, given.accounts, given.contacts)
                data = folder / f"data-{name}"
                config = folder / f"{name}.json"
                if store:
                    store["cassandra"]["keyspace"] = f"migrate{number}"
                settings = {"server": {"domains": [DOMAIN], "data_folder": str(data)}, "store": store}
                config.write_text(json.dumps(settings))
                seconds, peak, result = run(
                    config, "migrate", "import", str(source), "--format", form, "--create"
                )
                assert result["made"] == given.accounts, result
                assert result["contacts"] == rows, result
                checked, most, found = run(config, "migrate", "verify", str(source), "--format", form)
                assert found["same"] == given.accounts, found
                again, _, found = run(config, "migrate", "verify", str(source), "--format", form)
                assert found["same as before"] == given.accounts, found
                print(
                    f"| {name} | {rows:,} | {seconds:.1f} | **{rows / seconds:,.0f}** | {peak:.0f} | "
                    f"{checked:.1f} | **{rows / checked:,.0f}** | {most:.0f} | {again:.1f} |",
                    flush=True,
                )
                shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        sys.exit(measure(sys.argv[2:]))
    os.environ.pop("XMPPD_CONFIG", None)
    main()
