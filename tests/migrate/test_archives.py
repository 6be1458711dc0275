"""Archives of XEP-0227 and of JSON Lines, each made of the other."""

import json
import tracemalloc
from pathlib import Path

import pytest

from xmppd import ns
from xmppd.migrate.archives import Archived, convert, of_lines, of_pie
from xmppd.migrate.record import Losses
from xmppd.migrate.source import SourceError

FOREIGN = f"""<?xml version='1.0'?>
<p:server-data xmlns:p='{ns.PIE}'><p:host jid='capulet.com'><p:user name='juliet' password='R0m30'>
<archive xmlns='{ns.PIE_ARCHIVE}'>
{{results}}
</archive>
<p:offline-messages/></p:user></p:host></p:server-data>
"""

NO_MESSAGE = (
    f"<result xmlns='{ns.MAM}' id='x'><forwarded xmlns='{ns.FORWARD}'>"
    f"<delay xmlns='{ns.DELAY}' stamp='2010-07-10T23:08:25Z'/></forwarded></result>"
)


def result(id: str, stamp: str, body: str, *, space: str = ns.CLIENT) -> str:
    return (
        f"<result xmlns='{ns.MAM}' id='{id}'><forwarded xmlns='{ns.FORWARD}'>"
        f"<delay xmlns='{ns.DELAY}' stamp='{stamp}'/><message xmlns='{space}' "
        f"to='juliet@capulet.com/balcony' from='romeo@montague.net/orchard'><body>{body}</body>"
        f"<stanza-id xmlns='{ns.STANZA_ID}' by='juliet@capulet.com' id='{id}'/>"
        f"<stanza-id xmlns='{ns.STANZA_ID}' by='room@montague.net' id='{id}'/></message></forwarded></result>"
    )


def foreign(path: Path, *results: str) -> Path:
    path.write_text(FOREIGN.format(results="\n".join(results)))
    return path


def lines(path: Path) -> list[Archived]:
    losses = Losses()
    found = list(of_lines(path, losses))
    assert not losses.kinds
    return found


def test_messages_of_another_server_become_lines_in_their_order(tmp_path: Path) -> None:
    source = foreign(
        tmp_path / "juliet@capulet.com.xml",
        result("a", "2010-07-10T23:08:25Z", "one &amp; <b xmlns='urn:x'>two</b>"),
        result("b", "2010-07-10T23:08:25Z", "same second", space="jabber:server"),
        result("c", "2010-07-10T23:09:32.5Z", "later"),
    )
    losses = Losses()
    assert convert(source, tmp_path / "out", losses, tmp_path) == {"archives": 1, "messages": 3}
    assert not losses.kinds
    found = lines(tmp_path / "out")
    assert [(each.account, each.id) for each in found] == [("juliet@capulet.com", id) for id in "abc"]
    assert [each.at - found[0].at for each in found] == [0, 1, 67_500_000]
    assert found[0].at == 1278803305 * 1_000_000
    first, second = found[0].stanza, found[1].stanza
    assert (
        first.startswith(b"<message to='juliet@capulet.com/balcony'") and b"<b xmlns='urn:x'>two</b>" in first
    )
    assert b"room@montague.net" in first and b"by='juliet@capulet.com'" not in first
    assert b"jabber:server" not in second


def test_there_and_back_each_message_is_the_same(tmp_path: Path) -> None:
    rows = [
        {
            "account": f"user{number // 7}@localhost",
            "id": f"id{number}",
            "at": f"2026-11-29T10:00:00.{number:06}Z",
            "stanza": f"<message to='b@c' id='{number}'><body>&lt;{number}> ‰ '\"</body>"
            "<x xmlns='urn:x'/></message>",
        }
        for number in range(20)
    ]
    first = tmp_path / "first"
    first.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pie, second = tmp_path / "pie.xml", tmp_path / "second"
    assert convert(first, pie, Losses(), tmp_path) == {"archives": 3, "messages": 20}
    assert convert(pie, second, Losses(), tmp_path) == {"archives": 3, "messages": 20}
    assert lines(second) == lines(first)


def test_an_empty_archive_is_a_whole_document(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("\n")
    convert(tmp_path / "none", tmp_path / "pie.xml", Losses(), tmp_path)
    assert list(of_pie(tmp_path / "pie.xml", Losses(), tmp_path)) == []


@pytest.mark.parametrize(
    "broken",
    [
        result("x", "yesterday", "no moment"),
        f"<result xmlns='{ns.MAM}' id='x'/>",
        NO_MESSAGE,
    ],
)
def test_what_is_no_message_is_lost_and_told(broken: str, tmp_path: Path) -> None:
    source = foreign(tmp_path / "a.xml", broken, result("b", "2010-07-10T23:08:25Z", "one"))
    losses = Losses()
    assert convert(source, tmp_path / "out", losses, tmp_path)["messages"] == 1
    assert losses.summary() == {"message": 1}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"account": "a@b", "id": "1", "at": "now", "stanza": "<message/>"}',
        '{"account": "a@b", "id": "1", "at": "2010-07-10T23:08:25Z", "stanza": "<iq/>"}',
        '{"account": "a@b", "id": "1", "at": "2010-07-10T23:08:25Z", "stanza": "<message>"}',
        '{"account": "a@b", "id": "1", "at": "2010-07-10T23:08:25Z", "stanza": 5}',
    ],
)
def test_lines_that_are_no_messages_are_lost_and_told(line: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text(f"{line}\n")
    losses = Losses()
    assert list(of_lines(tmp_path / "in", losses)) == []
    assert losses.summary() == {"message": 1}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source = foreign(tmp_path / "a.xml", result("b", "2010-07-10T23:08:25Z", "one"))
    with pytest.raises(SourceError):
        convert(source, source, Losses(), tmp_path)


def test_memory_does_not_grow_with_an_archive(tmp_path: Path) -> None:
    peaks = []
    for count in (200, 4000):
        some = (result(f"id{number}", "2010-07-10T23:08:25Z", "x" * 400) for number in range(count))
        source = foreign(tmp_path / f"{count}.xml", *some)
        tracemalloc.start()
        convert(source, tmp_path / f"out{count}", Losses(), tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]
