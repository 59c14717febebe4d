"""A fixed share of `make fuzz`."""

from random import Random

import pytest

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS

INPUTS = 60


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_strangers_send_is_read_or_refused(name, tmp_path):
    target, rng = TARGETS[name], Random(name)
    with target.checking(tmp_path) as check:
        for data in target.corpus:
            check(data)
        for _ in range(INPUTS):
            check(mutated(rng.choice(target.corpus), rng))
