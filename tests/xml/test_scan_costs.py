"""What the scanner costs: memory of who waits, and time of what is within the bounds."""

from __future__ import annotations

import gc
import time
import tracemalloc

import pytest

from tests.xml.test_scan import MESSAGE, PLAIN, opened
from xmppd.xml.scan import Engine, Limits, Scanner
from xmppd.xml.stanza import Stanza


def test_an_idle_scanner_is_small() -> None:
    engine = Engine()
    limits = Limits()
    header = PLAIN[:-1] + b" from='%0512d@localhost'>"  # too long to be remembered
    tracemalloc.start()
    try:
        scanners = []
        for i in range(1000):
            scanner = Scanner(engine, limits)
            scanner.feed(header % i)
            scanner.stepwise = False
            scanner.feed(MESSAGE + MESSAGE[:30])
            scanner.feed(MESSAGE[30:] + b" ")
            scanners.append(scanner)
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / len(scanners)
    finally:
        tracemalloc.stop()
    assert each < 200, each


def seconds(chunks: list[bytes]) -> float:
    scanner = opened()
    start = time.thread_time()
    for chunk in chunks:
        scanner.feed(chunk)
    return time.thread_time() - start


@pytest.mark.parametrize(
    "inside",
    [b"<body>", b"<body a='", b"<body><![CDATA[", b"<body><a/>", b"<body a='>"],
)
def test_the_time_for_a_slow_sender_grows_with_the_bytes(inside: bytes) -> None:
    def dribble(count: int) -> list[bytes]:
        return [b"<message>", inside, *([b">"] * count)]

    small = min(seconds(dribble(2000)) for _ in range(3))
    large = min(seconds(dribble(64_000)) for _ in range(2))
    assert large < 32 * small * 8  # quadratic would be 32 * 32


def test_no_element_within_the_bounds_is_expensive() -> None:
    prefixed = b"<x:a " + b" ".join(b"x:b%d=''" % i for i in range(60)) + b"/>"
    worst = [
        b"<message xmlns:x='" + b"u" * 512 + b"'>" + prefixed * (250_000 // len(prefixed)) + b"</message>",
        b"<message xmlns:x='" + b"u" * 200_000 + b"'>" + b"<x:a x:b='' x:c=''/>" * 10 + b"</message>",
        b"<message a='" + b"x=" * 125_000 + b"'/>",
        b"<message>" + b"<a>" * 60_000,
        b"<message " + b"a='' " * 50_000 + b"/>",
        b"<message " + b"xmlns:" * 40_000 + b"='a'/>",
        b"<message " + b"a " * 120_000,
        b"<message>" + b"&amp;" * 50_000 + b"</message>",
        b"<message>" + b"</message " * 25_000,
        b"<iq/ >" * 40_000,
        b"<iq><q/></iq >" * 4_000,
    ]
    for raw in worst:
        assert seconds([raw[i : i + 65536] for i in range(0, len(raw), 65536)]) < 1.0, raw[:40]


def test_the_shared_parser_is_as_good_as_new_after_an_error() -> None:
    engine = Engine()
    for bad in (b"<message><body></message>", b"<message a='/>", b"<message><x:a/></message>"):
        assert engine.stanza(bad) is None
        stanza = engine.stanza(MESSAGE)
        assert stanza is not None
        assert stanza.to == "a@b"


def test_names_are_not_remembered_for_ever() -> None:
    scanner = opened()
    names = iter(range(10**9))
    tracemalloc.start()
    try:
        for _ in range(2000):
            children = b"".join(b"<name-%d/>" % next(names) for _ in range(100))
            (stanza,) = scanner.feed(b"<message>" + children + b"</message>")
            assert isinstance(stanza, Stanza)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 5_000_000, most  # remembering them all takes 14 MB
