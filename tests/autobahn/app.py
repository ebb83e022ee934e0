"""Echoes WebSocket messages in each way that a view can be written."""

from __future__ import annotations

from hipflask import Flask

app = Flask(__name__)
#: The largest message of the testsuite.
app.config["WEBSOCKET_MAX_MESSAGE_SIZE"] = 16 << 20
# The compression cases take a ping for the end of the case.
app.config["WEBSOCKET_PING_INTERVAL"] = 0


@app.websocket("/sync")
def sync(ws):
    for message in ws:
        ws.send(message)


@app.websocket("/async")
async def awaited(ws):
    async for message in ws:
        await ws.send(message)


@app.websocket("/callback")
def callback(ws):
    @ws.on_message
    def echo(message):
        ws.send(message)
