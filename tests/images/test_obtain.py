"""Pictures however they are given, in order and within memory; and what tells a dead network from a dead host."""

import os
from concurrent.futures import Future
from contextlib import closing
from unittest.mock import Mock

import pytest

from tests.kit.pictures import PNG, WEBP
from tests.kit.web import LIMIT, QUICK, serving
from xclr.errors import DataError, JobError
from xclr.images import workers as workers_module
from xclr.images.obtain import AHEAD, Breaker, Probe, read
from xclr.images.obtain import obtain as obtain_with
from xclr.images.outcome import Limits, Outcome
from xclr.images.workers import Workers

LIMITS = Limits(**QUICK)
DEAD = {"status": "dns", "error": "no such name", "reached": False}


def obtain(pictures, limits):
    """Outcomes with two decoders."""
    with Workers(2, None) as workers, closing(obtain_with(pictures, limits, workers)) as outcomes:
        yield from outcomes


@pytest.fixture
def server():
    with serving() as running:
        yield running


def test_all_kinds_of_pictures_come_in_the_order_of_the_rows(server, tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(WEBP)
    server.awaited = 3
    given = [PNG, server.url("/count"), path, None, server.url("/ok"), server.url("/status/404"), b"", tmp_path / "b"]
    found = list(obtain(given, LIMITS))
    assert [each.data for each in found] == [PNG, PNG, WEBP, b"", PNG, b"", b"", b""]
    assert [each.status for each in found] == ["ok"] * 5 + ["http_4xx", "ok", "decode"]
    assert found[-1].error == f"no file {tmp_path / 'b'}"


def test_a_decoder_that_cannot_be_started_ends_the_wait(server, tmp_path, monkeypatch):
    """For pictures of this machine and for downloads, which another thread hands over."""
    monkeypatch.setattr(workers_module.sys, "executable", str(tmp_path / "gone"))
    for picture in (PNG, server.url("/ok")):
        with Workers(1, 64) as workers, pytest.raises(JobError, match="does not start"):
            next(obtain_with([picture], LIMITS, workers))


@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt, RuntimeError])
def test_whatever_ends_a_download_or_its_decoding_ends_the_wait(kind, monkeypatch):
    broken: Future[Outcome] = Future()
    broken.set_exception(kind())
    fine: Future[Outcome] = Future()
    fine.set_result(Outcome("ok", data=PNG))
    with Workers(1, None) as workers:
        assert isinstance(workers.follow(broken).exception(timeout=10), kind)
        monkeypatch.setattr(workers, "_judge", Mock(side_effect=kind))
        assert isinstance(workers.follow(fine).exception(timeout=10), kind)
        monkeypatch.setattr(workers.threads, "submit", Mock(side_effect=RuntimeError("can't start new thread")))
        assert "new thread" in str(workers.follow(fine).exception(timeout=10))


def test_pictures_that_are_given_are_taken_one_by_one():
    taken = []
    pictures = (taken.append(row) or PNG for row in range(100))
    with closing(obtain(pictures, LIMITS)) as outcomes:
        next(outcomes)
        assert len(taken) == 1


@pytest.mark.slow
def test_downloads_run_ahead_of_a_slow_one_but_not_without_bound(server):
    """The first answer is held back until all that may be asked meanwhile have been asked."""
    window = 2 * AHEAD + 1
    server.awaited = window
    urls = [server.url("/count"), *(server.url(f"/ok?{row}") for row in range(200))]
    with closing(obtain(urls, Limits(**QUICK | {"in_flight": 2, "per_host": 2}))) as outcomes:
        assert next(outcomes).status == "ok"
        assert len(server.asked) == window  # addresses; a slow machine may ask for one again


def test_pictures_that_wait_are_bounded_in_bytes(server):
    """The first answer is held back until as many were asked as may wait; then no more have been."""
    room = 3
    server.awaited = 1 + room + 1
    urls = [server.url("/count"), *(server.url(f"/exactly?{row}") for row in range(60))]
    limits = Limits(**QUICK | {"in_flight": 2, "per_host": 2, "held_bytes": room * LIMIT})
    with closing(obtain(urls, limits)) as outcomes:
        assert next(outcomes).data == PNG
        assert len(server.asked) == server.awaited
        assert sum(len(each.data) for each in outcomes) == 60 * LIMIT


