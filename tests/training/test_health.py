"""Devices that can be trusted and ones that cannot: their memory, their products, their sums over ranks."""

from __future__ import annotations

import pytest
import torch

from tests.kit.ranks import run_on_ranks
from xclr.errors import NodeError
from xclr.training import health
from xclr.training.ranks import Rank

CPU = torch.device("cpu")


def check_as(rank, world):
    """Two ranks look at themselves and at the way between them, then one of them adds wrongly."""
    place = Rank(rank, world, CPU)
    health.check_device(place)
    fault = health.sum_fault(Rank(rank + 1, world, CPU) if rank else place)
    return {"wrong": torch.tensor(fault.startswith(f"{health.REDUCED} of {health.REDUCED} sums over 2 ranks"))}


@pytest.mark.slow
def test_ranks_in_order_pass_and_a_wrong_sum_is_seen_by_all(tmp_path):
    assert all(each["wrong"] for each in run_on_ranks(check_as, 2, tmp_path))


@pytest.mark.parametrize("share", ["memory", "product"])
def test_a_wrong_byte_and_a_wrong_product_are_the_nodes_fault(share, monkeypatch):
    monkeypatch.setattr(health, "BLOCK", 1 << 20)
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    health.check_device(Rank(0, 1, CPU))
    if share == "memory":
        monkeypatch.setattr(health, "PATTERNS", (0x55, 300 - 256 + 0.5))  # which no byte keeps
    else:
        monkeypatch.setattr(
            health, "_products", lambda left, right: [left @ right + (left.sum() != 0) * torch.eye(512)]
        )
    with pytest.raises(NodeError, match=rf"cpu of rank 0 on n7 is not in order: .*{share}"):
        health.check_device(Rank(0, 1, CPU))


def test_what_the_device_says_itself_is_its_fault(monkeypatch):
    def lost(device):
        raise RuntimeError("CUDA error: GPU is lost\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(health, "memory_fault", lost)
    with pytest.raises(NodeError, match="CUDA error: GPU is lost") as caught:
        health.check_device(Rank(0, 1, CPU))
    assert "reported later" not in caught.value.message and "xclr retry" in caught.value.remedy
