"""Hipflask's side of streams.py: WebSocket echo."""

from hipflask import Flask

app = Flask(__name__)
app.config["WEBSOCKET_THREADS"] = 1000


@app.route("/plain")
def plain():
    return "Hello, World!"


@app.websocket("/echo/sync")
def echo_sync(ws):
    for message in ws:
        ws.send(message)


@app.websocket("/echo/async")
async def echo_async(ws):
    async for message in ws:
        await ws.send(message)
