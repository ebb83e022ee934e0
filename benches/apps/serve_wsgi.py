"""serve_wsgi.py SERVER PORT: the bare WSGI callable, or with BENCH_APP=falcon Falcon's, on either."""

import os
import sys

if os.environ.get("BENCH_APP") == "falcon":
    from falcon_app import app
else:
    from wsgi_bare import app

server, port = sys.argv[1], int(sys.argv[2])
if server == "bjoern":
    import bjoern

    bjoern.run(app, "127.0.0.1", port)
else:
    import fastpysgi

    fastpysgi.run(app, host="127.0.0.1", port=port, loglevel=0, workers=1)
