"""A web server on this machine that misbehaves as asked, and remembers who asked."""

import gzip
import ipaddress
import ssl
import threading
import zlib
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kit.pictures import PNG, SERVED

LIMIT = 100_000  # bytes, of the tests' downloads
QUICK = {
    "allow_hosts": ("127.0.0.1:*",),
    "connect_s": 5.0,
    "read_s": 5.0,
    "total_s": 5.0,
    "most_bytes": LIMIT,
    "backoff_s": 0.0,
}
PATIENCE_S = 60  # until a server gives up on a condition that a failing test never brings about


class Server(ThreadingHTTPServer):
    """Counts requests; /hold answers once `released` is set, /count once `awaited` requests have come, /together by
    as many as the barrier is for."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        self.changed = threading.Condition()
        self.asked, self.headers, self.names = Counter(), [], []
        self.now = self.most = 0  # requests of /together
        self.released, self.closing = threading.Event(), threading.Event()
        self.awaited = 0
        self.barrier = threading.Barrier(1)

    def url(self, path, host="127.0.0.1"):
        """The address of a path."""
        return f"{self.scheme}://{host}:{self.server_port}{path}"

    def handle_error(self, request, client_address):
        """Clients of these tests hang up."""


class Handler(BaseHTTPRequestHandler):
    """The first part of the path says what to do."""

    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S

    def log_message(self, *args):
        """Nothing: pytest shows enough."""

    def do_GET(self):
        """Take note, answer; on a connection that is left over from a server that is gone, nothing."""
        if self.server.closing.is_set():
            self.close_connection = True
            return
        with self.server.changed:
            self.server.asked[self.path] += 1
            self.server.headers.append(dict(self.headers))
            self.server.changed.notify_all()
        if "://" in self.path:  # to a proxy
            self.path = urlsplit(self.path).path
        getattr(self, "on_" + self.path.split("/")[1].partition("?")[0])()

    def answer(self, code=200, body=PNG, **headers):
        """A whole answer."""
        self.send_response(code)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def on_ok(self):
        self.answer(Set_Cookie="seen=1")

    def on_picture(self):
        self.answer(body=SERVED[self.path.split("/")[2].partition("?")[0]][0])

    def on_mended(self):
        """503 until `released`, then a picture."""
        mended = self.server.released.is_set()
        self.answer(*(() if mended else (503, b"later")))

    def on_html(self):
        self.answer(body=b"<html>not here</html>", Content_Type="image/png")

    def on_status(self):
        code = int(self.path.split("/")[2].partition("?")[0])
        self.answer(code, b"" if code in {204, 304} else b"sorry")

    def on_to(self):
        query = parse_qs(urlsplit(self.path).query)
        self.answer(302, b"", Location=unquote(query["url"][0]), Set_Cookie="hop=1")

    def on_hops(self):
        left = int(self.path.split("/")[2])
        self.answer(302, b"", Location=f"/hops/{left - 1}" if left > 1 else "/ok")

    def on_loop(self):
        self.answer(302, b"", Location=self.path)

    def on_nowhere(self):
        self.answer(302, b"")

    def on_busy(self):
        first = self.server.asked[self.path] == 1
        code, wait = int(self.path.split("/")[2]), unquote(self.path.split("/")[3])
        self.answer(*((code, b"later") if first else ()), Retry_After=wait)

    def on_robots(self):
        self.answer(X_Robots_Tag=unquote(self.path.split("/")[2]))

    def on_silent(self):
        self.server.closing.wait(PATIENCE_S)
        self.close_connection = True

    def on_drip(self):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        while not self.server.closing.wait(0.02):
            self.wfile.write(b"x")

    def on_crumbs(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        while not self.server.closing.is_set():
            self.wfile.write(b"1\r\nx\r\n" * 1000)

    def on_endless(self):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        while not self.server.closing.is_set():
            self.wfile.write(bytes(1 << 16))

    def on_announced(self):
        self.answer(Content_Length=LIMIT + 1)

    def on_exactly(self):
        self.answer(body=bytes(LIMIT))

    def on_bomb(self):
        self.answer(body=gzip.compress(bytes(50 * LIMIT)), Content_Encoding="gzip")

    def on_packed(self):
        """PNG, packed by the given encodings in turn."""
        names = unquote(self.path.split("/")[2])
        pack = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}
        body = PNG
        for name in names.split(", "):
            body = pack.get(name.lower(), bytes)(body)
        self.answer(body=body, Content_Encoding=names)

    def on_short(self):
        self.answer(body=PNG[:20], Content_Length=len(PNG))
        self.close_connection = True

    def on_reset(self):
        self.close_connection = True

    def on_badgzip(self):
        self.answer(body=b"no gzip at all", Content_Encoding="gzip")

    def on_hold(self):
        self.server.released.wait(PATIENCE_S)
        self.answer()

    def on_count(self):
        with self.server.changed:
            self.server.changed.wait_for(lambda: self.server.asked.total() >= self.server.awaited, PATIENCE_S)
        self.answer()

    def on_together(self):
        self._count(1)
        self.server.barrier.wait(PATIENCE_S)
        self._count(-1)  # before the answer, upon which the next may come
        self.answer()

    def _count(self, more):
        with self.server.changed:
            self.server.now += more
            self.server.most = max(self.server.most, self.server.now)


@contextmanager
def serving(context=None):
    """A running server; with TLS when given a context."""
    server = Server()
    if context is not None:
        server.scheme = "https"
        context.sni_callback = lambda connection, name, _: server.names.append(name)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(folder):
    """A self-signed certificate for localhost and 127.0.0.1, as a PEM file that holds its key too."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def server_context(pem):
    """How a server shows a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