def test_leaving_early_ends_the_downloads(server):
    with closing(
        obtain([PNG, server.url("/silent"), server.url("/hold")], Limits(**QUICK | {"in_flight": 0}))
    ) as outcomes:
        assert next(outcomes).data == PNG
    assert not server.released.is_set()


def test_bytes_of_a_table_are_held_to_the_limit_too():
    found = list(obtain([bytes(LIMIT), bytes(LIMIT + 1)], LIMITS))
    assert [each.status for each in found] == ["ok", "too_large"]


@pytest.mark.parametrize(
    ("name", "status"), [("file", "ok"), ("large", "too_large"), ("folder", "decode"), ("gone", "decode"),
                         ("pipe", "decode"), ("nul\x00l", "decode"), ("n" * 300, "decode"), ("link", "ok")],
)  # fmt: skip
def test_a_file_is_read_or_accounted_for(name, status, tmp_path):
    (tmp_path / "file").write_bytes(bytes(LIMIT))
    (tmp_path / "large").write_bytes(bytes(LIMIT + 1))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    found = read(tmp_path / name, LIMIT)
    assert found.status == status
    assert len(found.data) == (LIMIT if status == "ok" else 0)
    assert (found.error is None) == (status == "ok")


def watch(*runs):
    """The number of outcomes that pass; each run is a number, a host, and what came of them."""
    outcomes = [Outcome(host=host, **what) for number, host, what in runs for _ in range(number)]
    return sum(1 for _ in Breaker().watch(outcomes))


OK = {"status": "ok"}
LOST = {"status": "http_4xx", "error": "HTTP 404"}
BLOCKED = {"status": "blocked", "error": "not public"}


@pytest.mark.parametrize(
    "runs",
    [
        [(49, "a", DEAD), (1, "a", OK)],
        [(1, "a", OK), (199, "a", DEAD), (1, "a", LOST), (199, "a", DEAD)],
        [(1, "a", OK), (1000, "dead", DEAD), (1, "b", OK)],
        [(1000, "a", LOST)],
        [(1000, "a", BLOCKED)],
        [(1000, "", {"status": "decode"})],
    ],
)
def test_hosts_that_are_gone_do_not_stop_a_run(runs):
    assert watch(*runs) == sum(number for number, *_ in runs)


@pytest.mark.parametrize(
    ("runs", "count"),
    [
        ([(50, "a", DEAD)], 50),
        ([(30, "a", DEAD), (5, "a", BLOCKED), (20, "b", DEAD)], 50),
        ([(1, "a", OK), (200, "a", DEAD)], 200),
        ([(1, "a", OK), (100, "a", DEAD), (100, "b", DEAD)], 200),
        ([(1, host, OK) for host in "abcdef"] + [(50, host, DEAD) for host in "uvwxyz"], 201),
    ],
)
def test_a_dead_network_stops_a_run(runs, count):
    with pytest.raises(DataError, match=f"{count} downloads in a row reached no server .*no such name") as caught:
        watch(*runs)
    assert "finished shards stay" in caught.value.remedy


def test_dead_hosts_at_the_top_of_a_table_stop_no_run(server):
    """Rows further down were asked meanwhile: their server answers once more."""
    with serving() as dead:
        urls = [dead.url(f"/ok?{row}") for row in range(60)]
    probe = Probe()
    with Workers(2, None) as workers:
        outcomes = obtain_with([*urls, *(server.url(f"/ok?{row}") for row in range(20))], LIMITS, workers, probe)
        found = [each.status for each in Breaker(probe).watch(outcomes)]
    assert found == ["connection"] * 60 + ["ok"] * 20


def test_downloads_that_reach_nobody_end_the_run():
    with serving() as server:
        urls = [server.url(f"/ok?{row}") for row in range(300)]
    with pytest.raises(DataError, match=r"50 downloads in a row reached no server .*connection, ClientConnectorError"):
        list(Breaker().watch(obtain(urls, LIMITS)))
