"""What a peer gets to read of the end of a connection, with a transport that keeps every write."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from xmppd.core.reports import Reports
from xmppd.net.certificates import Certificates, development_certificate
from xmppd.net.pace import Tempo
from xmppd.net.wire import Shared, Wire, WireRules

END = b"</stream:stream>"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Recorder(asyncio.Transport):
    """A transport without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.has_ended = self.is_closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        assert not self.has_ended
        self.writes.append(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_ended = True

    def close(self) -> None:
        self.has_ended = self.is_closed = True

    def is_closing(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return True


class Deaf:
    """A stream that is told of everything and does nothing."""

    is_busy = False

    def begun(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        pass

    def drained(self) -> None:
        pass

    def broken(self) -> None:
        pass


class Peer:
    """A client of TLS and a wire, joined in memory; with a version their handshake is done."""

    def __init__(self, folder: Path, version: ssl.TLSVersion | None) -> None:
        self.shared = Shared(WireRules(), Tempo(lambda: 0.0), Reports(lambda: 0.0))
        self.shared.certificates = Certificates(development_certificate(folder, ["localhost"]))
        self.wire, self.transport = Wire(self.shared), Recorder()
        self.wire.stream = Deaf()
        self.wire.connection_made(self.transport)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._taken = 0
        if version is not None:
            context.minimum_version = context.maximum_version = version
        self.tls = context.wrap_bio(self._incoming, self._outgoing)
        self.wire.start_tls()
        while version is not None:
            try:
                self.tls.do_handshake()
                self.flush()
                break
            except ssl.SSLWantReadError:
                self.flush()
                self.take()

    def flush(self) -> None:
        """Give the wire what the client has to say."""
        data = self._outgoing.read()
        self.shared.buffer[: len(data)] = data
        if data:
            self.wire.buffer_updated(len(data))

    def take(self) -> list[bytes]:
        """What the wire has written since the last time; the client has it now."""
        fresh = self.transport.writes[self._taken :]
        self._taken = len(self.transport.writes)
        self._incoming.write(b"".join(fresh))
        return fresh


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("last", [END, b"<stream:error/>" * 500 + END], ids=["short", "long"])
def test_the_end_of_the_stream_and_of_tls_go_out_in_one_piece(
    tmp_path: Path, version: ssl.TLSVersion, last: bytes
) -> None:
    peer = Peer(tmp_path, version)
    peer.take()
    peer.wire.finish([last[:9], last[9:]])
    assert len(peer.take()) == 1
    said = b""
    while len(said) < len(last):
        said += peer.tls.read()
    assert said == last
    assert peer.tls.read() == b""  # the goodbye
    assert peer.transport.has_ended


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_operators_are_told_how_it_is_encrypted(tmp_path: Path, version: ssl.TLSVersion) -> None:
    peer, before = Peer(tmp_path, version), Peer(tmp_path, None)
    cipher = peer.tls.cipher()
    assert cipher is not None
    assert peer.wire.encryption == (version.name.replace("_", "."), cipher[0])
    assert before.wire.encryption == ("", "")


def test_before_the_handshake_nothing_is_said_in_plain_text(tmp_path: Path) -> None:
    peer = Peer(tmp_path, None)
    peer.wire.finish([END])
    assert b"stream" not in b"".join(peer.take())
    assert peer.transport.has_ended


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_nothing_is_said_after_the_end(tmp_path: Path, version: ssl.TLSVersion) -> None:
    peer = Peer(tmp_path, version)
    peer.wire.finish([END])
    peer.take()
    peer.wire.finish([END])
    peer.wire.write(b"more")
    assert peer.take() == []


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_a_goodbye_with_the_last_words_is_answered_once(tmp_path: Path, version: ssl.TLSVersion) -> None:
    class Polite(Deaf):
        def received(self, data: bytes) -> None:
            peer.wire.finish([END])

    peer = Peer(tmp_path, version)
    peer.wire.stream = Polite()
    peer.take()
    peer.tls.write(END)
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.flush()
    assert len(peer.take()) == 1
    assert peer.tls.read() == END
    assert peer.transport.is_closed
