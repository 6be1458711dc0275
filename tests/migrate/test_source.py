"""Files of a source: what is opened, and what is told where it cannot be."""

import gzip
import os
import random
from pathlib import Path

import pytest

from xmppd.migrate.scratch import MOST_BYTES, Pieces, Seen
from xmppd.migrate.source import SourceError, head_of, is_within, opened


def test_packed_or_not(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(700_000)
    for name, content in (
        ("plain", data),
        ("packed", gzip.compress(data[:350_000]) + gzip.compress(data[350_000:])),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert head_of(path) == data[:65536]
        with opened(path) as file:
            assert file.read() == data
    assert head_of(tmp_path) == b""


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, why in (
        (pipe, "is no file"),
        (Path("/dev/zero"), "is no file"),
        (tmp_path, "is no file"),
        (tmp_path / "none", "is not there"),
        (tmp_path / ("x" * 5000), "cannot be read"),
        (Path("a\0b"), "is not there"),
    ):
        with pytest.raises(SourceError, match=why):
            opened(path)


def test_what_breaks_while_it_is_read_is_told_with_the_byte(tmp_path: Path) -> None:
    data = gzip.compress(random.Random(1).randbytes(700_000))
    path = tmp_path / "broken.gz"
    for content in (
        data[:-20],
        data[:300_000] + b"broken" + data[300_006:],
        data + b"\x1f\x8b\x08junk",
        b"\x1f\x8b\x07",
    ):
        path.write_bytes(content)
        with (
            pytest.raises(SourceError, match=r"broken\.gz \(byte \d+\): cannot be read on: "),
            opened(path) as file,
        ):
            file.read()


def test_links_that_leave_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "file").touch()
    (folder / "alias").symlink_to("file")
    (folder / "out").symlink_to("/etc/passwd")
    (folder / "up").symlink_to("..")
    (folder / "round").symlink_to("round")
    (tmp_path / "link").symlink_to(folder)
    assert is_within(folder / "file", folder)
    assert is_within(folder / "alias", tmp_path / "link")
    for name in ("out", "up", "up/other", "round/x", "../x", "a\0b"):
        assert not is_within(folder / name, folder)


def test_pieces_come_back_account_by_account(tmp_path: Path) -> None:
    with Pieces(tmp_path) as pieces:
        for number in range(5000):
            pieces.add(f"a{number % 7}", number % 2, str(number))
        pieces.add("big", 0, "x" * MOST_BYTES)
        pieces.add("é", 0, "last")
        assert pieces.count() == 9
        found = dict(pieces)
        assert dict(pieces) == found
    assert list(found) == [*(f"a{number}" for number in range(7)), "big", "é"]
    assert found["a3"] == sorted(
        ((number % 2, str(number)) for number in range(3, 5000, 7)),
        key=lambda piece: (piece[0], int(piece[1])),
    )
    assert found["big"] is None
    assert list(tmp_path.iterdir()) == []


def test_names_that_were_there(tmp_path: Path) -> None:
    with Seen(tmp_path) as seen:
        assert seen.before("a", "1") is None
        assert seen.before("A", "2") is None
        assert seen.before("a", "3") == "1"
    assert list(tmp_path.iterdir()) == []


def test_no_scratch_space(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no scratch space"):
        Seen(tmp_path / "none")
    with Pieces(tmp_path) as pieces:
        pieces.run("pragma max_page_count = 10")
        pieces.add("a", 0, "x" * 100_000)
        with pytest.raises(SourceError, match=r"no scratch space: .*full"):
            pieces.flush()
