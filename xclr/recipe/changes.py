"""What of a training is otherwise for one objective."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError

from xclr.recipe.train import TrainConfig

SHARED = {  # fields that decide which pictures are seen, how, and in which order
    "decode": "methods would see different pixels",
    "epochs": "methods would see different numbers of pictures",
    "fraction": "methods would see different numbers of pictures",
    "neighbourhood_size": "methods would see pictures in different orders",
    "neighbourhoods": "methods would see pictures in different orders",
    "shuffle_shards": "methods would see pictures in different orders",
}


class Changes(dict[str, Any]):
    """Some fields of `TrainConfig` by name, sorted; nobody changes it, so that it has a hash."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def _checked(given: Mapping[str, Any]) -> Changes:
    """The fields as TrainConfig has them; raises ValueError for shared ones, others, and values that do not fit."""
    for key in given:
        if key not in TrainConfig.model_fields:
            near = difflib.get_close_matches(key, TrainConfig.model_fields, n=2)
            raise ValueError(
                f"{key} is no key of train ({'did you mean ' + ' or '.join(near) + '?' if near else 'see train'})"
            )
        if key in SHARED:
            raise ValueError(f"{key} is the same for all objectives: else {SHARED[key]}; set train.{key}")
    try:
        parsed = TrainConfig.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{place}: {fault['msg']} (got {fault['input']!r})" if place else fault["msg"]) from error
    return Changes((key, getattr(parsed, key)) for key in sorted(given))


TrainChanges = Annotated[dict[str, Any], AfterValidator(_checked)]
