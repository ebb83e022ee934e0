"""A WebSocket client that sends whatever bytes a test wants, right or wrong."""

from __future__ import annotations

import socket
import struct

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = b"\x37\xfa\x21\x3d"
FIELDS = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def frame(first: int, payload: bytes = b"", *, mask: bytes | None = MASK) -> bytes:
    """One frame, `first` being its first byte, with the shortest length."""
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, masked | len(payload))
    elif len(payload) < 1 << 16:
        head = struct.pack("!BBH", first, masked | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, masked | 127, len(payload))
    if mask is None:
        return head + payload
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    data = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return head + mask + data.to_bytes(len(payload), "big")


class RawWebSocket:
    """A connection to `address` (`host:port`), with the handshake sent and its answer read.

    Attributes:
        status: The answer's status code.
        head: The answer's head.
    """

    def __init__(
        self, address: str, path: str = "/", fields: dict[str, str | None] | None = None, method: str = "GET"
    ) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 20)
        self.buffer = b""
        sent = {**FIELDS, **(fields or {})}
        lines = [f"{name}: {value}\r\n" for name, value in sent.items() if value is not None]
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode())
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.head = head.decode("latin1")
        self.status = int(self.head[9:12])

    def field(self, name: str) -> str | None:
        """A field of the answer."""
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """The next frame: its first byte and its payload. A server's frames are not masked."""
        first, length = self._take(2)
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        assert not length & 0x80 or length > 127, "a server's frame is masked"
        return first, self._take(length)

    def closed(self) -> tuple[int | None, str]:
        """Code and reason of the close frame, after which the connection ends."""
        first = 0
        while first != 0x88:
            first, payload = self.receive()
        self.socket.settimeout(20)
        while True:
            try:
                if not self.socket.recv(4096):
                    break
            except ConnectionResetError:
                break
        self.socket.close()
        if not payload:
            return None, ""
        return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    def close(self) -> None:
        """End the connection without a word."""
        self.socket.close()

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the server closed the connection after {self.buffer!r}")
        self.buffer += data
