"""Downloads from local servers that break, lie, are down, and know ranges or not."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from softknee._bench.download import CHUNK, fetch
from softknee._errors import DataError

CONTENT = np.random.default_rng(0).bytes(10 * CHUNK + 123)
HALF = len(CONTENT) // 2
SUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server:
    """Serves one content under any name; counts what it is asked for and what it sends.

    Attributes:
        breaks: After how many bytes of the body each of the next answers breaks off; whole ones after these.
        ranges: The `Range` of each request.
        sent: Bytes sent.
    """

    def __init__(self, content=CONTENT, *, knows_ranges=True, breaks=()):
        self.ranges, self.sent, self.breaks = [], 0, list(breaks)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                server.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and knows_ranges else 0
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                # Some servers say so of every packed file; it is wanted packed.
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                body = content[start:][: server.breaks.pop(0) if server.breaks else None]
                self.wfile.write(body)
                server.sent += len(body)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve():
    servers = []

    def started(*arguments, **options):
        servers.append(Server(*arguments, **options))
        return servers[-1]

    yield started
    for server in servers:
        server.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder that downloads go to; nobody waits between tries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    return tmp_path / "softknee" / "set"


def get(*servers, checksum=SUM):
    addresses = [server if isinstance(server, str) else server.address for server in servers]
    return (fetch({"file.gz": checksum}, addresses=addresses, folder="set") / "file.gz").read_bytes()


@pytest.mark.parametrize("old", [False, True])
def test_a_broken_download_goes_on(serve, cache, monkeypatch, old):
    if old:  # urllib3 before 2 takes what came for the whole
        never = property(lambda self: False, lambda self, value: None)
        monkeypatch.setattr("urllib3.response.HTTPResponse.enforce_content_length", never, raising=False)
    server = serve(breaks=[HALF, 1000])
    assert get(server) == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert server.sent == len(CONTENT)
    assert get(server) == CONTENT
    assert len(server.ranges) == 3
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "file.gz"]


def test_without_ranges_it_starts_anew(serve, cache):
    server = serve(knows_ranges=False, breaks=[HALF])
    assert get(server) == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert server.sent == HALF + len(CONTENT)


def test_a_later_call_goes_on(serve, cache):
    """As after a process that was killed, and at another address."""
    broken = serve(breaks=[HALF] + [0] * 9)
    with pytest.raises(
        DataError, match=rf"file.gz could not be downloaded .*the connection broke after {HALF:,} bytes"
    ):
        get(broken)
    assert (cache / "file.gz.part").read_bytes() == CONTENT[:HALF]
    assert not (cache / "file.gz").exists()
    server = serve()
    assert get(server) == CONTENT
    assert server.ranges == [f"bytes={HALF}-"]
    assert server.sent == len(CONTENT) - HALF


def test_a_server_that_always_breaks_is_given_up(serve, cache):
    server = serve(knows_ranges=False, breaks=[HALF] * 99)
    with pytest.raises(DataError, match="the connection broke after"):
        get(server)
    assert len(server.ranges) <= 4


@pytest.mark.parametrize("part", [bytes(HALF), bytes(len(CONTENT)), bytes(len(CONTENT) + 1), CONTENT])
def test_a_part_that_does_not_belong_there_does_no_harm(serve, cache, part):
    cache.mkdir(parents=True)
    (cache / "file.gz.part").write_bytes(part)
    assert get(serve()) == CONTENT
    assert not (cache / "file.gz.part").exists()


def test_another_address_is_tried_where_one_is_down_or_wrong(serve, cache):
    wrong, right = serve(bytes(len(CONTENT))), serve()
    assert get("http://127.0.0.1:9/", wrong, right) == CONTENT
    assert wrong.sent == 2 * len(CONTENT)
    assert right.ranges == [None]


def test_a_wrong_checksum_leaves_nothing(serve, cache):
    wrong = serve(bytes(1000))
    with pytest.raises(DataError) as caught:
        get("http://127.0.0.1:9/", wrong)
    assert str(caught.value).startswith(
        f"file.gz could not be downloaded (http://127.0.0.1:9/: cannot be reached; {wrong.address}: SHA256 hash of "
        "downloaded file (file.gz) does not match the known hash"
    )
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_a_missing_file_is_no_content(serve, cache):
    server = serve(b"")
    with pytest.raises(DataError, match="416 Client Error"):
        get(server)


def test_several_processes_download_once(serve, cache):
    server = serve()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(get, [server] * 4)) == [CONTENT] * 4
    assert server.ranges == [None]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "softknee").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"softknee/set cannot be used for downloads \(.*\); XDG_CACHE_HOME moves it"):
        get("http://127.0.0.1:9/")
