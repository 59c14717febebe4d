"""YAML as people write it: what is read, what is refused, and on which line."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.cluster import load_cluster
from xclr.errors import RecipeError
from xclr.printable import acts
from xclr.recipe import YAMLError, dump_yaml, load_recipe, parse_yaml, read_yaml
from xclr.study.spec import load_study
from xclr.sweep.load import load_sweep, parse_values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1.5E+2", 150.0), (".5", 0.5), ("7", 7), ("-7", -7), ("1_000", 1000), ("0", 0), ("0x1F", 31),
        ("0o17", 15), (".inf", math.inf), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("2024-01-31", "2024-01-31"), ("'010'", "010"),
        ('"1:30"', "1:30"), ("1:80", "1:80"), ("host:8000", "host:8000"), ("=", "="), ("e5", "e5"), ("1e", "1e"),
    ],
)  # fmt: skip
def test_values_are_what_they_look_like(text, value):
    found = parse_yaml(f"[{text}]" if text else "x:")
    assert found == ([value] if text else {"x": None}) and type(next(iter(found))) in {type(value), str}


@pytest.mark.parametrize("text", ["010", "-017", "089", "00", "0b11", "1:30", "12:30:45", "1:30.5", "{010: a}"])
def test_what_may_be_read_as_two_numbers_is_refused_on_its_line(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"a: 1\n\nb:\n  - {text}\n")
    with pytest.raises(RecipeError, match=r"mine\.yaml, line 4: .* is no plain number"):
        read_yaml(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: a stands twice, first on line 1"),
        ("a:\n  b: {c: 1, c: 2}\n", "line 2: c stands twice, first on line 2"),
        ("a: 1\n'a': 2\n", "line 2: a stands twice"),
        ("a: [\n\n", "line 3: is not YAML: "),
        ("\tname: x", "line 1: is not YAML: "),
        ("x: !!python/object/apply:os.getcwd []", "line 1: is not YAML: could not determine a constructor"),
        ("a: \x00", "is not YAML: unacceptable character"),
        ("[" * 600, "is not YAML: "),
        ("a: " + "9" * 5000, "is not YAML: "),
    ],
)
def test_faults_are_one_line_and_name_theirs(text, said, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_yaml(tmp_path / "mine.yaml")
    assert said in caught.value.message and "\n" not in caught.value.message and caught.value.remedy


def test_merged_keys_may_be_given_anew():
    text = "deep: {more: &a {<<: &b {x: 1, y: 2}, x: 3}}\nown: {<<: *a, y: 4}\n"
    assert parse_yaml(text)["own"] == {"x": 3, "y": 4}


TEXT = st.text(alphabet="a1e.:-+_0ü #'\"\n", min_size=1, max_size=6)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
DOUBTFUL = st.sampled_from(["010", "089", "1:30", "1e3", "yes", "on", "null", "~", "0x1f", "2024-01-31", "<<", ".5"])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(TEXT | DOUBTFUL, PLAIN | DOUBTFUL | st.lists(PLAIN | DOUBTFUL, max_size=3), max_size=3))
def test_what_is_written_is_read_again(content):
    assert parse_yaml(dump_yaml(content)) == content


RECIPE = """name: mine
data:
  source: emoji
  limit: 0
train:
  epochs: many
  learning_rate: true
  epoch: 3
seeds:
  - 0
  - -1
objectives: [simclr,
  {name: xclr, target_temperature: 0}]
