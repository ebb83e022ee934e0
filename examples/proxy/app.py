"""A proxy that streams in both directions: neither requests nor responses are held in memory.

`UPSTREAM` in the environment is where it forwards to. The client's body is sent on while it arrives, and the
answer while it comes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from hipflask import Flask, Response, abort, request
from hipflask.typing import ResponseReturnValue

app = Flask(__name__, static_folder=None)
app.config["UPSTREAM"] = os.environ.get("UPSTREAM", "http://127.0.0.1:8000")

PIECE = 64 * 1024
# Those of this connection alone (RFC 9110 §7.6.1).
HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    *("proxy-authenticate", "proxy-authorization"),
}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def body() -> Iterator[bytes]:
    """The client's body, as it arrives."""
    while piece := request.stream.read1(PIECE):
        yield piece


def forwarded(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those header fields that concern the other end too."""
    return [(name, value) for name, value in headers if name.lower() not in HOP_BY_HOP]


@app.route("/", defaults={"path": ""}, methods=METHODS, provide_automatic_options=False)
@app.route("/<path:path>", methods=METHODS, provide_automatic_options=False)
def forward(path: str) -> ResponseReturnValue:
    address = urlsplit(app.config["UPSTREAM"]).netloc
    connection = HTTPConnection(address, timeout=30)
    has_length = request.content_length is not None
    has_body = has_length or "Transfer-Encoding" in request.headers
    try:
        connection.request(
            request.method,
            request.full_path if request.query_string else request.path,
            body() if has_body else None,
            dict(forwarded(list(request.headers))),
            encode_chunked=has_body and not has_length,
        )
        answer = connection.getresponse()
    except (OSError, HTTPException):
        connection.close()
        abort(502)

    def pieces() -> Iterator[bytes]:
        try:
            while piece := answer.read1(PIECE):
                yield piece
        finally:
            connection.close()

    return Response(pieces(), answer.status, forwarded(answer.getheaders()))
