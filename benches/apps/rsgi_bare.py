"""An RSGI callable without a framework."""

import json


async def app(scope, protocol):
    path = scope.path
    kind = "application/json"
    if path == "/plain":
        kind, body = "text/html; charset=utf-8", b"Hello, World!"
    elif path == "/json" and scope.method == "POST":
        body = json.dumps({"items": len(json.loads(await protocol())["items"])}).encode()
    elif path == "/json":
        body = json.dumps({"message": "Hello, World!"}).encode()
    elif path.startswith("/users/"):
        query = dict(pair.split("=", 1) for pair in scope.query_string.split("&"))
        body = json.dumps({"id": int(path[7:]), "q": query["q"]}).encode()
    else:
        protocol.response_empty(404, [])
        return
    protocol.response_bytes(200, [("content-type", kind)], body)
