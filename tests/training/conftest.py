"""One small home for all tests of training."""

import pytest

from tests.kit.home import TRAIN, make_home, one_thread
from xclr.training import PictureBatches


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def batches(home):
    return PictureBatches.open(home.paths["captions"], home.paths["images"], TRAIN, seed=0)
