"""An echo server on socketify: `echo_socketify.py PORT`."""

import sys

from socketify import App, AppListenOptions, CompressOptions

app = App()
app.get("/plain", lambda response, request: response.end("Hello, World!"))
app.ws(
    "/echo",
    {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": 16 * 1024 * 1024,
        "message": lambda socket, message, opcode: socket.send(message, opcode),
    },
)
app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"))
app.run()
