"""Streams of clients over TCP."""

from __future__ import annotations

from xmppd.net.c2s.framing import DocumentFraming
from xmppd.net.c2s.service import Service
from xmppd.net.c2s.stream import Stream
from xmppd.net.wire import Shared, Wire


def client_wire(
    service: Service, shared: Shared, *, direct_tls: bool = False, starttls: bool = False
) -> Wire:
    """The protocol of one connection, with a stream on it: TLS from the first byte on, on request, or not at
    all.
    """
    wire = Wire(shared, starttls=starttls)
    wire.stream = Stream(service, wire, DocumentFraming(service.engine, service.limits_before_login))
    if direct_tls:
        wire.start_tls()
    return wire
