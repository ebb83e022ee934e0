"""An application whose views read bodies in each way, and connections to it: for what is slow or endless."""

from __future__ import annotations

import socket
import ssl

APP = """
from hipflask import Flask, request

app = Flask(__name__)


@app.route("/", methods=["GET", "POST"])
def index():
    return str(len(request.get_data()))


@app.route("/stream", methods=["POST"])
def stream():
    return str(sum(map(len, iter(lambda: request.stream.read(65536), b""))))


@app.route("/later", methods=["POST"])
async def later():
    return str(len(await request.get_data_async()))
"""


def secure(client: socket.socket, protocol: str = "http/1.1") -> ssl.SSLSocket:
    """The same connection with TLS, whoever answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context.wrap_socket(client)
