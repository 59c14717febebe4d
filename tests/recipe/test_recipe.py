"""Recipes: defaults, overrides, and every fault named with its key."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from xclr.errors import RecipeError
from xclr.recipe import (
    OBJECTIVE_MODELS,
    OBJECTIVE_NAMES,
    CLIPConfig,
    CWCLConfig,
    DataConfig,
    GraphConfig,
    GraphSource,
    RandomConfig,
    Recipe,
    SimCLRConfig,
    SupConConfig,
    TargetGraph,
    TextConfig,
    TrainConfig,
    XCLRConfig,
    details,
    graph_name,
    load_recipe,
    method_name,
    parse_recipe,
    recipe_names,
    with_overrides,
)

EVERY_OBJECTIVE = "objectives: [simclr, supcon, clip, {name: clip, text: frozen}, xclr, random]"


def written(folder: Path, text: str | bytes, name: str = "mine.yaml") -> str:
    """A recipe file with that content."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def fault(folder: Path, text: str | bytes, *sets: str) -> RecipeError:
    """The error that reading the recipe raises."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(folder, text), sets)
    assert caught.value.message
    assert caught.value.remedy
    return caught.value


def test_a_recipe_of_one_line_has_every_default(tmp_path):
    recipe = load_recipe(written(tmp_path, "data: {source: emoji}"))
    assert recipe.name == "mine"
    assert recipe == Recipe(name="mine")
    assert [each.name for each in recipe.objectives] == ["simclr", "supcon", "clip", "xclr"]
    assert recipe.seeds == (0,)
    assert recipe.evaluate.suites == ("linear",)
    assert recipe.embed.model == "sentence-transformers/all-MiniLM-L6-v2"
    assert (recipe.graph.source, recipe.graph.k) == ("captions", 32)
    assert recipe.train == TrainConfig()
    assert recipe.data.limit is None


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_by_name(name):
    assert load_recipe(name).name == name


def test_the_shipped_recipes_are_the_ones_people_are_told_of():
    assert {"emoji", "smoke"} <= set(recipe_names())


def test_objectives_may_be_names_or_mappings(tmp_path):
    text = "objectives: [simclr, {name: xclr, target_temperature: 0.05, graph: {source: random_class, seed: 3}}]"
    simclr, xclr = load_recipe(written(tmp_path, text)).objectives
    assert simclr == SimCLRConfig()
    assert isinstance(xclr, XCLRConfig)
    assert xclr.target_temperature == 0.05
    assert (xclr.graph.source, xclr.graph.seed) == ("random_class", 3)


def test_recipes_and_their_parts_are_frozen():
    recipe = Recipe(name="mine")
    parts = [recipe, recipe.data, recipe.embed, recipe.graph, recipe.train, recipe.evaluate, *recipe.objectives]
    for part in parts:
        field = next(iter(type(part).model_fields))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, field, getattr(part, field))


def test_a_relative_table_lies_beside_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    source = written(tmp_path / "there", "data: {source: table, path: captions.parquet}")
    monkeypatch.chdir(tmp_path)
    assert load_recipe(source).data.path == tmp_path / "there" / "captions.parquet"
    assert load_recipe("there/mine.yaml").data.path == tmp_path / "there" / "captions.parquet"


def test_a_relative_table_lies_beside_a_recipe_file_without_a_suffix(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    written(tmp_path / "there", "data: {source: table, path: captions.parquet}", name="mine")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("there/mine").data.path == tmp_path / "there" / "captions.parquet"


def test_an_absolute_table_stays_where_it_is(tmp_path):
    source = written(tmp_path, "data: {source: table, path: /data/captions.parquet}")
    assert load_recipe(source).data.path == Path("/data/captions.parquet")


@pytest.mark.parametrize(("given", "near"), [("emojis", "emoji"), ("smok", "smoke")])
def test_an_unknown_recipe_is_told_the_nearest_name(given, near):
    with pytest.raises(RecipeError) as caught:
        load_recipe(given)
    assert given in caught.value.message
    assert near in caught.value.remedy


@pytest.mark.parametrize("source", ["nowhere/mine.yaml", "mine.yaml", "nowhere/mine"])
def test_a_missing_recipe_file_is_told_the_named_recipes(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_recipe(source)
    assert source in caught.value.message
    for name in recipe_names():
        assert name in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("trian: {}", "trian", "train"),
        ("objective: [xclr]", "objective", "objectives"),
        ("train: {epoch: 1}", "train.epoch", "epochs"),
        ("data: {pth: a.parquet}", "data.pth", "path"),
        ("embed: {modle: x}", "embed.modle", "model"),
        ("graph: {cut_off: 0.5}", "graph.cut_off", "cutoff"),
        ("graph: {sorce: captions}", "graph.sorce", "source"),
        ("evaluate: {suite: [linear]}", "evaluate.suite", "suites"),
        ("objectives: [{name: xclr, target_temprature: 1}]", "objectives.0.target_temprature", "target_temperature"),
        ("objectives: [clip, {name: simclr, temprature: 1}]", "objectives.1.temprature", "temperature"),
        ("objectives: [{name: xclr, graph: {sorce: captions}}]", "objectives.0.graph.sorce", "source"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(text, key, near, tmp_path):
    message = fault(tmp_path, text).message
    assert repr(key) in message
    assert f"did you mean {near}" in message


def test_a_key_of_another_objective_is_unknown(tmp_path):
    message = fault(tmp_path, "objectives: [{name: simclr, target_temperature: 0.2}]").message
    assert "'objectives.0.target_temperature'" in message


def test_a_key_like_no_other_is_told_the_known_keys(tmp_path):
    message = fault(tmp_path, "zzz: 1").message
    for key in Recipe.model_fields:
        assert key in message


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_an_unknown_key_may_be_spelled_like_an_objective(name, tmp_path):
    assert f"'{name}'" in fault(tmp_path, f"{name}: {{temperature: 0.2}}").message
    assert f"'train.{name}'" in fault(tmp_path, f"train: {{{name}: 1}}").message
    assert f"'objectives.0.{name}'" in fault(tmp_path, f"objectives: [{{name: simclr, {name}: 1}}]").message


@pytest.mark.parametrize(
    ("text", "key", "given"),
    [
        ("train: {epochs: many}", "train.epochs", "'many'"),
        ("train: {epochs: 1.5}", "train.epochs", "1.5"),
        ("train: {epochs: 0}", "train.epochs", "0"),
        ("train: {batch_size: 1}", "train.batch_size", "1"),
        ("train: {learning_rate: -1}", "train.learning_rate", "-1"),
        ("train: {learning_rate: .nan}", "train.learning_rate", "nan"),
        ("train: 5", "train", "5"),
        ("train:", "train", "None"),
        ("data: {limit: 0}", "data.limit", "0"),
        ("data: {limit: [1]}", "data.limit", "[1]"),
        ("graph: {cutoff: 2}", "graph.cutoff", "2"),
        ("seeds: 0", "seeds", "0"),
        ("seeds: [zero]", "seeds.0", "'zero'"),
        ("seeds: []", "seeds", "the list is empty (got [])"),
        ("seeds:", "seeds", "it is a list: [...], or --set 'seeds=[...]'"),
        ("seeds: [-1]", "seeds.0", "-1"),
        ("seeds: [2147483648]", "seeds.0", "2147483648"),
        ("seeds: [18446744073709551616]", "seeds.0", "18446744073709551616"),
        ("seeds: [0, 0]", "seeds", "the same entry stands twice"),
        ("objectives: []", "objectives", "[]"),
        ("objectives: xclr", "objectives", "'xclr'"),
        ("objectives: [[xclr]]", "objectives.0", "['xclr']"),
        ("objectives: [{name: xclr, target_temperature: 0}]", "objectives.0.target_temperature", "0"),
        ("objectives: [{name: xclr, target_temperature: low}]", "objectives.0.target_temperature", "'low'"),
        ("train: {views: autoaugment, decode: gpu}", "train", "decode: gpu is for views: simclr, and views is autoa"),
        ("name: two words", "name", "'two words'"),
        ("name: 5", "name", "5"),
        ("1: 2", "1", "1"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named_with_its_key(text, key, given, tmp_path):
    message = fault(tmp_path, text).message
    assert f": {key}: " in message
    assert given in message


@pytest.mark.parametrize(
    "key", ["train.learning_rate", "train.weight_decay", "objective.temperature", "objective.max_scale"]
)
def test_an_infinite_number_is_refused(key, tmp_path):
    assert key.split(".")[1] in fault(tmp_path, EVERY_OBJECTIVE, f"{key}=.inf").message


@pytest.mark.parametrize(
    ("text", "key", "choices"),
    [
        ("data: {source: tabel}", "data.source", ("emoji", "table")),
        ("train: {optimizer: adam}", "train.optimizer", ("adamw", "sgd")),
        ("train: {backbone: resnet5}", "train.backbone", ("resnet-mini", "resnet50")),
        ("graph: {source: caption}", "graph.source", ("captions", "random_class")),
        ("evaluate: {suites: [liner]}", "evaluate.suites.0", ("linear", "keywords", "imagenet9")),
        ("objectives: [{name: clip, text: frosen}]", "objectives.0.text", ("scratch", "frozen")),
    ],
)
def test_a_value_that_is_no_choice_is_told_the_choices(text, key, choices, tmp_path):
    message = fault(tmp_path, text).message
    assert key in message
    for choice in choices:
        assert choice in message


@pytest.mark.parametrize(
    ("entry", "near"), [("xcl", "xclr"), ("{name: simclar}", "simclr"), ("supercon", "supcon"), ("[clip]", "")]
)
def test_an_unknown_objective_is_told_the_nearest(entry, near, tmp_path):
    message = fault(tmp_path, f"objectives: [random, {entry}]").message
    assert "objectives.1" in message
    assert near in message


def test_an_objective_without_a_name_is_told_the_names(tmp_path):
    message = fault(tmp_path, "objectives: [{temperature: 0.2}]").message
    for name in OBJECTIVE_NAMES:
        assert name in message


@pytest.mark.parametrize(
    "entries", ["[xclr, xclr]", "[xclr, clip, {name: xclr}]", "[xclr, {name: xclr, target_temperature: 0.1}]"]
)
def test_the_same_objective_twice_is_refused(entries, tmp_path):
    assert "objectives" in fault(tmp_path, f"objectives: {entries}").message


def test_the_same_method_with_other_values_is_no_repetition(tmp_path):
    text = "objectives: [clip, {name: clip, text: frozen}, xclr, {name: xclr, target_temperature: 0.2}]"
    assert len(load_recipe(written(tmp_path, text)).objectives) == 4


def test_the_same_seed_twice_is_refused(tmp_path):
    assert "seeds" in fault(tmp_path, "seeds: [0, 1, 0]").message


def test_the_same_suite_twice_is_refused(tmp_path):
    assert "suites" in fault(tmp_path, "evaluate: {suites: [linear, linear]}").message


def test_a_table_needs_its_path(tmp_path):
    message = fault(tmp_path, "data: {source: table}").message
    assert "data" in message
    assert "path" in message


def test_every_fault_is_reported_at_once(tmp_path):
    text = "{trian: {}, train: {epoch: 1, optimizer: adam}, objectives: [xcl], seeds: [a]}"
    message = fault(tmp_path, text).message
    for key in ("trian", "train.epoch", "train.optimizer", "objectives.0", "seeds.0"):
        assert key in message


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    error = fault(tmp_path, "name: mine # caf\xe9".encode("latin-1"))
    assert "mine.yaml is not UTF-8" in error.message


@pytest.mark.parametrize("text", ["", "5", "just words", "- emoji", "# only a remark"])
def test_a_file_without_keys_is_named(text, tmp_path):
    assert "mine.yaml does not hold keys and values" in fault(tmp_path, text).message


@pytest.mark.parametrize(
    "text",
    ["train: [", "a: b: c", "\tname: x", "x: !!python/object/apply:os.getcwd []", "{[1]: 2}", "name: \x00"],
)
def test_broken_yaml_is_named(text, tmp_path):
    assert "mine.yaml" in fault(tmp_path, text).message


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.epochs=2", lambda recipe: recipe.train.epochs == 2),
        ("train.learning_rate=1e-3", lambda recipe: recipe.train.learning_rate == 1e-3),
        ("train.backbone=resnet18", lambda recipe: recipe.train.backbone == "resnet18"),
        ("data.limit=7", lambda recipe: recipe.data.limit == 7),
        ("data.limit=null", lambda recipe: recipe.data.limit is None),
        ("seeds=[1, 2]", lambda recipe: recipe.seeds == (1, 2)),
        ("objectives=[simclr]", lambda recipe: recipe.objectives == (SimCLRConfig(),)),
        ("graph={k: 4}", lambda recipe: recipe.graph == GraphConfig(k=4)),
        ("evaluate.suites=[keywords]", lambda recipe: recipe.evaluate.suites == ("keywords",)),
    ],
)
def test_an_override_replaces_one_value(override, read, tmp_path):
    source = written(tmp_path, "{data: {limit: 3}, train: {epochs: 9, width: 8}}")
    recipe = load_recipe(source, [override])
    assert read(recipe)
    assert recipe.train.width == 8


def test_an_overrides_value_may_hold_an_equals_sign(tmp_path):
    assert load_recipe(written(tmp_path, "name: x"), ["embed.model=a=b"]).embed.model == "a=b"


def test_the_last_override_counts(tmp_path):
    assert load_recipe(written(tmp_path, "name: x"), ["train.epochs=2", "train.epochs=3"]).train.epochs == 3


def objectives_with(tmp_path, text, *sets):
    return load_recipe(written(tmp_path, text), sets).objectives


def test_an_objective_override_reaches_every_entry_with_the_field_and_no_other(tmp_path):
    text = "objectives: [simclr, clip, xclr, {name: xclr, graph: {source: random_class}}]"
    before, after = objectives_with(tmp_path, text), objectives_with(tmp_path, text, "objective.target_temperature=0.2")
    assert [each.target_temperature for each in after if isinstance(each, XCLRConfig)] == [0.2, 0.2]
    assert after[:2] == before[:2]
    assert after[3].graph == before[3].graph


def test_an_objective_override_reaches_the_default_objectives(tmp_path):
    after = objectives_with(tmp_path, "name: x", "objective.target_temperature=0.2")
    assert after == (SimCLRConfig(), SupConConfig(), CLIPConfig(), XCLRConfig(target_temperature=0.2))


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0.25), ("target_temperature", 0.25), ("init_temperature", 0.25), ("max_scale", 25.0)],
)
def test_objective_overrides_go_by_field(field, value, tmp_path):
    after = objectives_with(tmp_path, EVERY_OBJECTIVE, f"objective.{field}={value}")
    for before, each in zip(objectives_with(tmp_path, EVERY_OBJECTIVE), after, strict=True):
        has = field in type(each).model_fields
        assert each == (before.model_copy(update={field: value}) if has else before)
    assert any(field in model.model_fields for model in OBJECTIVE_MODELS)


def test_an_objective_override_reaches_into_its_graph(tmp_path):
    after = objectives_with(tmp_path, "objectives: [simclr, xclr]", "objective.graph.source=random_class")
    assert after[0] == SimCLRConfig()
    assert after[1].graph.source == "random_class"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs", "train.epochs"),
        ("=3", "=3"),
        ("train.epochs=[1", "train.epochs"),
        ("name.first=3", "name.first"),
        ("objective=3", "objective"),
        ("objective.temprature=3", "did you mean temperature"),
        ("objective.name=clip", "'name'"),
        ("objective.graph.sorce=captions", "did you mean source"),
        ("train.epoch=3", "did you mean epochs"),
        ("trian.epochs=3", "did you mean train"),
        ("train..epochs=3", "train."),
        ("train.epochs=many", "train.epochs"),
        ("objectives.0=simclr", "objectives"),
        ("objective.target_temperature=-1", "target_temperature"),
        ("train.epochs=2001-13-45", "train.epochs"),
    ],
)
def test_a_faulty_override_is_named(override, said, tmp_path):
    error = fault(tmp_path, "name: mine", override)
    assert said in str(error)


@pytest.mark.parametrize(
    "objectives", ["", "3", "xclr", "{xclr: {}}", "[[xclr]]", "[5]", "[null]", "[{name: [xclr]}]", "[{name: xcl}]"]
)
def test_an_objective_override_over_faulty_objectives_names_these(objectives, tmp_path):
    assert "objectives" in fault(tmp_path, f"objectives: {objectives}", "objective.temperature=0.2").message


WORDS = st.sampled_from([*Recipe.model_fields, *TrainConfig.model_fields, *OBJECTIVE_NAMES, "source", "k", "suites"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(raw=st.dictionaries(WORDS, VALUES, max_size=4))
def test_whatever_a_mapping_holds_it_is_a_recipe_or_a_recipe_error(raw):
    try:
        recipe = parse_recipe({"name": "mine", **raw}, where="mine.yaml")
    except RecipeError as error:
        assert error.message.startswith("mine.yaml")
    else:
        assert parse_recipe(recipe.model_dump(mode="json"), where="mine.yaml") == recipe


def test_method_names_say_what_differs_from_the_defaults():
    assert method_name(SimCLRConfig()) == "simclr"
    assert method_name(CLIPConfig(text="frozen")) == "clip-frozen"
    assert method_name(XCLRConfig(target_temperature=0.2)) == "xclr target_temperature=0.2"
    assert method_name(CLIPConfig(local=1, words_left_out=0.3)) == "clip local=1.0 words_left_out=0.3"
    assert method_name(XCLRConfig(graph=GraphConfig(source="random_class"))) == "xclr"


def test_what_is_otherwise_for_one_objective_is_told_beside_its_name():
    assert details(CLIPConfig(text="frozen")) == {}
    clip = CLIPConfig(text={"layers": 6}, label_smoothing=0.1, train={"optimizer": "sgd", "learning_rate": 0.1})
    assert method_name(clip) == "clip-bpe"
    assert details(clip) == {
        "train.learning_rate": 0.1, "train.optimizer": "sgd", "label_smoothing": 0.1, "text.width": 512,
        "text.layers": 6, "text.heads": 8, "text.context": 77, "text.tokens": "bpe", "text.dropout": 0.0,
    }  # fmt: skip
    assert clip.trained(TrainConfig(epochs=3)) == TrainConfig(epochs=3, optimizer="sgd", learning_rate=0.1)
    assert len({clip, CLIPConfig.model_validate_json(clip.model_dump_json())}) == 1


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            "train: {epochs: 3}",
            "epochs is the same for all objectives: else methods would see different numbers of pic",
        ),
        ("train: {fraction: 0.5}", "fraction is the same for all objectives: else methods would see different numbers"),
        (
            "train: {shuffle_shards: 3}",
            "shuffle_shards is the same for all objectives: else methods would see pictures in",
        ),
        (
            "train: {neighbourhoods: 0.5}",
            "neighbourhoods is the same for all objectives: else methods would see pictures in",
        ),
        ("train: {neighbourhood_size: 8}", "neighbourhood_size is the same for all objectives: else methods would see"),
        ("train: {optimiser: sgd}", "optimiser is no key of train (did you mean optimizer?)"),
        ("train: {learning_rate: -1}", "learning_rate: Input should be greater than 0 (got -1)"),
        ("train: {backbone: vit-small, image_size: 40}", "image_size 40 is no multiple of 16"),
        ("train: {image_size: 40}", "objectives.0.train: Value error, image_size 40 is no multiple of 16"),
        ("text: froze", "objectives.0.text: 'froze' is not one of 'scratch' or 'frozen' (did you mean frozen?)"),
        ("text: {tokens: sentencepiece}", "objectives.0.text.tokens: 'sentencepiece' is not one of 'bpe' or 'words'"),
        ("text: {layer: 3}", "unknown key 'objectives.0.text.layer' (did you mean layers?)"),
        ("text: {width: 100}", "8 heads do not divide the width 100"),
        ("text: frozen, local: 1", "local leaves out words, and frozen reads a caption's vector: choose another text"),
    ],
)
def test_changes_and_towers_that_cannot_be_are_named(entry, said, tmp_path):
    text = "train: {backbone: vit-small, image_size: 32}\nobjectives: [{name: clip, " + entry + "}]"
    assert said in fault(tmp_path, text).message


def test_two_entries_that_a_table_could_not_tell_apart_are_refused(tmp_path):
    message = fault(tmp_path, "objectives: [clip, {name: clip, train: {optimizer: sgd}}]").message
    assert "could not tell two entries called clip apart" in message
    assert (
        "clip-bpe" in fault(tmp_path, "objectives: [{name: clip, text: {}}, {name: clip, text: {layers: 6}}]").message
    )


def test_the_largest_batch_is_that_of_any_objective():
    recipe = parse_recipe({"name": "m", "objectives": ["simclr", {"name": "clip", "train": {"batch_size": 512}}]}, "m")
    assert recipe.largest_batch == ("objectives.1.train.batch_size", 512)
    assert load_recipe("smoke").largest_batch == ("train.batch_size", 128)


@pytest.mark.parametrize(
    ("name", "layers", "decay", "dropout", "smoothing"),
    [
        ("cc3m", 6, 0.5, 0.2, 0.1),
        ("cc12m", 12, 0.1, 0.05, 0.0),
    ],
)
def test_clip_of_conceptual_captions_is_that_of_its_source(name, layers, decay, dropout, smoothing):
    """clip-rocket on the same data; the frozen row differs in the text alone."""
    recipe = load_recipe(name)
    clip, frozen = (each for each in recipe.objectives if isinstance(each, CLIPConfig))
    assert clip.text == TextConfig(width=512, layers=layers, heads=8, context=77, tokens="bpe", dropout=dropout)
    assert frozen == clip.model_copy(update={"text": "frozen"}) and clip.label_smoothing == smoothing
    train = clip.trained(recipe.train)
    assert (train.optimizer, train.peak_rate, train.betas, train.weight_decay) == ("adamw", 3e-3, (0.9, 0.98), decay)
    assert (train.warmup_fraction * train.epochs, train.final_learning_rate) == (1, 1e-5)
    assert (train.batch_size, train.projector, train.projector_out) == (4096, "linear", 256)
    assert train.model_copy(update={key: getattr(recipe.train, key) for key in clip.train}) == recipe.train


def test_methods_say_what_they_use():
    used = {method_name(each): each.uses for each in load_recipe("emoji").objectives}
    assert used["simclr"] == ("pixels",) and used["supcon"] == ("pixels", "labels")
    assert used["clip"] == ("pixels", "captions")
    assert used["clip-frozen"] == ("pixels", "captions", "pretrained text model")
    own = {"matrix": {"path": "a.npy"}, "edges": {"path": "a.parquet"}, "python": {"function": "a:b"}}
    every = {source: TargetGraph(source=source, **own.get(source, {})) for source in get_args(GraphSource)}
    graphs = {source: XCLRConfig(graph=each).uses[1:] for source, each in every.items()}
    assert graphs == {
        "captions": ("captions", "pretrained text model"), "knn": ("captions", "pretrained text model"),
        "random_pair": ("captions", "pretrained text model"), "permuted": ("captions", "pretrained text model"),
        "matrix": ("labels", "own graph"), "edges": ("own graph",), "python": ("own graph",),
        "class_captions": ("labels", "pretrained text model"),
        "random_class": ("labels", "pretrained text model"), "wordnet": ("labels", "WordNet"), "class": ("labels",),
        "augmentation": (), "shuffled": ("captions", "pretrained text model"), "truth": ("factors",),
    }  # fmt: skip
    assert CWCLConfig(text="frozen").uses == ("pixels", "captions", "pretrained text model")
    assert RandomConfig().uses == ()


def test_every_objective_has_a_graph_name():
    shuffled = XCLRConfig(graph=TargetGraph(source="random_class", seed=2))
    assert [graph_name(shuffled, source) for source in ("imagenet", "emoji")] == ["random_class-2", "random_concept-2"]
    assert [graph_name(SupConConfig(classes=each), "emoji") for each in ("judged", "concepts")] == ["class", "concept"]
    names = {model.model_fields["name"].default: graph_name(model(), "cc3m") for model in OBJECTIVE_MODELS}
    assert names == {
        "simclr": "augmentation", "supcon": "class", "xclr": "captions", "dcl": "augmentation", "dclw": "augmentation",
        "clip": "pairs", "cwcl": "captions", "softclip": "pairs", "cloob": "pairs", "random": "none",
        "siglip": "pairs", "softsiglip": "captions", "clip-lite": "pairs", "cacr": "augmentation", "mw": "augmentation",
        "auc": "augmentation", "swav": "prototypes", "moco": "augmentation", "mochi": "augmentation", "ressl": "keys",
    }  # fmt: skip


@pytest.mark.parametrize("source", ["table", "folder", "cc3m", "cc12m", "imagenet"])
def test_every_source_but_the_emoji_needs_a_path(source, tmp_path):
    message = fault(tmp_path, f"data: {{source: {source}}}").message
    assert f"source {source} needs `path`" in message


def test_pictures_to_judge_start_at_the_recipe_and_are_no_address(tmp_path):
    judged = load_recipe(written(tmp_path, "evaluate: {data: {source: table, path: x.csv}}")).judged
    assert judged.path == tmp_path / "x.csv"
    message = fault(tmp_path, "evaluate: {data: {source: cc3m, url: 'http://host/a.tsv'}}").message
    assert "evaluate.data" in message and "`path`" in message


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "a {name}"])
def test_a_template_has_one_place_for_the_name(template, tmp_path):
    message = fault(tmp_path, f"data: {{source: folder, path: x, caption_template: '{template}'}}").message
    assert "data.caption_template" in message
    assert "{} once" in message


def test_a_recipe_of_a_newer_format_is_told_to_upgrade_before_its_keys_are_judged(tmp_path):
    for text in ("version: 2\nnovelty: 1", "{version: 3, objectives: [{name: xclr, novel: 1}]}"):
        error = fault(tmp_path, text)
        assert "was written for a newer xclr" in error.message
        assert "this one reads 1" in error.message
        assert "unknown key" not in error.message
        assert error.remedy == "upgrade xclr"
    assert load_recipe(written(tmp_path, "version: 1")).version == 1


@pytest.mark.parametrize("name", ["cc3m", "imagenet"])
def test_the_data_of_a_named_recipe_lie_below_the_current_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = load_recipe(name).data.path
    assert path.is_absolute()
    assert path.parent == tmp_path / "data"


@pytest.mark.parametrize("name", ["cc3m", "cc12m", "imagenet"])
def test_the_named_recipes_of_the_paper_keep_its_settings(name):
    recipe = load_recipe(name)
    train = recipe.train
    assert (train.backbone, train.image_size, train.batch_size, train.epochs) == ("resnet50", 224, 1024, 100)
    assert (train.projector_hidden, train.projector_out, train.weight_decay) == (2048, 128, 1e-6)
    assert train.learning_rate == (0.075 if name == "imagenet" else 0.1)
    assert (recipe.embed.model, recipe.embed.precision) == ("sentence-transformers/all-mpnet-base-v2", "float16")


@pytest.mark.parametrize("model", [DataConfig, TrainConfig])
def test_every_field_of_the_data_and_the_training_says_what_it_is(model):
    assert all(field.description for field in model.model_fields.values())


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01])
def test_a_share_of_the_training_pictures_is_above_0_and_at_most_1(fraction):
    with pytest.raises(RecipeError, match=r"train\.fraction"):
        load_recipe("smoke", (f"train.fraction={fraction}",))
    assert load_recipe("smoke").train.fraction == 1


def test_overrides_change_a_loaded_recipe_as_they_change_a_file():
    recipe = load_recipe("smoke")
    assert with_overrides(recipe, ()) is recipe
    changes = ("train.epochs=7", "objective.target_temperature=0.5", "name=other")
    assert with_overrides(recipe, changes) == load_recipe("smoke", changes)
    with pytest.raises(RecipeError, match=r"recipe smoke: unknown key 'train.epoch'"):
        with_overrides(recipe, ("train.epoch=2",))


@pytest.mark.parametrize(
    ("name", "rate", "views"), [("imagenet", 0.075, "autoaugment"), ("cc3m", 0.1, "simclr"), ("cc12m", 0.1, "simclr")]
)
def test_the_papers_recipes_hold_its_settings(name, rate, views):
    train = load_recipe(name).train
    assert (train.backbone, train.projector_hidden, train.projector_out) == ("resnet50", 2048, 128)
    assert (train.optimizer, train.learning_rate, train.lr_rule) == ("lars", rate, "sqrt")
    assert (train.epochs, train.batch_size, train.weight_decay, train.warmup_fraction) == (100, 1024, 1e-6, 0.1)
    assert (train.views, train.image_size, train.min_crop) == (views, 224, 0.08)
