"""Checkpoints: whole or absent, tensors and never programs."""

import pickle

import pytest
import torch

from tests.kit.home import TRAIN, build
from xclr.recipe import SimCLRConfig
from xclr.training import checkpoint
from xclr.training.checkpoint import Checkpoint
from xclr.training.optim import build_optimizer


class Anything:
    """An object that is no tensor."""


def state(value):
    return {"model": {"w": torch.full((3,), float(value))}}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save(folder, step, content, loss=1.0, keep=2):
    return checkpoint.save(folder, step, content, loss=loss, keep=keep)


def steps(folder):
    """Steps whose file and marker are both there, and nothing else is."""
    assert {path.suffix for path in folder.iterdir()} == {".pt", ".json"}
    weights, markers = ({path.stem for path in folder.glob(f"*.{each}")} for each in ("pt", "json"))
    assert weights == markers
    return sorted(int(name.removeprefix("step-")) for name in weights)


def test_what_was_saved_is_loaded(tmp_path):
    saved = save(tmp_path / "new" / "folder", 7, state(1.5))
    assert saved == Checkpoint(tmp_path / "new" / "folder" / "step-000000007.pt", 7)
    loaded = checkpoint.load(saved)
    assert loaded["step"] == 7 and torch.equal(loaded["model"]["w"], torch.full((3,), 1.5))


def test_the_latest_is_the_one_of_the_highest_step(tmp_path):
    for step in (9, 10, 100_000):
        save(tmp_path, step, state(step))
    found = checkpoint.latest(tmp_path)
    assert found.step == 100_000 and checkpoint.load(found)["model"]["w"][0] == 100_000


def test_there_is_no_latest_in_an_empty_or_absent_folder(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "absent") is None


def test_the_two_newest_are_kept(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step, state(step), loss=float(step))
    assert steps(tmp_path) == [1, 4, 5]  # the first is the best: none was better


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step, loss in enumerate((5.0, 3.0, 4.0, 4.5, 6.0), start=1):
        save(tmp_path, step, state(step), loss=loss)
    assert steps(tmp_path) == [2, 4, 5]
    save(tmp_path, 6, state(6), loss=1.0, keep=1)
    assert steps(tmp_path) == [6]


def test_a_half_written_file_is_no_checkpoint_and_pushes_none_out(tmp_path):
    saved = [save(tmp_path, step, state(step)) for step in (1, 2)]
    (tmp_path / ".step-000000003.pt.4711").write_bytes(b"PK\x03\x04 cut")
    assert checkpoint.latest(tmp_path) == saved[1]
    save(tmp_path, 3, state(3))
    assert steps(tmp_path)[-2:] == [2, 3]


def test_a_write_that_fails_leaves_the_old_file_and_no_checkpoint(tmp_path):
    saved = save(tmp_path, 1, state(1))
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        save(tmp_path, 1, state(2) | {"model": lambda: None})
    assert checkpoint.latest(tmp_path) == saved
    assert checkpoint.load(saved)["model"]["w"][0] == 1


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 4, state(1))
    again = save(tmp_path, 4, state(2))
    assert steps(tmp_path) == [4]
    assert checkpoint.load(again)["model"]["w"][0] == 2


def test_a_checkpoint_that_holds_an_object_is_refused(tmp_path):
    save(tmp_path, 1, {"model": Anything()})
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        checkpoint.load(checkpoint.latest(tmp_path))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_state_of_a_real_model_and_optimiser_survives(home, batches, tmp_path, name):
    model = build(SimCLRConfig(), home.paths)
    optimizer = build_optimizer(model, TRAIN.model_copy(update={"optimizer": name}))
    batch = batches.batch(0, 0, 1)
    model(batch.views, batch.rows, batch.looked).loss.backward()
    optimizer.step()
    kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    loaded = checkpoint.load(save(tmp_path, 1, kept))
    torch.testing.assert_close(loaded["model"], kept["model"], rtol=0, atol=0)
    torch.testing.assert_close(loaded["optimizer"]["state"], kept["optimizer"]["state"], rtol=0, atol=0)
    assert loaded["optimizer"]["param_groups"] == kept["optimizer"]["param_groups"]


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "marker"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_with_a_warning(tmp_path, caplog, damage):
    before, newest = (save(tmp_path, step, state(step)) for step in (1, 2))
    content = newest.path.read_bytes()
    if damage == "cut":
        newest.path.write_bytes(content[:-7])
    elif damage == "changed":
        newest.path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    elif damage == "gone":
        newest.path.unlink()
    else:
        newest.marker.write_text("{")
    assert checkpoint.latest(tmp_path) == before
    assert str(newest.path) in caplog.text and "damaged" in caplog.text


def test_without_its_marker_a_file_is_no_checkpoint(tmp_path):
    before, newest = (save(tmp_path, step, state(step)) for step in (1, 2))
    newest.marker.unlink()
    assert checkpoint.latest(tmp_path) == before


def test_when_all_are_damaged_there_is_none(tmp_path, caplog):
    for step in (1, 2):
        save(tmp_path, step, state(step)).path.write_bytes(b"x")
    assert checkpoint.latest(tmp_path) is None
    assert caplog.text.count("is damaged") == 2
