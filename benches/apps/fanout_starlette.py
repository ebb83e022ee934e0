"""Server-sent events to many subscribers on Starlette: one queue and one task each."""

import asyncio

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

queues = set()


async def plain(request):
    return PlainTextResponse("Hello, World!")


async def subscribe(request):
    queue = asyncio.Queue(100)
    queues.add(queue)

    async def events():
        try:
            yield ": welcome\n\n"
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    return StreamingResponse(events(), media_type="text/event-stream")


async def publish(request):
    event = "data: " + "x" * 100 + "\n\n"
    for queue in queues:
        queue.put_nowait(event)
    return PlainTextResponse(str(len(queues)))


app = Starlette(
    routes=[
        Route("/plain", plain),
        Route("/events", subscribe),
        Route("/publish", publish, methods=["POST"]),
    ]
)
