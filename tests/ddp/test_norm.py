"""SyncBatchNorm over processes, ours on CPU and torch's on CUDA, is BatchNorm on the concatenated batch."""

from functools import partial

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from tests.kit.ranks import run_on_ranks
from xclr.training.norm import SyncBatchNorm, convert_sync_batchnorm

WORLD, CHANNELS, STEPS = 2, 5, 3
SHAPES = {"2-d": (8, CHANNELS), "4-d": (8, CHANNELS, 3, 4)}
CASES = {
    "2-d float64": ("2-d", torch.float64, {}),
    "2-d float32": ("2-d", torch.float32, {}),
    "4-d float64": ("4-d", torch.float64, {}),
    "4-d float32": ("4-d", torch.float32, {}),
    "channels last": ("4-d", torch.float64, {}),
    "far from zero": ("4-d", torch.float32, {}),
    "no affine": ("4-d", torch.float64, {"affine": False}),
    "cumulative": ("2-d", torch.float64, {"momentum": None}),
    "no running statistics": ("2-d", torch.float64, {"track_running_stats": False}),
    "uneven ranks": ("4-d", torch.float64, {}),
    "bfloat16 in": ("4-d", torch.bfloat16, {}),
    "activated": ("4-d", torch.float64, {"act_layer": "gelu"}),  # timm's, which activates what it normalised
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2}
FAR = 1e-4  # a mean of 1000 in float32 is itself known to 3e-5; moments summed in float32 would be wrong by 1e-2


def tensors(case):
    """STEPS inputs and the weight of each output in the loss, the same on every process."""
    shape, dtype, _ = CASES[case]
    generator = torch.Generator().manual_seed(3)
    x, slope = torch.randn(2, STEPS, *SHAPES[shape], generator=generator, dtype=torch.float64)
    x = 2 * x + torch.arange(CHANNELS).view(-1, *[1] * (len(SHAPES[shape]) - 2))
    if case == "far from zero":
        x = x + 1000
    return x.to(dtype), slope.to(dtype)


def layer(case):
    shape, dtype, options = CASES[case]
    kind = nn.BatchNorm1d if shape == "2-d" else BatchNormAct2d if "act_layer" in options else nn.BatchNorm2d
    norm = kind(CHANNELS, **options)
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(4))
        nn.init.uniform_(norm.bias, -1, 1, generator=torch.Generator().manual_seed(5))
    return norm.to(torch.promote_types(dtype, torch.float32))


def rows_of(case, rank):
    edges = (0, 3, 8) if case == "uneven ranks" else (0, 4, 8)
    return slice(edges[rank], edges[rank + 1])


def run(case, norm, rows, device="cpu"):
    """Outputs and input gradients of STEPS steps, the affine gradients (summed over steps), buffers, eval output."""
    x, slope = (each[:, rows].to(device) for each in tensors(case))
    norm, results = norm.to(device), {}
    for step in range(STEPS):
        leaf = x[step].clone()
        if case == "channels last":
            leaf = leaf.contiguous(memory_format=torch.channels_last)
        leaf.requires_grad_()
        y = norm(leaf)
        if case == "channels last":
            assert y.is_contiguous(memory_format=torch.channels_last)
        (y * slope[step]).sum().backward()
        results |= {f"y{step}": y.detach(), f"dx{step}": leaf.grad}
    results |= {f"d{key}": parameter.grad for key, parameter in norm.named_parameters()}
    results |= {f"buffer {key}": value.clone() for key, value in norm.named_buffers()}
    results["eval"] = norm.eval()(x[0]).detach() if norm.track_running_stats else torch.zeros(0)
    return {key: value.cpu() for key, value in results.items()}


def on_a_rank(device, rank, world):
    place = torch.device(device, rank) if device == "cuda" else torch.device("cpu")
    norms = {case: convert_sync_batchnorm(layer(case).to(place)) for case in CASES}
    assert all(isinstance(each, SyncBatchNorm if device == "cpu" else nn.SyncBatchNorm) for each in norms.values())
    results = {case: run(case, norm, rows_of(case, rank), place) for case, norm in norms.items()}
    results["frozen"] = frozen(tensors("4-d float64")[0][0, rows_of("4-d float64", rank)])
    return results


def frozen(x):
    """Affine gradients when the input needs none."""
    norm = convert_sync_batchnorm(layer("4-d float64"))
    norm(x).square().sum().backward()
    return {"weight": norm.weight.grad, "bias": norm.bias.grad}


TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < WORLD, reason="torch's SyncBatchNorm needs two GPUs")


@pytest.fixture(
    scope="module", params=[pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=TWO_GPUS)]
)
def ranks(request, tmp_path_factory):
    return run_on_ranks(partial(on_a_rank, request.param), WORLD, tmp_path_factory.mktemp("norm"))


@pytest.mark.parametrize("case", CASES)
def test_value_gradient_and_running_statistics_are_those_of_one_batch(case, ranks):
    tolerance = FAR if case == "far from zero" else TOLERANCE[CASES[case][1]]
    whole = run(case, layer(case), slice(None))
    parts = [rank[case] for rank in ranks]
    for key, expected in whole.items():
        if key.startswith("buffer"):
            for part in parts:
                close(part[key], expected, tolerance, key)
        elif key in ("dweight", "dbias"):
            close(sum(part[key] for part in parts), expected, tolerance, key)
        else:
            close(torch.cat([part[key] for part in parts]), expected, tolerance, key)
            assert parts[0][key].dtype == expected.dtype


def close(got, expected, tolerance, key):
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    difference = (got.double() - expected.double()).abs().max().item() if expected.numel() else 0.0
    assert difference <= tolerance * scale, key


def test_affine_gradients_need_no_input_gradient(ranks):
    norm = layer("4-d float64")
    norm(tensors("4-d float64")[0][0]).square().sum().backward()
    for key, parameter in norm.named_parameters():
        close(sum(rank["frozen"][key] for rank in ranks), parameter.grad, 1e-10, key)


@pytest.mark.parametrize("case", CASES)
def test_without_a_process_group_it_is_batchnorm(case):
    ours, plain = run(case, convert_sync_batchnorm(layer(case)), slice(None)), run(case, layer(case), slice(None))
    assert all(torch.equal(ours[key], plain[key]) for key in plain)


def test_conversion_shares_parameters_and_keeps_the_mode():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4, eps=1e-3, momentum=0.2)), nn.ReLU())
    parameters, buffers, state = list(model.parameters()), list(model.buffers()), list(model.state_dict())
    norm = convert_sync_batchnorm(model.eval())[1][0]
    assert isinstance(norm, SyncBatchNorm) and not norm.training
    assert (norm.eps, norm.momentum, norm.num_features) == (1e-3, 0.2, 4)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(a is b for a, b in zip(model.buffers(), buffers, strict=True))
    assert list(model.state_dict()) == state
    assert convert_sync_batchnorm(model)[1][0] is norm
