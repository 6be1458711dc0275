"""The rules of one XML stream as pure machines: bytes and events in, bytes and events out; no sockets."""
