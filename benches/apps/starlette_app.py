"""Coroutine views on Starlette: one that waits for nothing, one that gives way once."""

import asyncio

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route


async def plain(request):
    return PlainTextResponse("Hello, World!")


async def sleeping(request):
    await asyncio.sleep(0)
    return PlainTextResponse("Hello, World!")


async def user(request):
    return JSONResponse({"id": request.path_params["number"], "q": request.query_params.get("q", "")})


app = Starlette(
    routes=[
        Route("/plain", plain),
        Route("/async", plain),
        Route("/async-sleep", sleeping),
        Route("/users/{number:int}", user),
    ]
)