"""


def of_recipe(folder: Path, text: str, *sets: str) -> str:
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(folder / "mine.yaml"), sets)
    return caught.value.message


def test_every_fault_of_a_recipe_has_its_line(tmp_path):
    message = of_recipe(tmp_path, RECIPE)
    for said in (
        "mine.yaml, line ", "line 4: data.limit: ", "line 7: train.learning_rate: it is a number, not true or false",
        "line 11: seeds.1: Input should be greater than or equal to 0 (got -1)",
        "line 13: objectives.1.target_temperature: ",
    ):  # fmt: skip
        assert said in message
    message = of_recipe(tmp_path, RECIPE.replace("  learning_rate: true\n", ""))
    assert "line 6: train.epochs: " in message and "line 7: unknown key 'train.epoch'" in message


def test_what_was_set_from_outside_has_no_line(tmp_path):
    text = "name: mine\ntrain:\n  epochs: 3\nobjectives: [xclr]\n"
    assert "mine.yaml: train.epochs: " in of_recipe(tmp_path, text, "train.epochs=yes")
    assert "mine.yaml: objectives.0.target_temp" in of_recipe(tmp_path, text, "objective.target_temperature=-1")
    assert "mine.yaml: train.epochs: " in of_recipe(tmp_path, text, "train={epochs: 0}")
    assert "--set train.epochs=010: 010 is no plain number" in of_recipe(tmp_path, text, "train.epochs=010")
    assert "--set train={a: 1, a: 2}: a stands twice" in of_recipe(tmp_path, text, "train={a: 1, a: 2}")


@pytest.mark.parametrize("value", ["yes", "on", "true", "No", "false", "[true]"])
@pytest.mark.parametrize("key", ["train.epochs", "train.learning_rate", "data.limit", "train.betas", "retries.crashes"])
def test_yes_and_true_are_no_numbers(key, value, tmp_path):
    part, field = key.split(".")
    message = of_recipe(tmp_path, f"name: mine\n{part}:\n  {field}: {value}\n")
    assert f"mine.yaml, line 3: {key}" in message


@pytest.mark.parametrize("key", ["graph.seed", "evaluate.seed", "seeds"])
@pytest.mark.parametrize("seed", ["-1", str(2**31), "1e20", "0.5"])
def test_seeds_are_those_that_every_generator_takes(key, seed, tmp_path):
    part, _, field = key.partition(".")
    message = of_recipe(tmp_path, f"{part}: {{{field}: {seed}}}" if field else f"seeds: [0, {seed}]")
    assert f"line 1: {key}{'' if field else '.1'}: " in message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("seeds=0", "seeds: it is a list: [0], or --set 'seeds=[0]' (got 0)"),
        ("objectives=xclr", "objectives: it is a list: [xclr], or --set 'objectives=[xclr]' (got 'xclr')"),
        ("evaluate.suites=linear", "--set 'evaluate.suites=[linear]'"),
    ],
)
def test_a_single_value_for_a_list_is_told_how_to_write_it(given, said, tmp_path):
    assert said in of_recipe(tmp_path, "name: mine", given)


def sweep(path):
    return load_sweep(path, {})


@pytest.mark.parametrize(
    ("load", "text", "said"),
    [
        (load_cluster, "default:\n  ranks: 010\n", "line 2: 010 is no plain number"),
        (load_cluster, "default:\n  ranks: 1\n  gpus: true\n", "line 3: default.gpus: it is a number"),
        (load_cluster, "stages: {}\ndefault: {}\nstages: {}\n", "line 3: stages stands twice"),
        (load_study, "recipe: emoji\nrecipe: smoke\n", "line 2: recipe stands twice"),
        (load_study, "recipe: emoji\nquestion: q\narms:\n  a: simclr\nalpha: 7\n", "line 5: alpha: "),
        (sweep, "recipe: emoji\ngrid: {a: [1]}\ngrid: {}\n", "line 3: grid stands twice"),
        (sweep, "recipe: smoke\n\ngrid:\n  seeds: [1]\n", "line 3: grid: "),
        (sweep, "recipe: smoke\nset: [train.epochs]\n", "set holds ['train.epochs']"),
        (sweep, "recipe: smoke\nseeds: 3\ngrid: {train.epochs: [1]}\n", "seeds: it is a list"),
        (sweep, "recipe: smoke\nsamples: yes\ngrid: {train.epochs: [1]}\n", "line 2: samples"),
    ],
)  # fmt: skip
def test_clusters_studies_and_sweeps_are_read_alike(load, text, said, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load(str(tmp_path / "mine.yaml"))
    assert said in caught.value.message


def test_values_of_a_sweep_are_numbers_as_they_look():
    assert parse_values("--grid", "train.learning_rate=1e-3,1e-2") == ("train.learning_rate", (1e-3, 1e-2))
    with pytest.raises(RecipeError, match="010 is no plain number"):
        parse_values("--grid", "train.epochs=010")


def test_aliases_make_no_more_of_a_recipe_than_can_be_read(tmp_path):
    laughs = "a0: &a0 [ha, ha]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
    for text in (laughs, "name: &a [*a]\n", "name: x\ndata: &a {path: *a}\n"):
        assert "its aliases make more than 100,000 values" in of_recipe(tmp_path, text)
    few = "[" + ", ".join(["*a"] * 50) + "]"
    assert len(of_recipe(tmp_path, f"name: &a {'x' * 400}\ndata: {few}\n")) < 2000, (
        "values are shown by their beginning"
    )


def test_a_fault_of_a_text_is_a_value_error():
    with pytest.raises(YAMLError) as caught:
        parse_yaml("a: 1\na: 2")
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("evaluate.references", '[{library: timm, model: "x\\ntouch pwned #", weights: random}]'),
        ("data.caption_template", '"a \\e[2J {}"'),
        ("evaluate.prompts", '["a {}", "b\\r{}"]'),
        ("data.label_column", '"\\ud800"'),
    ],
)
def test_what_acts_on_a_terminal_or_in_a_script_is_no_name(key, text, tmp_path):
    assert f"{key}" in (said := of_recipe(tmp_path, "name: x", f"{key}={text}"))
    assert "control character" in said
    assert acts(said) is ("\n" in said), "nor does the message"
