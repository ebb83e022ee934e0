"""A chat room: a page, and a WebSocket that holds no thread."""

from __future__ import annotations

from hipflask import Channels, Flask, render_template, request
from hipflask.websocket import WebSocket

app = Flask(__name__)
rooms = Channels(history=20)


@app.get("/")
def index() -> str:
    """The page of a room: `/?room=hall`."""
    return render_template("room.html", room=request.args.get("room", "hall"))


@app.websocket("/ws/<room>")
def chat(ws: WebSocket, room: str) -> None:
    """Give what a member says to all members."""
    channel = rooms[room]
    name = request.args.get("name", "somebody")[:40]
    ws.join(channel)
    channel.publish({"name": name, "text": "has come"})

    @ws.on_message
    def say(message: str | bytes) -> None:
        if isinstance(message, str):
            channel.publish({"name": name, "text": message[:1000]})

    @ws.on_close
    def leave(reason: int, message: str) -> None:
        channel.publish({"name": name, "text": "has gone"})
