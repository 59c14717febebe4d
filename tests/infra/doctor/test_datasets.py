"""The doctor on data sets: there, not given, missing, partial, and ReaL beside ImageNet."""

from __future__ import annotations

import shutil

import pytest

from infra.doctor.datasets import check_dataset, check_datasets
from tests.kit import trees
from xclr.evaluation.datasets import LAYOUTS, READERS


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """All five."""
    base = tmp_path_factory.mktemp("sets")
    built = {
        "imagenet": trees.imagenet(base / "imagenet", classes=3, train=2, val=2),
        "real": trees.real(base / "real.json", classes=3, val=2),
        "imagenet9": trees.imagenet9(base / "imagenet9"),
        "objectnet": trees.objectnet(base / "objectnet"),
        "mit-states": trees.mit_states(base / "mit"),
    }
    return built | {"objectnet": trees.packed(built["objectnet"], base / "objectnet.tar")}


def test_all_that_are_there_are_counted(roots):
    found = list(check_datasets(roots))
    assert [each.check for each in found] == [*(f"data set {name}" for name in READERS), "ReaL labels"]
    assert {each.state for each in found} == {"ok"}
    counts = ["12 pictures, 3 classes", "6 pictures, 3 classes", "32 pictures, 2 classes", "4 pictures, 2 classes"]
    for finding, count in zip(found, [*counts, "15 pictures, 3 classes"], strict=False):
        assert finding.found.endswith(count)
    for finding, root in zip(found, roots.values(), strict=False):
        assert finding.found.startswith(str(root))
    assert found[-1].found == "one entry for each of 6 validation pictures"


def test_those_that_are_not_given_say_how_to_get_them():
    found = list(check_datasets({}))
    assert [each.check for each in found] == [f"data set {name}" for name in READERS]
    for name, each in zip(READERS, found, strict=True):
        assert (each.state, each.found) == ("optional", "not given")
        assert f"evaluate.roots.{name}" in each.remedy
        assert LAYOUTS[name].expected in each.remedy
        assert LAYOUTS[name].obtain in each.remedy


@pytest.mark.parametrize("name", READERS)
def test_a_root_that_is_missing_is_wrong(name, tmp_path):
    finding = check_dataset(name, tmp_path / "gone")
    assert (finding.state, f"{tmp_path / 'gone'} is missing" in finding.found) == ("wrong", True)
    assert LAYOUTS[name].expected in finding.remedy
    assert LAYOUTS[name].obtain in finding.remedy


def test_partial_data_are_wrong_and_the_others_are_checked_on(roots, tmp_path):
    partial = shutil.copytree(roots["imagenet"], tmp_path / "imagenet")
    shutil.rmtree(partial / "train" / trees.WNIDS[0])
    (partial / "train" / trees.WNIDS[0]).mkdir()
    found = list(check_datasets(roots | {"imagenet": partial}))
    assert [each.state for each in found] == ["wrong", "ok", "ok", "ok", "ok"]
    assert "partial" in found[0].found


def test_labels_for_fewer_pictures_than_imagenet_has_are_wrong(roots, tmp_path):
    short = trees.real(tmp_path / "real.json", classes=3, val=1)
    finding = list(check_datasets(roots | {"real": short}))[-1]
    assert (finding.check, finding.state) == ("ReaL labels", "wrong")
    assert finding.found.startswith("3 of 6 validation pictures have none: val/")
    assert "ILSVRC2012_val_0000000" in finding.found
    assert "reassessed-imagenet" in finding.remedy


def test_pictures_with_other_names_have_no_labels(roots, tmp_path):
    renamed = shutil.copytree(roots["imagenet"], tmp_path / "imagenet")
    for path in (renamed / "val").rglob("*.JPEG"):
        path.rename(path.with_name(path.name.replace("ILSVRC2012_", "")))
    finding = list(check_datasets(roots | {"imagenet": renamed}))[-1]
    assert (finding.state, finding.found[:6]) == ("wrong", "6 of 6")
