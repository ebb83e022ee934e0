"""A gateway from WebSockets over HTTP/1.1 to WebSockets over HTTP/2 (RFC 8441), as proxies have one.

It lets any client of the former use the latter, each connection as one stream of an HTTP/2 connection of its
own. Its HTTP/2 is that of the `h2` package. Bytes wait on both sides when the other side takes none.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
from http2_frames import GOAWAY
from raw_websocket import FIELDS
from websockets.utils import accept_key

#: What waits for the other side, at most.
ROOM = 64 * 1024
#: The fields of RFC 6455's handshake that RFC 8441 has no use for.
HOP_BY_HOP = {"host", "upgrade", "connection", "sec-websocket-key"}


class Gateway:
    """Listens at `address`; `upstream` is the server's."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self.upstream = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=_Tunnel(client, self.upstream).run, daemon=True).start()

    def close(self) -> None:
        """Listen no more; open connections end by themselves."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Http2:
    """An HTTP/2 connection that opens tunnels, for one thread: what it sends goes out at once."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = h2.config.H2Configuration(header_encoding="utf-8")
        self.protocol = h2.connection.H2Connection(config)
        self.protocol.initiate_connection()
        self.flush()
        self.rest = b""
        self.pending: list[h2.events.Event] = []
        while not self.protocol.remote_settings.enable_connect_protocol:
            self.pending += self.read()

    def flush(self) -> None:
        """Send what the protocol has written."""
        self.socket.sendall(self.protocol.data_to_send())

    def read(self) -> list[h2.events.Event]:
        """Wait for bytes; what they say. At the end: that the connection is over."""
        data = self.socket.recv(65536)
        if not data:
            return [h2.events.ConnectionTerminated()]
        self.rest += data
        events = []
        while len(self.rest) >= 9 + (size := int.from_bytes(self.rest[:3], "big")):
            frame, self.rest = self.rest[: 9 + size], self.rest[9 + size :]
            # After a GOAWAY in good order `h2` would read nothing more, not even of open streams.
            if not (frame[3] == GOAWAY and frame[13:17] == bytes(4)):
                events += self.protocol.receive_data(frame)
        self.flush()
        return events

    def connect(self, path: str, fields: dict[str, str] | None = None, protocol: str = "websocket") -> int:
        """Ask for a tunnel; the stream's number."""
        stream = self.protocol.get_next_available_stream_id()
        pseudo = {":method": "CONNECT", ":protocol": protocol, ":scheme": "http", ":path": path}
        pseudo[":authority"] = (fields or {}).get("host", FIELDS["Host"])
        more = {name: value for name, value in (fields or {}).items() if name not in HOP_BY_HOP}
        self.protocol.send_headers(stream, [*pseudo.items(), *more.items()])
        self.flush()
        return stream


def wait(readers: list[socket.socket], writers: list[socket.socket]) -> set[socket.socket]:
    """Wait for at most 20 s until one of them is ready; those that can be read."""
    with selectors.DefaultSelector() as selector:
        for each in {*readers, *writers}:
            selector.register(
                each, (each in readers) * selectors.EVENT_READ | (each in writers) * selectors.EVENT_WRITE
            )
        return {key.fileobj for key, events in selector.select(20) if events & selectors.EVENT_READ}  # type: ignore[misc]


class _Tunnel:
    """One connection of a client, and its stream."""

    def __init__(self, client: socket.socket, upstream: tuple[str, int]) -> None:
        self.client = client
        client.settimeout(20)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Small, so that a client that takes nothing is noticed.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        self.upstream = upstream
        self.up = b""
        self.down = b""
        self.client_ended = self.server_ended = self.end_sent = False

    def run(self) -> None:
        with self.client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                data = self.client.recv(65536)
                if not data:
                    return
                head += data
            head, _, self.up = head.partition(b"\r\n\r\n")
            line, *lines = head.decode().split("\r\n")
            fields: dict[str, str] = {}
            for name, _, value in (text.partition(":") for text in lines):
                key = name.lower()
                fields[key] = f"{fields[key]}, {value.strip()}" if key in fields else value.strip()
            self.http2 = Http2(self.upstream)
            with self.http2.socket:
                self.stream = self.http2.connect(line.split(" ")[1], fields)
                self.key = fields["sec-websocket-key"]
                self.carry()

    def carry(self) -> None:
        events = self.http2.pending
        while True:
            for event in events:
                if not self.take(event):
                    return None
            self.move()
            if self.server_ended and not self.down and (self.client_ended or self.refused):
                return None
            readers: list[socket.socket] = [self.http2.socket]
            if len(self.up) < ROOM and not self.client_ended:
                readers.append(self.client)
            readable = wait(readers, [self.client] if self.down else [])
            if self.client in readable:
                try:
                    data = self.client.recv(65536)
                except ConnectionResetError:
                    self.http2.protocol.reset_stream(self.stream, h2.errors.ErrorCodes.CANCEL)
                    return self.http2.flush()
                self.up += data
                self.client_ended = not data
            events = self.http2.read() if self.http2.socket in readable else []

    refused = False

    def take(self, event: h2.events.Event) -> bool:
        """Pass on what the server says; false at the end."""
        if isinstance(event, h2.events.ResponseReceived):
            fields = dict(event.headers)
            status = int(fields.pop(":status"))
            if 200 <= status < 300:
                status = 101
                fields |= {"upgrade": "websocket", "connection": "Upgrade"}
                fields["sec-websocket-accept"] = accept_key(self.key)
            self.refused = status != 101
            lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items())]
            self.down += "\r\n".join([*lines, "", ""]).encode()
        elif isinstance(event, h2.events.DataReceived):
            self.down += event.data
            self.unread += event.flow_controlled_length
        elif isinstance(event, h2.events.StreamEnded):
            self.server_ended = True
        elif isinstance(event, h2.events.StreamReset):
            return self.server_ended
        elif isinstance(event, h2.events.ConnectionTerminated):
            return False
        return True

    unread = 0

    def move(self) -> None:
        """Send both sides what they take."""
        protocol = self.http2.protocol
        if self.down:
            with contextlib.suppress(BlockingIOError):
                self.down = self.down[self.client.send(self.down, socket.MSG_DONTWAIT) :]
        if not self.down:
            if self.unread:
                protocol.acknowledge_received_data(self.unread, self.stream)
                self.unread = 0
            if self.server_ended:
                with contextlib.suppress(OSError):
                    self.client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            room = protocol.local_flow_control_window(self.stream)
            while self.up and room > 0:
                piece = self.up[: min(room, protocol.max_outbound_frame_size)]
                protocol.send_data(self.stream, piece)
                self.up = self.up[len(piece) :]
                room -= len(piece)
            if self.client_ended and not self.up and not self.end_sent:
                self.end_sent = True
                protocol.end_stream(self.stream)
        self.http2.flush()
