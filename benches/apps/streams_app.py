"""Hipflask's side of streams.py: WebSocket echo, and a channel of server-sent events."""

from hipflask import Channel, Flask

app = Flask(__name__)
app.config["WEBSOCKET_THREADS"] = 1000
channel = Channel()
EVENT = "x" * 100


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


@app.websocket("/echo/callback")
def echo_callback(ws):
    ws.on_message(ws.send)


@app.route("/events")
def events():
    return channel.stream()


@app.post("/publish")
def publish():
    return str(channel.publish(EVENT))
