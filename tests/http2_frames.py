"""A small HTTP/2 client that can break every rule: frames as bytes, on a socket."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import NamedTuple

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)


class Frame(NamedTuple):
    """A frame (RFC 9113, section 4.1)."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(
    kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", length: int | None = None
) -> bytes:
    """A frame as bytes; `length` may lie."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(*pairs: tuple[int, int], flags: int = 0, stream: int = 0) -> bytes:
    return frame(SETTINGS, flags, stream, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def block(*fields: tuple[str | bytes, str | bytes]) -> bytes:
    """A header block whose fields are all literal, so that anything can be in them."""
    out = b""
    for name, value in fields:
        name = name.encode() if isinstance(name, str) else name
        value = value.encode() if isinstance(value, str) else value
        out += b"\x00" + _length(name) + name + _length(value) + value
    return out


def _length(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size])
    out, size = b"\x7f", size - 127
    while size >= 128:
        out += bytes([size % 128 + 128])
        size //= 128
    return out + bytes([size])


def request(method: str = "GET", path: str = "/", *more: tuple[str, str], authority: str = "test") -> bytes:
    """The block of an ordinary request."""
    return block((":method", method), (":scheme", "http"), (":authority", authority), (":path", path), *more)


def headers(stream: int, fields: bytes, flags: int = END_HEADERS | END_STREAM) -> bytes:
    return frame(HEADERS, flags, stream, fields)


class Wire:
    """A connection. What the server sends is read as frames; nothing is acknowledged unless told to."""

    def __init__(self, address: tuple[str, int], *, greet: bool = True) -> None:
        self.socket = socket.create_connection(address, timeout=15)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""
        self.decoder = Decoder()
        self.encoder = Encoder()
        if greet:
            self.send(PREFACE + settings())

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def read(self) -> Frame | None:
        """The next frame; None at the end."""
        while True:
            if len(self.rest) >= 9:
                size = int.from_bytes(self.rest[:3], "big")
                if len(self.rest) >= 9 + size:
                    kind, flags, stream = struct.unpack(">BBI", self.rest[3:9])
                    payload, self.rest = self.rest[9 : 9 + size], self.rest[9 + size :]
                    return Frame(kind, flags, stream, payload)
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.rest += data

    def outcome(self, stream: int = 1, until: int | None = None) -> tuple[str, int]:
        """Tell what becomes of a stream: status, reset or goaway with its code, or closed with 0.

        What comes afterwards is for the next call.
        """
        status = None
        while (got := self.read()) is not None:
            if got.kind == until:
                break
            if got.kind == GOAWAY:
                code = int.from_bytes(got.payload[4:8], "big")
                if code:
                    return "goaway", code
            elif got.kind == HEADERS:
                # Each block must be read, since the decoder has a memory.
                fields = dict(self.decoder.decode(got.payload))
                if got.stream == stream and int(fields.get(":status", 0)) >= 200:
                    status = int(fields[":status"])
                if got.stream == stream and got.flags & END_STREAM:
                    return "status", status
            elif got.kind == DATA and got.stream == stream and got.flags & END_STREAM:
                return "status", status
            elif got.kind == RST_STREAM and got.stream == stream:
                code = int.from_bytes(got.payload, "big")
                return ("status", status) if status and not code else ("reset", code)
        return "closed", 0

    def response(self, stream: int = 1) -> tuple[int, dict[str, str], bytes]:
        """A whole response; windows are opened as it comes."""
        status, fields, body = 0, {}, b""
        while (got := self.read()) is not None:
            if got.kind == GOAWAY and int.from_bytes(got.payload[4:8], "big"):
                raise AssertionError(got)
            if got.kind == HEADERS:
                found = dict(self.decoder.decode(got.payload))
                if got.stream == stream:
                    status, fields = int(found.pop(":status", status)), fields | found
            if got.stream != stream:
                continue
            if got.kind == RST_STREAM:
                raise AssertionError(got)
            if got.kind == DATA and got.payload:
                body += got.payload
                opening = struct.pack(">I", len(got.payload))
                self.send(frame(WINDOW_UPDATE, 0, 0, opening) + frame(WINDOW_UPDATE, 0, stream, opening))
            if got.flags & END_STREAM and got.kind in (DATA, HEADERS) and status >= 200:
                return status, fields, body
        raise AssertionError("closed")

    def close(self) -> None:
        self.socket.close()
