"""Accounts of a run's pictures, the next generation of them, and hashing again what is stored."""

import pytest

from infra.home.pictures import accounts, try_again
from infra.home.verify import found, verify
from infra.plan import plan
from infra.stage import ensure
from tests.kit.pictures import write_table
from tests.kit.recipes import TINY
from tests.kit.runs import open_run
from tests.kit.web import serving
from xclr.captions import stages as captions_stages
from xclr.errors import RecipeError, StoreError
from xclr.images import generations
from xclr.images import stages as images_stages
from xclr.recipe import Recipe


@pytest.fixture
def server():
    with serving() as running:
        yield running


def recipe(server, folder):
    kinds = ["/ok", "/mended", "/status/404"]
    table = write_table([server.url(f"{kinds[row % 3]}?{row}") for row in range(30)], folder)
    data = {"source": "table", "path": str(table), "shard": 8, "allow_hosts": ["127.0.0.1:*"]}
    return Recipe.model_validate(TINY | {"name": "mine", "data": data})


def made(run):
    """The pictures of all generations."""
    captions = ensure(run, captions_stages.captions(run.recipe, run.store))
    return [ensure(run, each) for each in images_stages.images(run.recipe, run.store, captions)]


@pytest.mark.slow
def test_lost_pictures_are_counted_and_tried_again(server, home, tmp_path):
    run = open_run(home, recipe=recipe(server, tmp_path))
    with pytest.raises(StoreError, match="not complete"):
        accounts(home, run.record)
    with pytest.raises(StoreError, match="not complete"):
        try_again(home, run.record, ["dns"])
    (first,) = made(run)
    seen = accounts(home, run.record)
    assert (seen.generation, seen.rows, seen.digest) == (0, 30, str(first.digest))
    assert seen.statuses == {"ok": 10, "http_4xx": 10, "http_5xx": 10}
    assert seen.tries == {1: 20, 2: 10}
    assert [sum(each.rows for each in seen.shards if each.shard == shard) for shard in range(4)] == [8, 8, 8, 6]
    with pytest.raises(RecipeError, match="no status 'http_500'") as caught:
        try_again(home, run.record, ["http_500"])
    assert caught.value.remedy == "choose http_5xx"
    for wrong in ("ok", ""):
        with pytest.raises(RecipeError):
            try_again(home, run.record, [wrong])
    with pytest.raises(StoreError, match="has status dns, timeout") as caught:
        try_again(home, run.record, ["dns", "timeout"])
    assert "http_5xx (10)" in caught.value.remedy
    assert try_again(home, run.record, ["http_5xx", "dns"]) == "images, generation 1: 10 http_5xx are tried again"
    assert "is not complete: it goes on" in try_again(home, run.record, ["http_4xx"])
    planned = {each.stage: each.state for each in plan(run.recipe, run.store, run.cluster)}
    assert (planned["images"], planned["images, generation 1"]) == ("hit", "miss")
    server.released.set()
    server.asked.clear()
    again = open_run(home, recipe=run.recipe)
    assert made(again)[0].digest == first.digest
    assert sum(server.asked.values()) == 10
    seen = accounts(home, again.record)
    assert (seen.generation, seen.statuses, seen.tries) == (1, {"ok": 20, "http_4xx": 10}, {1: 20, 3: 10})
    current = images_stages.images(
        run.recipe, run.store, run.store.reference(captions_stages.captions(run.recipe, run.store).digest)
    )[-1]
    assert str(current.digest) == seen.digest
    assert current.inputs["before"].digest == first.digest


def test_a_file_that_changed_is_found(server, home, tmp_path):
    server.released.set()
    run = open_run(home, recipe=recipe(server, tmp_path))
    (images,) = made(run)
    assert [each.fault for each in verify(home, found(home))] == ["", ""]
    tar = images.path / "shard-00001.tar"
    damaged = bytearray(tar.read_bytes())
    damaged[700] ^= 1
    tar.write_bytes(damaged)
    faults = {each.artifact.kind: each.fault for each in verify(home, found(home))}
    assert faults["captions"] == "" and "shard-00001.tar has changed" in faults["images"]
    assert found(home, {str(images.digest)}) == [images]


def test_a_damaged_list_of_generations_is_named(server, home, tmp_path):
    run = open_run(home, recipe=recipe(server, tmp_path))
    (images,) = made(run)
    (home / "heads").mkdir()
    (home / "heads" / f"{images.digest}.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        generations.read(run.store, images.digest)
