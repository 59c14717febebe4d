"""Digests: what names an artifact and what does not."""

import copy
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from xclr.artifact import Artifact, Digest, Manifest, canonical_json, digest, identity, is_runtime, sha256_file
from xclr.recipe import LATER, RUNTIME, Config, DataConfig, EmbedConfig, GraphConfig, Recipe, TrainConfig


class Size(Config):
    """A small config with a field of each sort."""

    name: str
    side: int
    share: float = 0.5
    folder: Path = Path("pictures")
    workers: int = Field(1, json_schema_extra=RUNTIME)


def made(kind: str, letter: str) -> Artifact:
    """An artifact with a digest of one letter."""
    return Artifact(kind, Digest(kind, letter * 32), Path("nowhere") / letter)


SIZE = Size(name="café", side=3)
INPUTS = (made("captions", "a"), made("images", "b"))


def test_a_digest_is_32_hex_characters_and_knows_its_kind():
    name = digest("images", SIZE, INPUTS, code=1)
    assert re.fullmatch("[0-9a-f]{32}", name)
    assert name.kind == "images"


def test_a_digest_stays_the_same_over_versions_and_machines():
    assert digest("images", SIZE, INPUTS, code=1) == "2ea600b6819b98cfcc74e94a0a2caa7e"


def test_a_digest_depends_on_kind_config_inputs_their_order_and_code():
    names = [
        digest("images", SIZE, INPUTS, code=1),
        digest("captions", SIZE, INPUTS, code=1),
        digest("images", SIZE, INPUTS, code=2),
        digest("images", SIZE, INPUTS[::-1], code=1),
        digest("images", SIZE, INPUTS[:1], code=1),
        digest("images", SIZE, (), code=1),
        digest("images", SIZE, (made("captions", "c"), INPUTS[1]), code=1),
        *(
            digest("images", SIZE.model_copy(update=change), INPUTS, code=1)
            for change in ({"name": "cafe"}, {"side": 4}, {"share": 0.25}, {"folder": Path("elsewhere")})
        ),
    ]
    assert len(set(names)) == len(names)


def test_a_digest_does_not_depend_on_where_its_inputs_lie():
    moved = tuple(Artifact(each.kind, each.digest, Path("moved") / each.kind) for each in INPUTS)
    assert digest("images", SIZE, moved, code=1) == digest("images", SIZE, INPUTS, code=1)


RUNTIME_FIELDS = [
    (Size(name="x", side=1), "workers", st.integers(1)),
    (EmbedConfig(), "batch_tokens", st.integers(1)),
    (GraphConfig(), "block", st.integers(1)),
    (TrainConfig(), "log_every", st.integers(1)),
    (TrainConfig(), "checkpoint_every", st.integers(1)),
    (DataConfig(), "path", st.none() | st.text(alphabet="abc/.", min_size=1).map(Path)),
]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), which=st.sampled_from(RUNTIME_FIELDS))
def test_runtime_fields_never_enter_a_digest(data, which):
    config, field, values = which
    changed = config.model_copy(update={field: data.draw(values)})
    assert is_runtime(type(config), field)
    assert digest("k", changed, (), code=1) == digest("k", config, (), code=1)


@settings(max_examples=50, deadline=None)
@given(
    batch_tokens=st.integers(1), block=st.integers(1), log_every=st.integers(1), checkpoint_every=st.integers(1),
    epochs=st.integers(1, 100),
)  # fmt: skip
def test_runtime_fields_are_left_out_of_nested_configs_too(batch_tokens, block, log_every, checkpoint_every, epochs):
    plain = Recipe(name="x", train=TrainConfig(epochs=epochs))
    tuned = Recipe(
        name="x",
        embed=EmbedConfig(batch_tokens=batch_tokens),
        graph=GraphConfig(block=block),
        train=TrainConfig(epochs=epochs, log_every=log_every, checkpoint_every=checkpoint_every),
    )
    assert digest("k", tuned, (), code=1) == digest("k", plain, (), code=1)
    assert (digest("k", plain, (), code=1) == digest("k", Recipe(name="x"), (), code=1)) == (
        epochs == TrainConfig().epochs
    )


def test_every_other_field_of_a_recipe_enters_the_digest():
    runtime = {
        f"{model.__name__}.{field}"
        for model in (DataConfig, EmbedConfig, GraphConfig, TrainConfig, Recipe)
        for field in model.model_fields
        if is_runtime(model, field)
    }
    assert runtime == {
        "DataConfig.path", "DataConfig.url", "EmbedConfig.batch_tokens", "EmbedConfig.shard", "GraphConfig.block",
        "GraphConfig.part",
        "TrainConfig.log_every",
        "TrainConfig.checkpoint_every", "TrainConfig.keep_checkpoints", "TrainConfig.stuck_after_s",
        "TrainConfig.stop_dead",
        "TrainConfig.watch_every", "TrainConfig.workers",
        "TrainConfig.activation_checkpointing", "TrainConfig.blockwise_from",
    }  # fmt: skip


def test_a_field_that_came_later_renames_no_output_that_was_there_before():
    class Before(Config):
        side: int

    class Now(Before):
        kind: str = Field("round", json_schema_extra=LATER)

    assert digest("k", Now(side=3), (), code=1) == digest("k", Before(side=3), (), code=1)
    others = [digest("k", Now(side=3, kind=kind), (), code=1) for kind in ("square", "oval")]
    assert len({*others, digest("k", Now(side=3), (), code=1)}) == 3


def test_identity_is_plain_json():
    assert identity(SIZE) == {"name": "café", "side": 3, "share": 0.5, "folder": "pictures"}
    assert identity({"a": (SIZE, None), 1: [True]}) == {"a": [identity(SIZE), None], "1": [True]}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_canonical_json_refuses_what_is_no_number(number):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"value": [number]})


def test_canonical_json_has_one_spelling():
    assert canonical_json({"b": [1, 2.5, None, True], "a": "é"}) == '{"a":"é","b":[1,2.5,null,true]}'


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()), st.randoms())
def test_canonical_json_does_not_depend_on_the_order_of_keys(mapping, random):
    keys = list(mapping)
    random.shuffle(keys)
    assert canonical_json({key: mapping[key] for key in keys}) == canonical_json(mapping)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_digest_survives_pickle(protocol):
    name = Digest("images", "ab" * 16)
    back = pickle.loads(pickle.dumps(name, protocol))
    assert (back, back.kind, type(back)) == (name, "images", Digest)
    artifact = Artifact("images", name, Path("here"))
    again = pickle.loads(pickle.dumps(artifact, protocol))
    assert again == artifact
    assert again.digest.kind == "images"


def test_a_digest_survives_copies():
    name = Digest("images", "ab" * 16)
    for back in (copy.copy(name), copy.deepcopy(name)):
        assert (back, back.kind) == (name, "images")


def test_a_manifest_survives_json():
    manifest = Manifest(
        kind="images", digest="ab" * 16, inputs=("cd" * 16,), config=identity(SIZE), code=1, stats={"rows": 3},
        files=({"path": "a.parquet", "bytes": 5, "rows": 3, "sha256": "0"},), created="2025-01-01T00:00:00Z",
    )  # fmt: skip
    assert isinstance(manifest, BaseModel)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "abc") == expected
