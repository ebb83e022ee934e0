"""Write what Werkzeug makes of generated fields, queries, cookies and multipart bodies.

The answers go to ``tests/reference/``, one case a line: input, then outputs, separated by tabs, every byte
that is not printable ASCII escaped. ``tests/reference.rs`` compares ours with them.

Usage: ``python reference.py [COUNT [FOLDER]]``, with the Werkzeug of ``tests/requirements.txt`` installed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from werkzeug.http import (
    dump_cookie,
    parse_dict_header,
    parse_list_header,
    parse_options_header,
    quote_header_value,
    unquote_header_value,
)
from werkzeug.sansio import multipart
from werkzeug.sansio.http import parse_cookie

Answer = Iterator["str | bytes | None"]

# What the generated texts are put together from, separated by broken bars.
PIECES = {
    "query": "a¦b¦=¦&¦%¦+¦;¦%41¦%e9¦%C3%A9¦%c3¦%zz¦%2¦%%¦%2B¦é¦☃¦ ¦==¦&&¦%00¦%F0%9F¦%ED%A0%80¦[]¦🦄",
    "path": "/¦a¦%¦%41¦%2f¦%e9¦%C3%A9¦%zz¦+¦%%41¦é¦%2",
    "cookie": (
        'a¦b¦=¦;¦; ¦ ¦"¦\\"¦\\¦\\303\\251¦\\377¦\\400¦\\12¦é¦,¦"x"¦";"¦\t¦==¦c=d¦e="f;g"¦\x1f¦\xa0¦\n¦\r\n'
    ),
    "cookie_value": 'a¦ ¦"¦;¦,¦\\¦é¦\x01¦\x19¦\x1a¦\x1f¦\n¦\x7f¦=¦☃¦/¦@¦{¦^',
    "options": (
        'a¦form-data¦;¦; ¦name¦=¦"¦"b"¦"c;d"¦\\"¦\\\\¦\\¦%22¦"%22"¦*¦*0¦*1¦*=¦UTF-8\'\'¦'
        "utf-8'en'¦ISO-8859-1''¦latin9''¦us-ascii''¦%e9¦%C3%A9¦é¦charset=utf-8¦; filename*=¦"
        "; filename=¦; name=¦; a*0=¦; a*1=¦; a*2*=¦ ¦'¦\t¦,¦/¦NAME"
    ),
    "list": 'a¦,¦, ¦"¦"b"¦"c,d"¦\\¦\\"¦ ¦é¦=¦e=f¦\t',
    "pairs": "a¦b¦,¦, ¦=¦\"¦\"c\"¦\"d,e\"¦*¦*=¦*=UTF-8''¦%e9¦%C3%A9¦UTF-8''¦ISO-8859-1'en'¦'¦ ¦é¦\\",
    "quote": 'a¦ ¦"¦\\¦é¦%¦/¦;',
    "multipart": (
        "--b¦--b--¦\r\n¦\r\n¦\r\n\r\n¦\n¦\r¦x¦--¦-¦--bb¦Content-Disposition: form-data; name=a¦"
        'Content-Disposition: form-data; name="f"; filename="g.txt"¦'
        "content-disposition: form-data¦Content-Type: text/plain¦: ¦ ¦\t¦é¦\r\n--b\r\n¦\r\n--b--\r\n¦"
        '\r\n--b \r\n¦Content-Disposition: form-data; name="n"\r\n\r\n¦data¦ÿ'
    ),
}


def query(text: str) -> Answer:
    for pair in parse_qsl(text, keep_blank_values=True, errors="werkzeug.url_quote"):
        yield from pair


def path(text: str) -> Answer:
    yield unquote_to_bytes(text)


def cookie(text: str) -> Answer:
    for pair in parse_cookie(text, cls=list):  # type: ignore[arg-type]
        yield from pair


def cookie_value(text: str) -> Answer:
    yield dump_cookie("k", text, path=None).removeprefix("k=")
    yield quote(text, safe="%!$&'()*+,/:=@")


def options(text: str) -> Answer:
    value, parameters = parse_options_header(text)
    yield value
    for pair in parameters.items():
        yield from pair


def list_(text: str) -> Answer:
    yield from parse_list_header(text)


def pairs(text: str) -> Answer:
    for pair in parse_dict_header(text).items():
        yield from pair


def quote_(text: str) -> Answer:
    yield quote_header_value(text)
    yield quote_header_value(text, allow_token=False)
    yield unquote_header_value(text)


def multipart_(text: str) -> Answer:
    decoder = multipart.MultipartDecoder(b"b")
    decoder.receive_data(text.encode("latin1") if "\xff" in text else text.encode())
    decoder.receive_data(None)
    seen: list[str | bytes | None] = []
    try:
        while not isinstance(event := decoder.next_event(), multipart.Epilogue):
            if isinstance(event, (multipart.Field, multipart.File)):
                seen += ["part", event.name, getattr(event, "filename", None), str(len(event.headers))]
                seen += [item for pair in event.headers for item in pair]
                seen.append(b"")
            elif isinstance(event, multipart.Data):
                last = seen.pop()
                assert isinstance(last, bytes)
                seen.append(last + event.data)
        yield from seen
        yield "end"
    except ValueError:
        yield "error"


ANSWERS: dict[str, Callable[[str], Answer]] = {
    "query": query,
    "path": path,
    "cookie": cookie,
    "cookie_value": cookie_value,
    "options": options,
    "list": list_,
    "pairs": pairs,
    "quote": quote_,
    "multipart": multipart_,
}

WHOLE = {
    "multipart": [
        "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--\r\n",
        '--b\r\nContent-Disposition: form-data; name="a"\r\nX: y\r\n z\r\n\r\n\r\n'
        "--b\r\nContent-Disposition: form-data; "
        'name=f; filename=""\r\nContent-Type: text/plain\r\n\r\nx\r\n--b-\r\n--bb\r\n\r\n--b--',
        "preamble\r\n--b  \nContent-Disposition: form-data; name=a\n\n1\n2\n--b--epilogue",
        "--b\rContent-Disposition: form-data; name=a\r\r1\r\n\r--b--\r",
        "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n--b--\r\n",
        "--b--\r\n",
        "--b\r\nContent-Type: text/plain\r\n\r\n1\r\n--b--\r\n",
        "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b\r\n",
        "",
    ],
}


def escape(item: str | bytes | None) -> str:
    if item is None:
        return "\\N"
    data = item if isinstance(item, bytes) else item.encode()
    return "".join(chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in data)


def main(count: int, folder: Path) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    for name, answer in ANSWERS.items():
        chance = random.Random(name)
        pieces = PIECES[name].split("¦")
        texts = list(WHOLE.get(name, [""]))
        if name == "multipart":
            frames = ["{}", "--b\r\n{}\r\n--b--\r\n"]
            frames.append('--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n{}\r\n--b--\r\n')
        else:
            frames = ["{}"]
        while len(texts) < count:
            middle = "".join(chance.choices(pieces, k=chance.randint(1, 12)))
            texts.append(chance.choice(frames).format(middle))
        lines = []
        for text in dict.fromkeys(texts):
            given: str | bytes = text
            if name == "multipart" and "\xff" in text:
                if any(ord(char) > 255 for char in text):
                    continue
                given = text.encode("latin1")
            lines.append("\t".join(map(escape, [given, *answer(text)])) + "\n")
        (folder / f"{name}.txt").write_text("".join(lines))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        int(arguments[0]) if arguments else 300,
        Path(arguments[1]) if arguments[1:] else Path(__file__).with_name("reference"),
    )
