"""A web server on the loopback interface whose answers depend on the path, good and bad."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.images.pictures import JPEG, PNG


class Handler(BaseHTTPRequestHandler):
    """GET /ok.png, /404, /429-then-ok, /loop, /slow ...; what was asked for is counted."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):  # noqa: PLR0912
        server = self.server
        path = urlsplit(self.path).path
        with server.lock:
            server.asked[path] += 1
            server.headers_seen.append(dict(self.headers))
            times = server.asked[path]
        name = path.strip("/").partition("/")[0]
        if name.isdigit():
            self.answer(int(name), b"nothing here")
        elif name == "again":
            self.answer(429, b"", **{"Retry-After": "0"}) if times == 1 else self.answer(200, PNG)
        elif name == "jpeg":
            self.answer(200, JPEG, **{"Content-Type": "text/html"})
        elif name == "loop":
            self.answer(302, b"", Location=f"/loop/{times}")
        elif name == "hops":
            left = int(path.rpartition("/")[2])
            self.answer(301, b"", Location=f"/hops/{left - 1}" if left else "/ok.png")
        elif name == "to":
            self.answer(302, b"", Location=urlsplit(self.path).query)
        elif name == "nowhere":
            self.answer(302, b"")
        elif name == "robots":
            self.answer(200, PNG, **{"X-Robots-Tag": "otherbot: noindex, noai"})
        elif name == "endless":
            self.stream(lambda: bytes(65536))
        elif name == "slow" or (name == "hang" and times == 1):
            self.stream(lambda: None if server.closing.wait(0.05) else b".")
        elif name == "truncated":
            self.send_response(200)
            self.send_header("Content-Length", str(len(PNG)))
            self.end_headers()
            self.wfile.write(PNG[:20])
            self.close_connection = True
        elif name == "rude":
            self.wfile.write(b"hello, this is not HTTP\r\n\r\n")
            self.close_connection = True
        else:
            self.answer(200, PNG, **{"Set-Cookie": "seen=1"})

    def answer(self, status, body, **headers):
        self.send_response(status)
        for key, value in {"Content-Type": "image/png", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, chunk):
        """Chunks without an announced length, until there are no more or the reader has gone."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while (data := chunk()) is not None:
                self.wfile.write(data)
        except OSError:
            pass

    def log_message(self, *arguments):
        """Nothing is printed."""


class Server(ThreadingHTTPServer):
    """Counts what it is asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.asked, self.headers_seen = threading.Lock(), Counter(), []
        self.closing = threading.Event()
        self.place = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.place}"


@contextmanager
def serving() -> Iterator[Server]:
    """The server, up."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
