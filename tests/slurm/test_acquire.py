"""Pictures as a job array: a shard an element, of which one that is killed runs again alone."""

import json
import threading
from collections import Counter

import pyarrow.parquet as pq

from infra.cluster import Cluster
from infra.home.status import status, view
from infra.ledger import JobState
from infra.resources import Resources
from infra.slurm.queue import slurm_ids
from infra.stage import ensure
from tests.kit.addresses import conceptual
from tests.kit.polling import until
from tests.kit.recipes import TINY
from tests.kit.runs import open_run
from tests.kit.slurm import element, elements_named
from tests.kit.web import serving
from xclr import shards
from xclr.captions import stages as captions_stages
from xclr.images import stages as images_stages
from xclr.recipe import DownloadConfig, Recipe

ROWS, SHARD, HELD = 80, 20, 50  # the held row is in the third of four shards


def test_a_killed_element_of_the_array_runs_again_alone(cluster, home, tmp_path):
    on_slurm = Resources(executor="slurm", threads=1, timeout_min=60, parallel=4)
    where = Cluster(name="test", stages={"images": on_slurm})
    with serving() as server:
        urls = [server.url(f"/ok?{row}") for row in range(ROWS)]
        urls[HELD] = server.url("/hold")
        data = conceptual(urls, tmp_path, shard=SHARD, download=DownloadConfig(total_s=60, read_s=60))
        recipe = Recipe.model_validate(
            TINY | {"data": json.loads(data.model_dump_json()), "retries": {"lost_after_s": 5}, "name": "pictures"}
        )
        run = open_run(home, recipe=recipe, cluster=where)
        captions = ensure(run, captions_stages.captions(run.recipe, run.store))
        stage = images_stages.images(run.recipe, run.store, captions)[-1]
        out = run.store.reference(stage.digest).path
        thread = threading.Thread(target=ensure, args=(run, stage))
        thread.start()
        entry = until(lambda: (found := run.book.latest(stage.digest)) and found.job and found)
        until(lambda: len(list((out / shards.SHARDS).glob("0000[013]"))) == 3 and server.asked["/hold"])
        victim = until(lambda: element(out, slurm_ids(entry.job)[0]))
        (line,) = [each for each in status(view(home)).jobs if each.stage == "images"]
        assert line.progress is not None and 3 * SHARD <= line.progress.done < ROWS == line.progress.total
        assert line.progress.ok == line.progress.done
        victim.kill()
        until(lambda: (found := run.book.latest(stage.digest)) and found.attempt == 2 and found.job and found)
        server.released.set()
        thread.join()
        second = run.book.latest(stage.digest)
        assert second.before == (JobState.GONE,)
        assert len(elements_named(second.name)) == 1, "one element was missing"
        images = run.store.find(stage.digest)
        assert Counter(pq.read_table(images.path / "images.parquet")["status"].to_pylist()) == {"ok": ROWS}
        twice = {path for path, times in server.asked.items() if times > 1}
        assert twice <= {"/hold", *(f"/ok?{row}" for row in range(2 * SHARD, 3 * SHARD))}
        assert server.asked["/hold"] == 2
