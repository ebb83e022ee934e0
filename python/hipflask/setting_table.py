"""The settings of the server: the table.

`SETTINGS` is what the options of ``hipflask run``, the variables, the keys of the file and the tables of the
manual are made from. What `Setting.engine` marks is checked once more by the engine, which also has the
defaults: ``_core.engine_settings()``.
"""

from __future__ import annotations

import typing as t

from .setting_types import (
    Choice,
    Count,
    Kind,
    LogFormat,
    Mode,
    Mount,
    Names,
    Networks,
    Path,
    Seconds,
    Setting,
    Share,
    Size,
    Switch,
    Texts,
    Words,
    Workers,
)


def _engine(name: str, kind: Kind, default: t.Any, text: str, reason: str = "", beyond: str = "") -> Setting:
    return Setting(name, kind, default, text, reason, beyond, engine=True)


_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30

#: All settings, by the headings under which help and manual show them.
SETTINGS: dict[str, list[Setting]] = {
    "Listening": [
        Setting(
            "host",
            Kind(),
            "127.0.0.1",
            "An address or name to listen on, or 'unix:' and a socket's path.",
            reason="nobody else sees what was not meant to be seen",
            short="h",
        ),
        Setting(
            "port",
            Count(0, 65535),
            5000,
            "The port to listen on; 0 for a free one.",
            reason="Flask's",
            short="p",
        ),
        Setting(
            "bind",
            Texts(),
            None,
            "Where to listen, in the place of host and port; may be given several times: 'host:port',"
            " '[v6]:port', ':port' for all addresses, 'unix:path', 'fd:number'.",
            reason="host and port",
            short="b",
        ),
        Setting("socket_mode", Mode(), None, "Permissions of Unix sockets.", "as the umask leaves them"),
        Setting("socket_owner", Names(), None, "Owner of Unix sockets.", "the user that starts the server"),
        Setting(
            "backlog",
            Count(),
            1024,
            "Connections that wait in the kernel until they are accepted.",
            reason="a second's worth; the kernel caps it by net.core.somaxconn",
            beyond="they try again, by TCP's rules",
        ),
    ],
    "TLS": [
        Setting(
            "cert",
            Texts(),
            None,
            "Speak TLS with this certificate, in PEM format with its chain; several for several names;"
            " 'adhoc' makes one for development.",
            reason="a certificate has to be had first",
        ),
        Setting(
            "key",
            Texts(),
            None,
            "The private keys of the certificates, in the same order.",
            "in the same files",
        ),
        Setting(
            "client_certs",
            Choice("none", "optional", "required"),
            "none",
            "Whether clients show a certificate.",
            reason="browsers have none",
            beyond="the handshake fails",
        ),
        Setting("client_ca", Path(), None, "Certificates of those who vouch for clients.", "nobody does"),
        Setting(
            "client_crl", Path(), None, "Revocation lists for certificates of clients.", "none is revoked"
        ),
        Setting(
            "min_tls",
            Choice("1.2", "1.3"),
            "1.2",
            "The oldest version of TLS.",
            reason="some clients have no 1.3, and 1.2 is sound with the ciphers on offer",
            beyond="the handshake fails",
        ),
        Setting(
            "redirect_bind",
            Texts(),
            None,
            "Where to listen without TLS, only to send clients to where it is: ':80'.",
            reason="who has a proxy or a private port wants none",
        ),
        Setting(
            "redirect_port",
            Count(1, 65535),
            None,
            "The port that they are sent to.",
            reason="that of the first address to listen on",
        ),
        _engine(
            "hsts",
            Kind(),
            "-",
            "The field 'Strict-Transport-Security' of encrypted responses, such as 'max-age=31536000';"
            " '-' for none.",
            "who has seen it comes back with TLS only, for as long as it says",
        ),
        _engine(
            "handshake_timeout",
            Seconds(),
            10.0,
            "From a connection's beginning to the end of its TLS handshake.",
            "two round trips and a signature, even over a bad line",
            "closed",
        ),
    ],
    "HTTP/2": [
        _engine(
            "http2",
            Switch(),
            True,
            "Speak HTTP/2 with clients that want it.",
            "one connection in the place of six",
            "HTTP/1.1",
        ),
        _engine(
            "http2_streams",
            Count(),
            128,
            "Requests of one HTTP/2 connection at the same time.",
            "the standard wants at least 100, and browsers ask for no more",
            "they wait at the client",
        ),
        _engine(
            "early_hints",
            Choice("off", "http2", "all"),
            "http2",
            "Who gets the 103 (Early Hints) of 'send_early_hints': nobody, clients of HTTP/2,"
            " those of HTTP/1.1 too.",
            "some clients of HTTP/1.1 take them for the response, and browsers take no notice of theirs",
        ),
    ],
    "Processes": [
        Setting(
            "workers",
            Workers(),
            None,
            "Serve with so many processes and a supervisor; 'auto': one per core.",
            reason="one process without a supervisor",
            short="w",
        ),
        Setting(
            "preload",
            Switch(),
            False,
            "Import the application once, before the processes are made of it.",
            reason="without it, SIGHUP loads new code",
        ),
        Setting(
            "grace",
            Seconds(0),
            30.0,
            "What running requests get to finish when the server stops.",
            reason="longer than most requests, shorter than a service manager's patience",
            beyond="they are cut off",
            engine=True,
        ),
        Setting(
            "boot_timeout",
            Seconds(),
            120.0,
            "What a worker may take to load the application.",
            reason="large models take a minute",
            beyond="it is ended and tried again",
        ),
        Setting(
            "worker_timeout",
            Seconds(1),
            60.0,
            "A worker whose Python has not run for so long is ended and replaced.",
            reason="only an extension that never lets go of the interpreter takes longer",
        ),
        Setting("max_requests", Count(), None, "Replace a worker after so many requests.", "never"),
        Setting(
            "max_requests_jitter",
            Count(0),
            0,
            "Up to so many requests more, at random.",
            reason="a tenth of max_requests keeps workers from being replaced all at once",
        ),
        Setting(
            "max_worker_age",
            Seconds(1),
            None,
            "Replace a worker after this time, and up to a tenth more.",
            reason="never",
        ),
        Setting(
            "max_worker_memory",
            Size(_MIB),
            None,
            "Replace a worker that holds more memory.",
            reason="never",
        ),
        Setting("pid_file", Path(), None, "Write the number of the process that takes signals here.", "none"),
        Setting(
            "user",
            Kind(),
            None,
            "Run the application as this user; started as root.",
            reason="the one that starts the server",
            short="u",
        ),
        Setting(
            "group",
            Kind(),
            None,
            "Run the application as this group; started as root.",
            reason="the user's",
            short="g",
        ),
    ],
    "Application": [
        Setting(
            "interface",
            Choice("auto", "wsgi", "asgi"),
            "auto",
            "What the application speaks; Flask apps are served natively.",
            reason="it can be told from how the application is called",
        ),
        Setting(
            "lifespan",
            Choice("auto", "on", "off"),
            "auto",
            "Whether an ASGI application is told when serving begins and ends.",
            reason="those that do not want to be told say so",
            beyond="the server does not start if it is 'on' and the application has none",
        ),
    ],
    "Static files": [
        _engine(
            "mount",
            Texts(),
            None,
            "Send the files of a directory below a URL path without the application: '/assets=./dist', or"
            " with options '/assets=./dist:max_age=1h:index:listing'; may be given several times.",
            "only the app's static folders are sent",
            "what is not there is the application's to answer",
        ),
        _engine(
            "mount_index",
            Switch(),
            False,
            "Send 'index.html' for a mounted directory.",
            "nobody sees more than was named",
        ),
        _engine(
            "immutable",
            Texts(),
            None,
            "Names of static files whose content never changes, for clients to keep for a year: '*.{hash}.*',"
            " 'build/*'.",
            "a file that is taken for one by mistake cannot be replaced",
        ),
        _engine(
            "sendfile",
            Texts(),
            None,
            "Directories whose files a response may name as its body: '/srv/files' in 'X-Sendfile',"
            " '/protected=/srv/files' by URL path in 'X-Accel-Redirect'.",
            "the fields mean nothing, and go to the client",
            "404, and a line in the log",
        ),
        _engine(
            "precompressed",
            Switch(),
            True,
            "Send 'name.br', 'name.zst' or 'name.gz' in the place of a static file 'name' to clients that"
            " take it so.",
            "who puts them there wants it; they are looked for every two seconds at most",
        ),
        _engine(
            "compression",
            Choice("routes", "static", "all"),
            "routes",
            "What is compressed for clients that take it so: only routes with 'compress=True', 'static' files"
            " too, or 'all' responses that are not for one client only.",
            "Flask compresses nothing, and it takes time of the processor",
        ),
        _engine(
            "compression_min",
            Size(0),
            1024,
            "Shorter responses are not compressed.",
            "what fits into one packet arrives no sooner",
        ),
        _engine(
            "compression_cache",
            Size(0),
            32 * _MIB,
            "What compressed static files take in the memory of a process, at most.",
            "scripts and styles of a large site",
            "the oldest are compressed anew",
        ),
    ],
    "Load": [
        Setting(
            "threads",
            Count(1, 4096),
            32,
            "Views that run at the same time in a process, at most.",
            reason="beyond that many blocking views, threads are the wrong design",
            beyond="requests wait",
            engine=True,
        ),
        _engine(
            "stuck_threads",
            Count(0),
            8,
            "Threads whose request was answered by its deadline while their view goes on; others take"
            " their place.",
            "one is a slow peer; many are a fault that a new process may not have",
            "the worker is replaced",
        ),
        _engine(
            "queue",
            Count(),
            1024,
            "Requests that wait for a thread, at most.",
            "at 50 ms a view, the last one waits 1.6 s",
            "503 with Retry-After",
        ),
        _engine(
            "max_connections",
            Count(),
            16_384,
            "Open connections of a process, at most.",
            "some 400 bytes each when idle, and a descriptor",
            "they wait in the kernel's queue",
        ),
        _engine(
            "max_connections_per_address",
            Count(0),
            0,
            "Open connections of one address to a process, or of one IPv6 network of 64 bits, at most;"
            " trusted proxies have as many as they like; 0 for no limit.",
            "behind one address there may be a whole campus",
            "closed",
        ),
    ],
    "Times": [
        _engine(
            "request_timeout",
            Seconds(0),
            0.0,
            "What a request may take, with the body of its response; 0 for as long as it likes. A route's own"
            " comes first.",
            "what is right for one view is wrong for the next",
            "504; 503 if it still waits for a thread; cut off once its response has begun",
        ),
        _engine(
            "slow_request",
            Seconds(0),
            30.0,
            "Log where a view is that runs for so long, and again whenever the time has doubled;"
            " 0 for never.",
            "hardly any view takes half a minute on purpose",
            "it runs on",
        ),
        _engine(
            "header_timeout",
            Seconds(),
            10.0,
            "For a head, from its first byte to its last.",
            "a head is one to three packets, even on a bad line",
            "408",
        ),
        _engine(
            "body_timeout",
            Seconds(),
            20.0,
            "Longest pause in a body, and the time after which its rate counts.",
            "a phone may change its cell",
            "408; 400 in a view that reads",
        ),
        _engine(
            "body_rate",
            Count(),
            500,
            "Least bytes per second of a body, on average.",
            "below any modem, above a trickle",
            "as body_timeout",
        ),
        _engine(
            "idle_timeout",
            Seconds(),
            75.0,
            "For the next request on an open connection.",
            "longer than the usual 60 s of a proxy, which must be the one to close",
            "closed",
        ),
        _engine(
            "write_timeout",
            Seconds(),
            30.0,
            "Longest pause of a client in taking a response.",
            "as for bodies, and a little more",
            "closed",
        ),
        _engine(
            "write_rate",
            Count(),
            500,
            "Least bytes per second that a client takes, on average.",
            "as for bodies",
            "closed",
        ),
        _engine(
            "linger_timeout",
            Seconds(0),
            2.0,
            "For reading on after the last response on a connection.",
            "so that the client sees the response, not a reset",
            "closed",
        ),
        _engine(
            "last_call",
            Seconds(0),
            0.25,
            "For requests on idle connections when the server stops.",
            "a request may be on its way already",
            "closed",
        ),
    ],
    "Sizes": [
        _engine(
            "max_request_line",
            Size(16),
            16 * _KIB,
            "Request line.",
            "RFC 9112 §3 asks for 8,000 bytes at least; twice that leaves room for long queries",
            "414",
        ),
        _engine(
            "max_method",
            Size(3),
            32,
            "Method.",
            "the longest registered one has 17",
            "501",
        ),
        _engine(
            "max_field",
            Size(16),
            16 * _KIB,
            "One field of a head.",
            "several cookies of 4 KiB, or a Kerberos ticket",
            "431",
        ),
        _engine(
            "max_fields",
            Count(),
            100,
            "Number of fields of a head.",
            "browsers send about 20, proxies add a dozen",
            "431",
        ),
        _engine(
            "max_head",
            Size(64),
            64 * _KIB,
            "The whole head.",
            "browsers keep at most some 4 KiB of cookies per host and name",
            "431",
        ),
        _engine(
            "max_empty_lines",
            Count(0),
            1,
            "Empty lines before a request.",
            "RFC 9112 §2.2 asks for at least one",
            "400",
        ),
        _engine(
            "max_body",
            Size(0),
            4 * _GIB,
            "A body. MAX_CONTENT_LENGTH of the application sets a lower one.",
            "guards the disk; bodies are not kept in memory",
            "413",
        ),
        _engine(
            "max_chunk_extensions",
            Size(0),
            4 * _KIB,
            "Chunk extensions of a body, summed.",
            "nobody uses them; without a limit they are traffic that no body limit counts",
            "400",
        ),
        _engine(
            "max_trailers",
            Size(0),
            8 * _KIB,
            "Trailer section of a body.",
            "a signature and a digest",
            "431",
        ),
        _engine(
            "max_trailer_fields",
            Count(0),
            32,
            "Number of trailer fields.",
            "as many as anybody sends",
            "431",
        ),
        _engine(
            "buffer_body",
            Size(0),
            256 * _KIB,
            "A body up to this is read before the view is called.",
            "what forms and small uploads need",
            "the view reads it, on a thread",
        ),
        _engine(
            "buffer_bodies",
            Size(0),
            64 * _MIB,
            "All bodies that are being read before their views, together.",
            "many slow clients together cannot take more",
            "views read theirs",
        ),
        _engine(
            "spool_bodies",
            Size(0),
            1024 * _MIB,
            "All bodies that wait in temporary files until they are whole, together.",
            "what a disk has to spare; bodies above `buffer_body` do when half of the threads read others",
            "503",
        ),
        _engine(
            "drain_body",
            Size(0),
            64 * _KIB,
            "What is left of an unread body is dropped up to this.",
            "keeps the connection",
            "closed",
        ),
    ],
    "Observability": [
        Setting(
            "metrics_bind",
            Kind(),
            None,
            "Tell metrics for Prometheus at this address, and whether the server is alive and ready:"
            " '127.0.0.1:9100', 'unix:path'.",
            reason="nothing is counted that nobody asks for",
        ),
        Setting(
            "metrics_path",
            Kind(),
            None,
            "Tell metrics at this path of the application's own address, unless it has a route for it.",
            reason="clients would see them",
        ),
        Setting(
            "control",
            Path(),
            None,
            "A Unix socket for 'hipflask top', for the user that starts the server alone.",
            reason="it shows what is asked for, and counting costs a little",
        ),
        Setting(
            "health_timeout",
            Seconds(1),
            10.0,
            "How long an engine may be silent until '/healthz' says so, and a queue full until '/readyz'"
            " does.",
            reason="longer than any pause of a server that is well",
            beyond="503",
        ),
        Setting(
            "otel",
            Switch(),
            False,
            "Make a span of OpenTelemetry for each request of a Flask app, and send it where the variables"
            " OTEL_... say.",
            reason="it needs hipflask[otel], a collector, and time for each request",
        ),
    ],
    "Proxies": [
        _engine(
            "trusted_proxies",
            Networks(),
            [],
            "Proxies in front: networks from which X-Forwarded fields are believed; 'unix:' for Unix sockets,"
            " '*' for everybody; '-' for none.",
            "anybody can send such fields",
            "the fields are left alone",
        ),
        _engine(
            "forwarded_headers",
            Words(
                "forwarded",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-forwarded-host",
                "x-forwarded-port",
                "x-forwarded-prefix",
            ),
            ["x-forwarded-for", "x-forwarded-proto"],
            "What trusted proxies are believed in: 'forwarded' (RFC 7239), or some of the X-Forwarded"
            " fields.",
            "a proxy passes on what it does not write itself: name no more than it writes",
        ),
        _engine(
            "proxy_protocol",
            Choice("off", "on", "mixed"),
            "off",
            "Whether connections begin with a PROXY header: all of them (on), or those from where one may"
            " come (mixed).",
            "a client that is no proxy sends none",
            "closed",
        ),
        _engine(
            "proxy_protocol_from",
            Networks(),
            [],
            "Networks from which PROXY headers are believed; trusted_proxies if none are given.",
            "whoever sends one can name any address",
            "closed",
        ),
        _engine(
            "root_path",
            Mount(),
            "/",
            "Where a proxy has mounted the application, if it takes that off the path and does not say so.",
            "it has a host for itself",
        ),
    ],
    "Behaviour": [
        _engine(
            "utf8_target",
            Switch(),
            True,
            "Take UTF-8 in request targets.",
            "command lines send it, and nothing is corrected by it",
            "400",
        ),
        _engine(
            "underscores",
            Choice("guard", "refuse", "keep"),
            "guard",
            "Field names with an underscore: refuse those that pose as trusted ones and leave out the others"
            " (guard), refuse all, keep all.",
            "WSGI cannot tell X_Forwarded_For from the proxy's X-Forwarded-For",
            "400",
        ),
        _engine(
            "server_header",
            Kind(),
            "hipflask",
            "The field 'Server' of responses; '-' for none.",
            "clients and operators can tell who answered",
        ),
    ],
    "Logging": [
        Setting(
            "access_log",
            Switch(),
            None,
            "Log each answer. On in debug mode, and if access_log_to is given.",
            "nobody reads what nobody asked for",
        ),
        Setting(
            "access_log_to",
            Kind(),
            "stderr",
            "Where to: '-' for standard output, 'stderr', a file's path, 'syslog', 'syslog:/path/of/socket',"
            " 'syslog:host:port'.",
            reason="where the server's own log goes",
            beyond="lines that nobody takes are lost, and counted",
        ),
        Setting(
            "access_log_format",
            LogFormat(),
            "combined",
            "'common', 'combined', 'json', 'short', or directives as Apache has them: '%h %r %>s %D'."
            " 'short' in debug mode.",
            reason="programs that read logs know it",
        ),
        Setting(
            "access_log_sample",
            Share(),
            1.0,
            "The part of answers that is logged; those with a status of 400 or more always are.",
            reason="all of them",
        ),
        _engine(
            "request_id",
            Choice("off", "generate", "trust"),
            "off",
            "Give each request a name, for logs, request.request_id and the response;"
            " 'trust' takes the one that it brings.",
            "nothing is done that nobody asked for",
        ),
        _engine(
            "request_id_header",
            Kind(),
            "X-Request-ID",
            "The field that has the name.",
            "what most proxies call it",
        ),
        _engine(
            "server_timing",
            Switch(),
            False,
            "Say in each response, by the field 'Server-Timing', where the time went. On in debug mode.",
            "clients need not know",
        ),
    ],
}

BY_NAME: dict[str, Setting] = {row.name: row for rows in SETTINGS.values() for row in rows}
"""The same by name."""
