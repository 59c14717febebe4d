"""The losses in a loop of one's own refuse what they would take silently: rows that are not unit, no cosines."""

import re

import pytest
import torch
import torch.nn.functional as F

from tests.kit.batches import captions, views
from xclr.objective import xclr_loss, xclr_loss_from_embeddings

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def rows():
    """z and e, of 16 samples in two views."""
    return views(16, 8).detach(), captions(16, 12)


def spoilt(rows, norm, dtype, *, which=slice(None)):
    """Rows some of which have another norm."""
    spoilt = rows.clone()
    spoilt[which] *= norm
    return spoilt.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", [3, slice(None)])
@pytest.mark.parametrize("norm", [0.5, 0.95, 1.05, 7.0])
def test_rows_of_another_norm_are_refused_with_the_norm_and_the_remedy(rows, norm, which, dtype):
    z, e = (each.to(dtype) for each in rows)
    wrong, strange = (spoilt(each, norm, dtype, which=which) for each in rows)
    similarity = rows[1] @ rows[1].T
    for name, loss, given in (
        ("z", xclr_loss, (wrong, similarity)),
        ("z", xclr_loss_from_embeddings, (wrong, e)),
        ("e", xclr_loss_from_embeddings, (z, strange)),
    ):
        with pytest.raises(ValueError, match=f"the rows of {name} have norm") as caught:
            loss(*given)
        said = str(caught.value)
        assert any(float(each) == pytest.approx(norm, rel=0.01) for each in re.findall(r"\d[\d.]*\b", said))
        assert f"torch.nn.functional.normalize({name}, dim=-1)" in said


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 2, 3, 128, 2048])
def test_rows_that_were_normalised_in_any_precision_pass(dtype, width):
    drawn = torch.randn(64, width, generator=torch.Generator().manual_seed(width)).add(0.3).mul(40).to(dtype)
    z = F.normalize(drawn, dim=1)
    for given in (z, z.float(), z.half()):
        xclr_loss_from_embeddings(given, given)
        xclr_loss(given, given @ given.T)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_that_were_normalised_under_autocast_pass(rows, dtype):
    layer = torch.nn.Linear(8, 16)
    with torch.autocast("cpu", dtype=dtype):
        z = F.normalize(layer(rows[0].float()), dim=1)
        e = F.normalize(layer(rows[0].float()), dim=1)
        for loss in (xclr_loss(z, e @ e.T), xclr_loss_from_embeddings(z, e)):
            loss.backward(retain_graph=True)
        with pytest.raises(ValueError, match="rows of z"):
            xclr_loss(layer(rows[0].float()), e @ e.T)


@pytest.mark.parametrize(("change", "seen"), [(lambda s: s / 0.1, "10"), (lambda s: s - 1.5, "-1"), (torch.exp, "2.7")])
def test_similarities_that_are_no_cosines_are_refused(rows, change, seen):
    z, e = rows
    with pytest.raises(ValueError, match=rf"similarity is from .*{seen}.*\[-1, 1\]") as caught:
        xclr_loss(z, change(e @ e.T))
    assert "torch.nn.functional.normalize(e, dim=-1)" in str(caught.value)


def test_a_row_of_zeros_is_not_sent_in_a_circle(rows):
    z, e = rows
    for name, call in {
        "z": lambda: xclr_loss(z * (torch.arange(32) != 3)[:, None], e @ e.T),
        "e": lambda: xclr_loss_from_embeddings(z, F.normalize(e * (torch.arange(32) != 3)[:, None], dim=-1)),
    }.items():
        with pytest.raises(ValueError, match=f"{name} has a row of zeros"):
            call()


def test_what_is_not_a_number_shows_in_the_loss(rows):
    """A scaler that skips such a step must get to see it."""
    z, e = rows
    z[3] = torch.nan
    assert xclr_loss(z, e @ e.T).isnan() and xclr_loss_from_embeddings(z, e).isnan()


def test_whoever_knows_may_leave_the_check_out(rows):
    z, e = rows
    assert xclr_loss(2 * z, 3 * e @ e.T, check=False).isfinite()
    plain, twin = xclr_loss(2 * z, 9 * e @ e.T, check=False), xclr_loss_from_embeddings(2 * z, 3 * e, check=False)
    torch.testing.assert_close(twin, plain)


def test_the_check_changes_neither_value_nor_gradient(rows):
    z, e = rows[0].requires_grad_(), rows[1]
    for loss in (lambda **how: xclr_loss(z, e @ e.T, **how), lambda **how: xclr_loss_from_embeddings(z, e, **how)):
        (first, slope), (second, other) = (
            (value, torch.autograd.grad(value, z)[0]) for value in (loss(), loss(check=False))
        )
        assert torch.equal(first, second) and torch.equal(slope, other)
