"""Channels: what is published reaches all subscribers."""

from __future__ import annotations

import gc
import threading
from contextlib import closing
from typing import Any

import pytest
from doors import Client
from test_sse import TIMEOUT, Reader, serving

from hipflask import Channel, Channels, Flask, _core


def wait_for(condition: Any) -> None:
    """Wait for something that another thread brings about."""
    deadline = threading.Event()
    for _ in range(2000):
        if condition():
            return
        deadline.wait(0.01)
    raise AssertionError("it did not come about")


@pytest.fixture
def channel(app: Flask) -> Channel:
    """A channel with a history, whose stream is at `/`."""
    channel = Channel("news", history=3)
    app.add_url_rule("/", "view", lambda: channel.stream())
    app.add_url_rule("/publish", "publish", lambda: str(channel.publish("published", id="p")))
    return channel


class TestThroughEveryDoor:
    def test_who_comes_back_gets_what_was_missed(self, app: Flask, channel: Channel, client: Client) -> None:
        for number in range(5):
            channel.publish(f"event {number}", id=number)
        channel.close()

        def got(**headers: str) -> list[str]:
            text = client.get("/", headers=headers).text
            return [line[6:] for line in text.splitlines() if line.startswith("data: ")]

        assert got() == []
        assert got(**{"Last-Event-ID": "3"}) == ["event 4"]
        assert got(**{"Last-Event-ID": "4"}) == []
        # Out of the history, or never there: all that is kept.
        assert got(**{"Last-Event-ID": "0"}) == ["event 2", "event 3", "event 4"]
        assert got(**{"Last-Event-ID": "unknown"}) == ["event 2", "event 3", "event 4"]
        # The last byte may come before the server has ended the stream.
        wait_for(lambda: len(channel) == 0)

    def test_headers_and_replay(self, app: Flask, channel: Channel, client: Client) -> None:
        @app.route("/late")
        def late() -> Any:
            return channel.stream(replay=2, retry=10, headers={"X-Room": "1"}, status=203)

        for number in range(3):
            channel.publish(number)
        channel.close()
        answer = client.get("/late")
        assert answer.status_code == 203
        assert answer.header("Content-Type") == "text/event-stream"
        assert answer.header("X-Room") == "1"
        assert answer.text.startswith("retry: 10\n\n")
        assert "data: 0" not in answer.text
        assert "data: 1" in answer.text
        assert "data: 2" in answer.text

    def test_the_test_client_does_not_wait_for_the_first_event(self, app: Flask, channel: Channel) -> None:
        response = app.test_client().get("/")
        assert channel.publish("first", id=1) == 1
        channel.close()
        assert response.text == "id: 1\ndata: first\n\n"

    def test_head_leaves_no_subscriber(self, channel: Channel, client: Client) -> None:
        answer = client.open("/", "HEAD")
        assert answer.header("Content-Type") == "text/event-stream"
        gc.collect()
        assert len(channel) == 0

    def test_publishing_in_a_view(self, channel: Channel, client: Client) -> None:
        with closing(channel.subscribe()) as events:
            assert client.get("/publish").text == "1"
            assert next(events) == b"id: p\ndata: published\n\n"
        assert client.get("/publish").text == "0"


class TestInThisProcess:
    def test_a_subscription_gets_events_from_its_beginning(self) -> None:
        channel = Channel()
        channel.publish("before")
        subscription = channel.subscribe()
        assert channel.publish("a", event="e") == 1
        assert channel.publish({"b": [1]}) == 1
        assert next(subscription) == b"event: e\ndata: a\n\n"
        assert next(subscription) == b'data: {"b": [1]}\n\n'
        subscription.close()
        assert channel.publish("c") == 0
        assert (len(channel), channel.published, channel.dropped) == (0, 4, 0)
        assert list(subscription) == []

    def test_it_waits_and_says_that_it_is_alive(self) -> None:
        channel = Channel(heartbeat=0.05)
        subscription = channel.subscribe()
        assert next(subscription) == b":\n\n"
        threading.Timer(0.02, channel.publish, ["a"]).start()
        assert next(event for event in subscription if event != b":\n\n") == b"data: a\n\n"

    def test_one_that_does_not_read_is_ended(self) -> None:
        channel = Channel(queue=100)
        slow, quick = channel.subscribe(), channel.subscribe()
        for number in range(20):
            channel.publish(str(number) * 10)
            assert next(quick)
        assert channel.dropped == 1
        got = list(slow)
        assert 1 <= len(got) < 20
        slow.close()
        assert len(channel) == 1

    def test_close_ends_subscriptions_after_what_was_published(self) -> None:
        channel = Channel()
        subscription = channel.subscribe()
        channel.publish("last")
        channel.close()
        assert list(subscription) == [b"data: last\n\n"]
        assert list(channel.subscribe()) == []

    def test_one_that_is_forgotten_leaves(self) -> None:
        channel = Channel()
        subscription = channel.subscribe()
        assert len(channel) == 1
        del subscription
        gc.collect()
        assert len(channel) == 0

    def test_ids_are_of_this_channel_alone(self) -> None:
        first, second = Channel(history=10), Channel(history=10)
        for channel in (first, second):
            for number in range(3):
                channel.publish(number)
            channel.close()

        def ids(channel: Channel, last: str) -> list[bytes]:
            events = channel.subscribe(last_event_id=last)
            return [line[4:] for event in events for line in event.splitlines() if line[:4] == b"id: "]

        own = [identity.decode() for identity in ids(first, "")]
        assert len(set(own)) == 3
        assert len(ids(first, own[1])) == 1
        # The namesake of another process knows none of them.
        assert len(ids(second, own[1])) == 3

    @pytest.mark.parametrize(
        "options", [{"event": "a\nb"}, {"id": "a\nb"}, {"id": "\0"}], ids=["event", "id", "null"]
    )
    def test_what_cannot_be_an_event_is_refused(self, options: dict[str, Any]) -> None:
        channel = Channel(history=1)
        with pytest.raises(ValueError, match="cannot have"):
            channel.publish("x", **options)
        assert channel.published == 0

    @pytest.mark.parametrize("options", [{"queue": 0}, {"history": -1}], ids=str)
    def test_bounds_make_sense(self, options: dict[str, Any]) -> None:
        with pytest.raises((ValueError, OverflowError)):
            Channel(**options)

    def test_says_what_it_is(self) -> None:
        channel = Channel("news")
        assert repr(channel) == "<Channel 'news': 0 subscribers>"
        assert bool(channel)


