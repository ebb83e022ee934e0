"""A WSGI callable without a framework: what a server's WSGI interface costs at least."""

import json


def app(environ, start_response):
    path = environ["PATH_INFO"]
    kind = "application/json"
    if path == "/plain":
        kind, body = "text/html; charset=utf-8", b"Hello, World!"
    elif path == "/json" and environ["REQUEST_METHOD"] == "POST":
        data = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        body = json.dumps({"items": len(json.loads(data)["items"])}).encode()
    elif path == "/json":
        body = json.dumps({"message": "Hello, World!"}).encode()
    elif path.startswith("/users/"):
        query = dict(pair.split("=", 1) for pair in environ["QUERY_STRING"].split("&"))
        body = json.dumps({"id": int(path[7:]), "q": query["q"]}).encode()
    else:
        start_response("404 Not Found", [("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
