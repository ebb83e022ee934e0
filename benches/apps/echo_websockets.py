"""An echo server on the `websockets` library: `echo_websockets.py PORT`."""

import http
import sys

import uvloop
from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


def plain(connection, request):
    if request.path == "/plain":
        return connection.respond(http.HTTPStatus.OK, "Hello, World!")
    return None


async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), process_request=plain) as server:
        await server.serve_forever()


uvloop.run(main())
