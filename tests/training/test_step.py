"""One step: it waits for nothing, refuses bad gradients on the device, and can be cut into blocks or compiled."""

import math

import pytest
import torch
import torch._dynamo as dynamo
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.overrides import TorchFunctionMode

from tests.kit.home import TRAIN, build
from tests.kit.objectives import CONFIGS as OBJECTIVES
from xclr.errors import JobError
from xclr.recipe import CLIPConfig, MoCoConfig, SimCLRConfig, TrainConfig, XCLRConfig, method_name
from xclr.training import Learner, Pretrainer, Rank
from xclr.training.compiling import COMPILERS, compile_step
from xclr.training.guard import Guard
from xclr.training.objectives.materials import Objective

CPU = torch.device("cpu")
CONFIGS = {name: config for name, config in OBJECTIVES.items() if name != "xclr by class"}  # the home has no such graph
READS = {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist}


class NoReading(TorchFunctionMode):
    """Fails on what would fetch a tensor to this side."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert func not in READS, f"a step waits for {func.__name__}"
        return func(*args, **(kwargs or {}))


def learner_of(home, objective, **changes):
    config = TRAIN.model_copy(update=changes)
    return Learner.of(build(objective, home.paths, config), config, Rank(0, 1, CPU))


def batch_of(batches, learner, step=0):
    (batch,) = batches.stream(step, step + 1, learner.place, learner.model.look)
    return batch


@pytest.mark.parametrize(
    ("name", "optimizer", "blockwise_from"),
    [(name, ("adamw", "sgd", "lars")[at % 3], (2, 1000)[at % 2]) for at, name in enumerate(CONFIGS)],
)
def test_a_step_waits_for_no_number(home, batches, name, optimizer, blockwise_from):
    """Of fake tensors nothing can be read: no number, no truth, no count of what is not zero."""
    learner = learner_of(home, CONFIGS[name], optimizer=optimizer, blockwise_from=blockwise_from)
    batch = batch_of(batches, learner)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, NoReading():
        faked = [mode.from_tensor(each) for each in (batch.rows, batch.views)]
        looked = batch.looked._make(None if each is None else mode.from_tensor(each) for each in batch.looked)
        for step in range(2):
            learner.step(batch._replace(rows=faked[0], views=faked[1], looked=looked), 1e-3, step)
        with pytest.raises(DataDependentOutputException):
            learner.guard.usual.item()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_bad_gradient_moves_nothing_and_neither_does_any_after_it(home, batches, optimizer, before):
    """At the first step too, when an optimiser has not yet written its momenta."""
    learner = learner_of(home, CLIPConfig(), optimizer=optimizer)
    good = batch_of(batches, learner)
    for step in range(before):
        learner.step(good, 1.0, step)
    weights = {key: each.clone() for key, each in learner.model.named_parameters()}
    learner.step(good._replace(views=good.views * math.nan), 1.0, before)
    learner.step(good, 1.0, before + 1)
    assert all(torch.equal(each, weights[key]) for key, each in learner.model.named_parameters())
    with pytest.raises(
        JobError, match=f"is not finite at step {before + 1}: norm nan, loss nan; no checkpoint was due"
    ):
        learner.guard.check(None)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
def test_a_step_after_a_refused_one_is_the_step_of_before(home, batches, optimizer):
    """As after float16 overflowed at the first step, where the scaler tries a smaller factor."""
    stayed, skipped = (learner_of(home, SimCLRConfig(), optimizer=optimizer) for _ in range(2))
    batch = batch_of(batches, stayed)
    skipped.guard = Guard(CPU, scaled=True)
    refused = skipped.guard.refuse(torch.tensor(math.inf), torch.tensor(1.0), 0)
    assert refused == 1 and skipped.guard.check(None) is None
    for parameter in skipped.model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    for descent, _ in skipped.descents:
        descent.found_inf = refused
        descent.step()
    for learner in (stayed, skipped):
        learner.step(batch, 1.0, 1)
    for own, other in zip(skipped.model.parameters(), stayed.model.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)


class Plain(nn.Module):
    """A backbone without batch statistics."""

    def __init__(self):
        super().__init__()
        first = nn.Sequential(nn.Flatten(), nn.LazyLinear(24))
        self.blocks = nn.Sequential(first, nn.GELU(), nn.LazyLinear(32), nn.Identity())

    def forward(self, views):
        return self.blocks(views)


@pytest.mark.parametrize(
    "objective",
    [XCLRConfig(), CLIPConfig(text="frozen"), CLIPConfig(local=1.0), MoCoConfig(queue=200, stages=0.25)],
    ids=method_name,
)
@pytest.mark.parametrize("micro_batch", [5, 1000])
def test_block_by_block_the_gradient_is_that_of_the_whole_batch(home, batches, objective, micro_batch):
    found = []
    for size in (None, micro_batch):
        config = TRAIN.model_copy(update={"micro_batch": size, "projector": "linear"})
        torch.manual_seed(0)
        made = build(objective, home.paths, config)
        shown, backbone = next(batches.stream(0, 1, Rank(0, 1, CPU), made.look)), Plain()
        backbone(shown.views)
        torch.manual_seed(1)
        for parameter in backbone.parameters():
            nn.init.normal_(parameter, std=0.05)
        made = Pretrainer(backbone, made.objective)
        learner = Learner.of(made, config, Rank(0, 1, CPU))
        outcome, norm = learner.step(shown, 0.0, 0)
        found.append(
            (
                outcome.loss.detach(),
                norm,
                [each.grad for each in made.parameters() if each.requires_grad],
                outcome.report(),
            )
        )
    (plain, length, slopes, report), (cached, _, blocks, told) = found
    torch.testing.assert_close(cached, plain, rtol=1e-6, atol=0)
    torch.testing.assert_close(told, report, rtol=1e-4, atol=1e-6)
    for own, other in zip(blocks, slopes, strict=True):
        assert (own - other).norm() <= 1e-6 * length


def test_a_batch_norm_counts_each_block_once(home, batches):
    learner = learner_of(home, SimCLRConfig(), micro_batch=8)
    learner.step(batch_of(batches, learner), 0.0, 0)
    counted = {int(each) for key, each in learner.model.backbone.named_buffers() if "num_batches" in key}
    assert counted == {TRAIN.batch_size // 8}


@pytest.mark.parametrize("name", ["simclr", "supcon", "xclr", "clip bpe", "cwcl", "mochi", "ressl"])
def test_a_compiled_step_is_one_graph_and_is_not_compiled_again(home, batches, name):
    """Captions are of other lengths in other batches, which makes a second graph, and no third."""
    model = build(CONFIGS[name], home.paths, TRAIN)
    dynamo.reset()
    dynamo.utils.counters.clear()
    model.compile(backend="eager", fullgraph=True)
    for batch in batches.stream(0, 5, Rank(0, 1, CPU), model.look):
        model(batch.views, batch.rows, batch.looked).loss.backward()
    assert (
        dynamo.utils.counters["stats"]["unique_graphs"] <= 1 + (name == "clip bpe")
        and not dynamo.utils.counters["graph_break"]
    )


def test_without_a_compiler_a_line_says_that_nothing_is_compiled(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    model = Pretrainer(nn.Identity(), Objective())
    compile_step(model, model.backbone, TrainConfig(compile=True), CPU)
    assert "no compiler in PATH" in capsys.readouterr().out and model._compiled_call_impl is None
    monkeypatch.setenv("CXX", "/bin/true")
    for changes in ({"micro_batch": 8}, {"batch_size": 1024}):
        compile_step(model, model.backbone, TrainConfig(compile=True, **changes), CPU)
        assert model.backbone._compiled_call_impl is not None and model._compiled_call_impl is None
    compile_step(model, model.backbone, TrainConfig(compile=True), CPU)
    assert model._compiled_call_impl is not None and set(COMPILERS) == {"cpu", "cuda"}
