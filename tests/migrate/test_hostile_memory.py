"""Half a gigabyte in one value: a bound of memory, and a sentence."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from values import NAMES, VALUES


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


CHILD = """
import json, sys
from pathlib import Path
from xmppd.migrate.detect import named
from xmppd.migrate.record import Account
from xmppd.migrate.source import Options, SourceError, head_of

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

name, path, scratch = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
format, last, accounts = named(name), "", 0
before = peak()
try:
    format.recognises(path, head_of(path))
    reader = format.open(path, Options("h", scratch))
    for item in reader:
        accounts += isinstance(item, Account)
        last = getattr(item, "why", last)[:300]
    reader.close()
except SourceError as error:
    last = str(error)[:300]
print(json.dumps([accounts, last, (peak() - before) >> 10]))
"""
MOST_MEMORY = 450
"""MiB that one hostile value may cost, beside what the program takes itself."""

PIECE = 64 << 20
BIG: Mapping[str, bytes] = {
    "letters": b"x",
    "breaks": b"x\n",
    "elements": b"<b/>",
    "lists": b"{1,",
    "quotes": b"''",
}


@pytest.fixture(scope="module")
def pieces() -> Mapping[str, bytes]:
    """64 MiB of each kind of letters, packed."""
    return {kind: gzip.compress(unit * (PIECE // len(unit)), 1) for kind, unit in BIG.items()}


def _run(name: str, path: Path, scratch: Path) -> tuple[int, str, int]:
    """How many accounts a process reads, the last sentence it has to say, and the memory it takes, in MiB."""
    command = [sys.executable, "-c", CHILD, name, str(path), str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    accounts, last, memory = json.loads(done.stdout)
    return accounts, last, memory


MOST_ATTACKED = ("jsonl", "ejabberd-mnesia", "xep-0227", "ejabberd-sql")


def _gigabytes(name: str) -> Iterator[str]:
    yield from BIG if name in MOST_ATTACKED else ("letters", "breaks")


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in NAMES for kind in _gigabytes(name) if name != "prosody"]
)
def test_half_a_gigabyte_in_one_value(
    name: str, kind: str, pieces: Mapping[str, bytes], tmp_path: Path, scratch: Path
) -> None:
    which, head, tail = VALUES[name]
    path = tmp_path / which
    with path.open("wb") as file:
        file.write(gzip.compress(head))
        for _ in range(8 if kind == "letters" else 2):
            file.write(pieces[kind])
        file.write(gzip.compress(tail))
    assert path.stat().st_size < 16 << 20
    accounts, last, memory = _run(name, path, scratch)
    assert memory < MOST_MEMORY
    assert last or accounts


def test_half_a_gigabyte_in_a_file_of_a_folder(tmp_path: Path, scratch: Path) -> None:
    for name in ("prosody", "tigase", "xep-0227", "csv"):
        which, head, _ = VALUES[name]
        if name == "tigase":
            which, head = "a@h.xml", b"<contact jid='"
        path = tmp_path / name / which
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(1 << 29)
        _, last, memory = _run(name, tmp_path / name, scratch)
        assert last
        assert memory < MOST_MEMORY