class TestHeldByTheEngine:
    def test_events_reach_all_and_nobody_waits_for_them(self, app: Flask, channel: Channel) -> None:
        """Many more subscribers than threads."""
        with serving(app, threads=2) as where:
            readers = [Reader(where) for _ in range(50)]
            assert len(channel) == 50
            assert channel.publish("hello") == 50
            for reader in readers:
                assert b"data: hello" in reader.until(b"\n\n\r\n")
            with Reader(where, "/publish", Connection="close") as publisher:
                assert publisher.rest() == b"50"
            for reader in readers:
                reader.until(b"data: published\n\n")
                reader.close()
            wait_for(lambda: len(channel) == 0)

    def test_coroutine_views_publish_and_subscribe(self, app: Flask) -> None:
        channel = Channel()

        @app.route("/events")
        async def events() -> Any:
            return channel.stream()

        @app.route("/publish")
        async def publish() -> str:
            return str(channel.publish("from a coroutine"))

        with serving(app) as where, Reader(where, "/events") as reader:
            with Reader(where, "/publish", Connection="close") as publisher:
                assert publisher.rest() == b"1"
            reader.until(b"data: from a coroutine\n\n")

    def test_middleware_leaves_it_to_the_engine(self, app: Flask, channel: Channel) -> None:
        inner = app.wsgi_app
        app.wsgi_app = lambda environ, start: inner(environ, start)  # type: ignore[method-assign]
        with serving(app, threads=1) as where:
            readers = [Reader(where) for _ in range(10)]
            assert channel.publish("hello") == 10
            for reader in readers:
                reader.until(b"data: hello\n\n")
                reader.close()

    def test_what_comes_between_subscribing_and_sending_is_not_lost(self, app: Flask) -> None:
        channel = Channel()

        @app.route("/")
        def view() -> Any:
            response = channel.stream()
            channel.publish("while the response is made")
            return response

        with serving(app) as where, Reader(where) as reader:
            reader.until(b"data: while the response is made\n\n")
            channel.publish("after")
            reader.until(b"data: after\n\n")

    def test_a_slow_one_is_cut_off_and_the_others_go_on(self, app: Flask) -> None:
        channel = Channel(queue=1_000_000)
        app.add_url_rule("/", "view", lambda: channel.stream())
        with serving(app) as where, Reader(where) as slow, Reader(where) as quick:
            while not channel.dropped:
                channel.publish("x" * 100_000)
                quick.until(b"\n\n\r\n")
            # Cut, not completed: the client comes back.
            assert not slow.rest().endswith(b"0\r\n\r\n")
            wait_for(lambda: len(channel) == 1)
            channel.publish("on")
            quick.until(b"data: on\n\n")

    def test_quiet_streams_are_kept_alive(self, app: Flask) -> None:
        channel = Channel(heartbeat=0.05)
        app.add_url_rule("/", "view", lambda: channel.stream())
        with serving(app) as where, Reader(where) as reader:
            reader.until(b":\n\n")
            reader.until(b":\n\n")

    def test_close_completes_the_streams(self, app: Flask, channel: Channel) -> None:
        with serving(app) as where, Reader(where, Connection="close") as reader:
            channel.publish("last")
            channel.close()
            assert reader.rest().endswith(b"data: last\n\n\r\n0\r\n\r\n")

    def test_a_stop_tells_subscribers_to_come_back_at_different_times(
        self, app: Flask, channel: Channel
    ) -> None:
        server = _core.Server(app, ["127.0.0.1:0"])
        server.start()
        host, _, port = server.addresses[0].rpartition(":")
        readers = [Reader((host, int(port))) for _ in range(4)]
        try:
            assert server.stop(TIMEOUT)
            waits = [reader.rest() for reader in readers]
        finally:
            for reader in readers:
                reader.close()
        assert all(b"retry: " in wait and wait.endswith(b"0\r\n\r\n") for wait in waits)
        assert len(set(waits)) == 4
        assert len(channel) == 0

    def test_http_1_0_gets_it_without_chunks(self, app: Flask, channel: Channel) -> None:
        with serving(app) as where, Reader(where, version="1.0") as reader:
            channel.publish("a", id=1)
            assert reader.until(b"\n\n") == b"id: 1\ndata: a\n\n"

    def test_threads_publish_at_the_same_time(self, app: Flask) -> None:
        channel = Channel(queue=1 << 20)
        app.add_url_rule("/", "view", lambda: channel.stream())
        with serving(app) as where, Reader(where) as reader:
            threads = [
                threading.Thread(target=lambda n=n: [channel.publish(f"{n} {i}") for i in range(200)])  # type: ignore[misc]
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(TIMEOUT)
            channel.publish("end")
            got = reader.until(b"data: end\n\n").decode()
            for n in range(4):
                numbers = [
                    int(line.split()[2]) for line in got.splitlines() if line.startswith(f"data: {n} ")
                ]
                assert numbers == list(range(200))


class TestByName:
    def test_a_name_is_always_the_same_channel(self) -> None:
        rooms = Channels(history=2)
        assert rooms["a"] is rooms["a"]
        assert rooms["a"] is not rooms["b"]
        assert rooms["a"].name == "a"
        rooms["a"].publish("x")
        assert rooms["a"].published == 1
        assert "a" in rooms
        assert sorted(rooms) == ["a", "b"]
        assert len(rooms) == 2

    def test_what_nobody_uses_is_forgotten(self) -> None:
        rooms = Channels(idle=0)
        held = rooms["held"]
        subscription = rooms["subscribed"].subscribe()
        for number in range(1000):
            rooms[str(number)].publish("x")
        gc.collect()
        assert len(rooms) < 300
        assert rooms["held"] is held
        assert rooms["subscribed"].publish("still there") == 1
        assert next(subscription) == b"data: still there\n\n"

    def test_what_was_used_lately_is_kept(self) -> None:
        rooms = Channels()
        for number in range(300):
            rooms[str(number)].publish("x")
        assert len(rooms) == 300
        assert rooms["0"].published == 1


class TestWebSockets:
    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_they_get_what_is_published(self, app: Flask, kind: str) -> None:
        from websockets.sync.client import connect

        rooms = Channels()
        app.add_url_rule("/events/<room>", "events", lambda room: rooms[room].stream())

        if kind == "sync":

            @app.websocket("/chat/<room>")
            def chat(ws: Any, room: str) -> None:
                rooms[room].join(ws)
                for message in ws:
                    rooms[room].publish(message)
        else:

            @app.websocket("/chat/<room>")
            async def chat_async(ws: Any, room: str) -> None:
                rooms[room].join(ws)
                async for message in ws:
                    rooms[room].publish(message)

        with serving(app) as where:
            address = f"ws://{where[0]}:{where[1]}/chat/"
            with connect(address + "a") as ada, connect(address + "a") as bob, connect(address + "b") as eve:
                wait_for(lambda: (len(rooms["a"]), len(rooms["b"])) == (2, 1))
                with Reader(where, "/events/a") as reader:
                    for text in ("hello", "é" * 100, "x" * 70_000):
                        ada.send(text)
                        assert (ada.recv(TIMEOUT), bob.recv(TIMEOUT)) == (text, text)
                        reader.until(b"data: " + text.encode() + b"\n\n")
                    rooms["a"].publish({"json": 1}, event="not sent here")
                    assert bob.recv(TIMEOUT) == '{"json": 1}'
                    rooms["b"].publish("other room")
                    assert eve.recv(TIMEOUT) == "other room"
            wait_for(lambda: (len(rooms["a"]), len(rooms["b"])) == (0, 0))

    def test_one_may_leave_and_stay_connected(self, app: Flask) -> None:
        from websockets.sync.client import connect

        channel = Channel()

        @app.websocket("/")
        def view(ws: Any) -> None:
            membership = channel.join(ws)
            ws.receive()
            membership.leave()
            membership.leave()
            ws.send("left")
            ws.receive()

        with serving(app) as where, connect(f"ws://{where[0]}:{where[1]}/") as client:
            wait_for(lambda: len(channel) == 1)
            client.send("go")
            assert client.recv(TIMEOUT) == "left"
            assert len(channel) == 0
            later = channel.subscribe()
            assert channel.publish("not for it") == 1
            client.send("end")
            later.close()
