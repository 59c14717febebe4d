"""Captions and addresses become pictures: every row accounted for, whatever servers, killers and pictures do."""

import hashlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from itertools import takewhile

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from infra import servers
from tests.kit.addresses import EDGE, PATIENT, conceptual, table
from tests.kit.command import call_xclr, run_xclr, succeeds
from tests.kit.databases import give_databases
from tests.kit.pictures import PNG, SERVED, check_rows, encode, located, prepare, turned
from tests.kit.stages import no_progress
from tests.kit.web import certificate, server_context, serving
from xclr import schema
from xclr.artifact import Artifact, Digest
from xclr.errors import JobError
from xclr.images import run as run_images
from xclr.images import workers
from xclr.images.fetch import Outcome
from xclr.images.pack import run_shard
from xclr.images.picture import judge
from xclr.images.stages import IMAGES
from xclr.recipe import DataConfig
from xclr.stage import Stage

QUICK = PATIENT.model_copy(update={"total_s": 4, "read_s": 3, "connect_s": 3})  # for servers that say nothing
ANSWERS = {f"/picture/{name}": status for name, (_, status) in SERVED.items()} | {
    "/ok": "ok", "/packed/gzip": "ok", "/busy/429/0": "ok", "/busy/503/0": "ok", "/hops/3": "ok",
    "/status/404": "http_4xx", "/status/403": "http_4xx", "/status/410": "http_4xx",
    "/status/500": "http_5xx", "/drip": "timeout", "/silent": "timeout", "/reset": "connection",
    "/short": "connection", "/loop": "redirect", "/to?url=http%3A//10.0.0.1/": "blocked",
    "/to?url=http%3A//2852039166/": "blocked", "/html": "decode", "/badgzip": "decode", "/bomb": "too_large",
    "/endless": "too_large", "/robots/noai": "robots", "/to?url=http%3A//nobody.invalid/": "dns",
}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Addresses that never answer with HTTP: a server whose certificate nobody trusts, one that is gone."""
    folder = tmp_path_factory.mktemp("tls")
    with serving() as gone:
        dead = gone.url("/ok")
    with serving(server_context(certificate(folder))) as secure:
        yield {secure.url("/ok"): "tls", dead: "connection", "http://nobody.invalid/a.jpg": "dns",
               "http://[::ffff:127.0.0.1]:1/": "blocked", "http://0x7f000001:1/": "blocked"}  # fmt: skip


def rows_of(images):
    return schema.read(images.path / "images.parquet", schema.IMAGES).to_pylist()


@settings(max_examples=3, deadline=None, phases=[Phase.generate])  # shrinking waits for time-outs again and again
@given(seed=st.integers(0, 2**32))
@pytest.mark.slow
def test_every_row_has_the_status_it_deserves_exactly_once(seed, server, others, tmp_path_factory):
    folder = tmp_path_factory.mktemp("acquire")
    rng = random.Random(seed)
    answers = {server.url(path): status for path, status in ANSWERS.items()} | others
    wanted = [*answers, *rng.choices([server.url("/ok"), server.url("/status/404")], k=30)]
    rng.shuffle(wanted)
    apart = {
        server.url("/ok"): "?",
        server.url("/status/404"): "/",
    }  # each asked by many rows, at addresses of their own
    urls = [f"{url}{apart[url]}{row}" if url in apart else url for row, url in enumerate(wanted)]
    server.asked.clear()
    stage, images = prepare(conceptual(urls, folder, download=QUICK), folder)
    produced = run_images(stage, images.path, no_progress)
    rows = rows_of(images)
    assert [row["row_id"] for row in rows] == list(range(len(urls)))
    found = [(url, row["status"]) for url, row in zip(wanted, rows, strict=True)]
    assert found == [(url, answers[url]) for url in wanted]
    counts = Counter(answers[url] for url in wanted)
    told = {name: number for name, number in produced.stats.items() if name not in {"rows", "downloaded_bytes"}}
    assert told == counts and produced.stats["rows"] == len(urls)
    accounts = schema.read(images.path / "accounts.parquet", schema.ACCOUNTS).to_pylist()
    for shard in range(-(-len(urls) // 20)):
        own = Counter(status for _, status in found[20 * shard : 20 * (shard + 1)])
        assert {row["status"]: row["rows"] for row in accounts if row["shard"] == shard} == own
    for row in rows:
        if row["status"] == "ok":
            with Image.open(io.BytesIO(located(images, row))) as picture:
                assert (picture.format, min(picture.size) <= EDGE) == ("JPEG", True)
                assert picture.mode in {"RGB", "L"}


def test_pictures_are_stored_upright_flat_and_small(server, tmp_path):
    names = ["turned.jpg", "alpha.png", "cmyk.jpg", "grey16.png", "wide.jpg", "tall.jpg", "plain.jpg", "animated.gif"]
    stage, images = prepare(conceptual([server.url(f"/picture/{name}") for name in names], tmp_path), tmp_path)
    run_images(stage, images.path, no_progress)
    rows = dict(zip(names, rows_of(images), strict=True))
    stored = {name: np.asarray(Image.open(io.BytesIO(located(images, row)))) for name, row in rows.items()}
    assert stored["turned.jpg"].shape == (48, EDGE, 3)
    assert stored["turned.jpg"][4, 16].argmax() == 0 and stored["turned.jpg"][-4, 16].argmax() == 2, "red is up"
    assert stored["alpha.png"].min() == 255, "what is transparent is white"
    assert np.abs(stored["cmyk.jpg"].mean(axis=(0, 1)) - (200, 30, 60)).max() < 12
    assert np.abs(stored["grey16.png"].astype(int) - 40_000 / 257).max() < 3
    assert stored["wide.jpg"].shape == (EDGE, 48, 3)
    assert stored["tall.jpg"].shape == (1_000, 20, 3), "the shortest edge is small enough"
    assert located(images, rows["plain.jpg"]) == SERVED["plain.jpg"][0], "a plain small JPEG stays as it is"
    for name, row in rows.items():
        body = SERVED[name][0]
        assert (row["bytes"], row["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_show_the_same_picture(orientation):
    upright = Image.open(io.BytesIO(turned(1)))
    for edge in (20, 64):
        stored = Image.open(io.BytesIO(judge(turned(orientation), edge).stored or turned(orientation)))
        sideways = orientation >= 5
        assert (stored.width > stored.height) != sideways
        assert min(stored.size) == min(edge, *upright.size)
        assert stored.getexif().get(0x0112, 1) == 1


def test_a_shrunk_jpeg_is_the_picture_that_a_slow_careful_reader_makes():
    noise = Image.effect_noise((640, 480), 60).convert("RGB").resize((1600, 1200), Image.Resampling.BICUBIC)
    body = encode(noise, "JPEG", quality=95)
    mine = np.asarray(Image.open(io.BytesIO(judge(body, 256).stored)), dtype=float)
    careful = np.asarray(Image.open(io.BytesIO(body)).resize((341, 256), Image.Resampling.BILINEAR), dtype=float)
    assert mine.shape == careful.shape
    assert np.abs(mine - careful).mean() < 2.0


def test_webdataset_itself_reads_the_tars(server, tmp_path):
    urls = [
        server.url(f"/picture/{name}?{row}") for row, name in enumerate(["plain.jpg", "webp", "cut.jpg", "gif"] * 8)
    ]
    stage, images = prepare(conceptual(urls, tmp_path), tmp_path)
    run_images(stage, images.path, no_progress)
    tars = sorted(str(path) for path in images.path.glob("shard-*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    usable = [row for row in rows_of(images) if row["status"] == "ok"]
    assert [int(sample["__key__"]) for sample in samples] == [row["row_id"] for row in usable]
    captions = pq.read_table(tmp_path / "captions" / "captions.parquet")["caption"].to_pylist()
    for sample, row in zip(samples, usable, strict=True):
        assert sample["txt"].decode() == captions[row["row_id"]]
        assert sample["jpg"] == located(images, row)


RUN = """
import sys
from pathlib import Path
from xclr.images import run
from xclr.pipeline import KINDS
from xclr.stage import Stage
stage = Stage.from_json(Path(sys.argv[1]).read_text(), KINDS)
run(stage, Path(sys.argv[2]), lambda done, total, ok: print(done, flush=True))
"""


def started(stage, images, folder):
    """The images stage in a process of its own, which prints the rows that are done."""
    (folder / "stage.json").write_text(stage.to_json())
    command = [sys.executable, "-c", RUN, str(folder / "stage.json"), str(images.path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def decoders(process):
    return [each for each in psutil.Process(process.pid).children() if "xclr.images.picture" in each.cmdline()]


@pytest.mark.slow
def test_killed_decoders_cost_no_picture(tmp_path):
    with serving() as server:
        urls = [server.url(f"/picture/wide.jpg?{row}") for row in range(120)]
        urls[60] = server.url("/hold")
        stage, images = prepare(conceptual(urls, tmp_path), tmp_path)
        with started(stage, images, tmp_path) as process:
            list(takewhile(lambda line: int(line) < 60, process.stdout))
            for each in decoders(process):
                each.kill()
            server.released.set()
            process.stdout.read()
        assert process.returncode == 0
        assert [row["status"] for row in rows_of(images)] == ["ok"] * 120
        assert set(server.asked.values()) == {1}, "nothing was fetched twice"


@pytest.mark.slow
def test_a_killed_downloader_leaves_no_decoder_and_repeats_at_most_a_shard(tmp_path):
    with serving() as server:
        urls = [server.url(f"/ok?{row}") for row in range(100)]
        urls[50] = server.url("/hold")
        stage, images = prepare(
            conceptual(urls, tmp_path, download=PATIENT.model_copy(update={"connections": 4})), tmp_path
        )
        with started(stage, images, tmp_path) as process:
            list(takewhile(lambda line: int(line) < 50, process.stdout))
            children = decoders(process)
            os.kill(process.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=60)
        assert children and not alive
        before = Counter(server.asked)
        server.released.set()
        produced = run_images(stage, images.path, no_progress)
        assert produced.stats["ok"] == 100
        again = [row for row in range(100) if server.asked[f"/ok?{row}"] > 1]
        assert all(row >= 40 for row in again), "two shards of 20 were finished"
        assert sum(before.values()) + 60 == sum(server.asked.values())


DIES = """
import io, os, sys
from xclr.images.picture import serve
serve(io.BytesIO(sys.stdin.buffer.read(4)), sys.stdout.buffer, 32)  # the greeting, which has no bytes
sys.stdin.buffer.read(4)
os.kill(os.getpid(), 9)
"""


def interpreter(folder, code, monkeypatch):
    """Decoders that run other code."""
    (folder / "code.py").write_text(code)
    (folder / "python").write_text(f"#!/bin/sh\nexec {sys.executable} {folder / 'code.py'}\n")
    (folder / "python").chmod(0o755)
    monkeypatch.setattr(workers.sys, "executable", str(folder / "python"))


@pytest.mark.parametrize(
    ("signal", "said", "tries"), [(9, "it killed its decoder 2 times", 2), (14, "not decoded within 60 s", 1)]
)
@pytest.mark.parametrize("edge", [EDGE, None])  # None: pictures of this machine that stay as they are
def test_a_picture_that_ends_its_decoders_loses_its_row_only(edge, signal, said, tries, tmp_path, monkeypatch):
    interpreter(tmp_path, DIES.replace("9", str(signal)), monkeypatch)
    with workers.Workers(1, edge, apart=edge is None) as made:
        found = made.read(lambda: Outcome("ok", data=PNG)).result(timeout=120)
    assert (found.judged.columns["status"], found.judged.columns["error"]) == ("decode", said)
    assert len(made.started) == tries, "what took too long is not tried again"


def test_decoders_that_do_not_start_stop_the_run_and_mark_no_row(server, tmp_path, monkeypatch):
    interpreter(tmp_path, "raise SystemExit('no memory')", monkeypatch)
    stage, images = prepare(conceptual([server.url("/ok")] * 3, tmp_path), tmp_path)
    with pytest.raises(JobError, match="does not start"):
        run_images(stage, images.path, no_progress)
    assert not list((images.path / "shards").glob("[0-9]*"))


@pytest.mark.slow
def test_shards_made_apart_are_those_of_one_run(server, tmp_path):
    urls = [server.url(f"/picture/{name}?{row}") for row, name in enumerate(sorted(SERVED) * 4)]
    found = []
    for name in ("whole", "apart"):
        (tmp_path / name).mkdir()
        stage, images = prepare(conceptual(urls, tmp_path / name), tmp_path / name)
        if name == "apart":
            for shard in (2, 0, 1):
                run_shard(stage, images.path, shard, no_progress)
            before = server.asked.total()
        run_images(stage, images.path, no_progress)
        tars = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in images.path.glob("*.tar")}
        found.append((tars, [{**row, "attempt": 0} for row in rows_of(images)]))
    assert found[0] == found[1]
    assert len(found[0][0]) == 3 and server.asked.total() == before


def test_the_next_generation_fetches_only_what_was_lost_and_holds_all(tmp_path):
    with serving() as server:
        kinds = ["/ok", "/mended", "/status/404"]
        urls = [server.url(f"{kinds[row % 3]}?{row}") for row in range(60)]
        stage, images = prepare(conceptual(urls, tmp_path, shard=16), tmp_path)
        first = run_images(stage, images.path, no_progress)
        assert {name: first.stats[name] for name in ("ok", "http_5xx", "http_4xx")} == dict.fromkeys(
            ("ok", "http_5xx", "http_4xx"), 20
        )
        server.released.set()
        server.asked.clear()
        config = stage.config.model_copy(update={"generation": 1, "retry": ("http_5xx", "timeout")})
        before = Artifact("images", Digest("images", "0" * 32), images.path)
        later = Stage(IMAGES, "images, generation 1", config, stage.inputs | {"before": before})
        out = tmp_path / "second"
        out.mkdir()
        produced = run_images(later, out, no_progress)
        assert set(server.asked) == {f"/mended?{row}" for row in range(60) if row % 3 == 1}
        assert produced.stats["rows"] == 60
        assert (produced.stats["ok"], produced.stats["http_4xx"]) == (40, 20)
        second = Artifact("images", Digest("images", "1" * 32), out)
        rows = rows_of(second)
        assert [row["row_id"] for row in rows] == list(range(60))
        assert [row["attempt"] for row in rows[:3]] == [1, 3, 1], "two tries before, one now"
        assert {row["shard"] for row in rows if row["status"] == "ok"} == set(range(6))
        assert all(located(second, row) for row in rows if row["status"] == "ok")
        samples = list(webdataset.WebDataset(sorted(map(str, out.glob("*.tar"))), shardshuffle=False))
        assert sorted(int(each["__key__"]) for each in samples) == [row for row in range(60) if row % 3 < 2]
        for path in images.path.glob("*.tar"):  # the first generation may go
            path.unlink()
        assert all(located(second, row) for row in rows if row["status"] == "ok")


def test_names_are_asked_once(server, tmp_path, monkeypatch):
    from xclr import address

    asked = Counter()
    look_up = address.socket.getaddrinfo

    def counted(host, *arguments, **options):
        asked[host] += 1
        if host == "nobody.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return look_up("127.0.0.1" if host == "pictures.lan" else host, *arguments, **options)

    monkeypatch.setattr(address.socket, "getaddrinfo", counted)
    urls = [server.url(f"/reset?{row}", "pictures.lan") for row in range(10)]
    urls += [server.url("/ok", "pictures.lan"), *(f"http://nobody.invalid/{row}" for row in range(20))]
    stage, images = prepare(conceptual(urls, tmp_path, allow_hosts=("pictures.lan:*",)), tmp_path)
    run_images(stage, images.path, no_progress)
    assert asked == {"pictures.lan": 1, "nobody.invalid": 1}


def test_a_proxy_is_used_when_it_is_configured_and_refuses_this_machine(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    proxy = PATIENT.model_copy(update={"proxy": f"http://127.0.0.1:{server.server_port}"})
    hosts = ["example.invalid", "127.0.0.1", "localhost", "2130706433", "[::1]", "192.168.1.1"]
    stage, images = prepare(conceptual([f"http://{host}/picture/plain.jpg" for host in hosts], tmp_path,
                                       download=proxy, allow_hosts=()), tmp_path)  # fmt: skip
    server.asked.clear()
    run_images(stage, images.path, no_progress)
    assert [row["status"] for row in rows_of(images)] == ["ok"] + ["blocked"] * 5
    assert list(server.asked) == ["http://example.invalid/picture/plain.jpg"]


def test_pictures_of_tars_are_packed_like_any_others(tmp_path):
    from tests.kit.tars import write_samples

    pictures = [PNG, encode(Image.new("RGB", (300, 200)), "JPEG"), b"broken", PNG]
    (tmp_path / "in").mkdir()
    for tar in range(2):
        samples = {f"{row:04d}": {"jpg": pictures[2 * tar + row], "txt": f"{tar} {row}".encode()} for row in range(2)}
        write_samples(tmp_path / "in" / f"{tar}.tar", samples)
    stage, images = prepare(DataConfig(source="wds", path=tmp_path / "in", shard=3), tmp_path)
    run_images(stage, images.path, no_progress)
    check_rows(images, pictures)


@pytest.mark.slow
def test_two_thousand_rows_of_a_published_table(tmp_path):
    """From the table to the accounts by the commands that a person types; the second run fetches what was mended."""
    rows, kinds = 2000, ["/picture/plain.jpg"] * 8 + ["/status/404", "/mended"]
    home = give_databases(tmp_path / "home")
    with serving() as server, servers.using(servers.PREFECT, home / "state"):  # else each of two runs starts one
        urls = [server.url(f"{kinds[row % 10]}?{row}") for row in range(rows)]
        path = table([(url, f"a picture of thing {row % 1500}") for row, url in enumerate(urls)], tmp_path)
        with path.open("a") as stream:
            stream.write(f"{urls[0]}\tagain\nno line of it\n")
        data = {"source": "cc12m", "path": str(path), "shortest_edge": 64, "shard": 500, "allow_hosts": ["127.0.0.1:*"]}
        (tmp_path / "mine.yaml").write_text(json.dumps({"name": "mine", "data": data}))

        def typed(xclr, *arguments):
            return succeeds(xclr(*arguments, "--home", str(home), cwd=tmp_path)).stdout

        typed(run_xclr, "run", "mine.yaml", "--until", "images")
        found = json.loads(typed(call_xclr, "accounts", "mine", "--json"))
        assert found["rows"] == rows and found["generation"] == 0
        assert found["statuses"] == {"ok": 1600, "http_4xx": 200, "http_5xx": 200}
        shards = Counter()
        for each in found["shards"]:
            shards[each["shard"]] += each["rows"]
        assert shards == dict.fromkeys(range(4), 500)
        server.released.set()
        server.asked.clear()
        typed(run_xclr, "retry", "mine", "--status", "http_5xx,dns", "--until", "images")
        assert sum(server.asked.values()) == 200
        found = json.loads(typed(call_xclr, "accounts", "mine", "--json"))
        assert (found["generation"], found["statuses"]) == (1, {"ok": 1800, "http_4xx": 200})
        assert "0 wrong" in typed(call_xclr, "verify", "mine")
        plan = json.loads(typed(call_xclr, "plan", "mine.yaml", "--json"))
        (images,) = [each for each in plan if each["stage"] == "images, generation 1"]
        assert (images["state"], images["rows"]) == ("hit", rows)
