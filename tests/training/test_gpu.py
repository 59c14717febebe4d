"""What only a GPU can show: steps that wait for nothing, and the CPU's numbers."""

import pytest
import torch
from torch.nn import functional as F

from tests.kit.home import TRAIN, build
from tests.kit.objectives import CONFIGS as OBJECTIVES
from xclr.graph import self_join
from xclr.objective import xclr_loss_from_embeddings
from xclr.training import Learner, Rank

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
CONFIGS = {name: config for name, config in OBJECTIVES.items() if name != "xclr by class"}  # the home has no such graph


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("name", CONFIGS)
def test_no_step_waits(home, batches, name, optimizer):
    config = TRAIN.model_copy(update={"optimizer": optimizer})
    learner = Learner.of(build(CONFIGS[name], home.paths, config), config, Rank.here())
    stream = batches.stream(0, 4, learner.place, learner.model.look)
    learner.step(next(stream), 1e-3, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step, batch in enumerate(stream, start=1):
            learner.step(batch, 1e-3, step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    learner.guard.check(None)


def test_views_of_resident_pictures_are_the_cpus(batches):
    here, there = (next(batches.stream(3, 4, Rank(0, 1, torch.device(each)))) for each in ("cpu", "cuda:0"))
    assert torch.equal(here.rows, there.rows.cpu())
    torch.testing.assert_close(there.views.cpu(), here.views, rtol=0, atol=1e-4)


def test_the_loss_block_by_block_is_the_cpus():
    z = F.normalize(torch.randn(1024, 32, dtype=torch.float64), dim=1)
    e = F.normalize(torch.randn(512, 48, dtype=torch.float64), dim=1).repeat(2, 1)
    found = []
    for device in ("cpu", "cuda"):
        own = z.to(device).requires_grad_()
        loss = xclr_loss_from_embeddings(own, e.to(device))
        found.append((loss.detach().cpu(), torch.autograd.grad(loss, own)[0].cpu()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cutoff", [0.6, None])
def test_the_graph_is_the_cpus(cutoff):
    centres = torch.randn(60, 64)
    rows = F.normalize(centres[torch.randint(60, (3000,))] + 0.7 * torch.randn(3000, 64), dim=1).half()
    rows[:40] = rows[100:140]  # ties
    here, there = (self_join(rows.to(each), 8, block=512, cutoff=cutoff) for each in ("cpu", "cuda"))
    assert torch.equal(there.neighbours.ids.cpu(), here.neighbours.ids)
    assert torch.equal(there.neighbours.sims.cpu().nan_to_num(), here.neighbours.sims.nan_to_num())
    assert torch.equal(there.counts.cpu(), here.counts)
