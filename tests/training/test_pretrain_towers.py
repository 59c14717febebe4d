"""What a pretraining with captions leaves for evaluation: both towers and the words, beside the backbone."""

import json

import pytest
import torch

from tests.kit.home import EXPORTED, RECIPE, TRAIN, training_data
from tests.kit.stages import no_progress
from xclr.errors import StoreError
from xclr.recipe import CLIPConfig, CLOOBConfig, CWCLConfig, SoftCLIPConfig, TargetGraph, XCLRConfig
from xclr.training import CHECKPOINT, checkpoint, pretrain
from xclr.training import stages as training_stages
from xclr.training.objectives.towers import scratch_text
from xclr.training.spool import SPOOL
from xclr.training.words import FIRST, WORDS, Vocabulary, vocabulary

CONFIGS = {
    "clip": CLIPConfig(),
    "clip frozen": CLIPConfig(text="frozen"),
    "cloob": CLOOBConfig(),
    "cwcl frozen": CWCLConfig(text="frozen", graph=TargetGraph()),
    "softclip": SoftCLIPConfig(),
}


@pytest.fixture(scope="module")
def trained(home, tmp_path_factory):
    """Runs the stage of an objective for an epoch, once: what it produced and its folder."""
    done = {}

    def run(objective):
        key = objective.model_dump_json()
        if key not in done:
            recipe = RECIPE.model_copy(update={"train": TRAIN.model_copy(update={"epochs": 1})})
            out = tmp_path_factory.mktemp("pretrain")
            stage = training_stages.pretrain(recipe, objective, 0, training_data(home.artifacts))
            done[key] = pretrain.run(stage, out, no_progress), out
        return done[key]

    return run


def parts_of(out):
    return torch.load(out / CHECKPOINT, weights_only=True)


@pytest.mark.parametrize("name", CONFIGS)
def test_both_towers_are_those_of_the_last_checkpoint(trained, name):
    _, out = trained(CONFIGS[name])
    found, model = parts_of(out), checkpoint.load(checkpoint.latest(out / "checkpoints"))["model"]
    assert list(found) == ["backbone", "head", "text"]
    for part, prefix in (
        ("backbone", "backbone."),
        ("head", "objective.towers.head."),
        ("text", "objective.towers.text."),
    ):
        of_part = {key.removeprefix(prefix): value for key, value in model.items() if key.startswith(prefix)}
        torch.testing.assert_close(dict(found[part]), of_part, rtol=0, atol=0)
    assert found["head"]["1.running_var"].ne(1).all()  # of the training's batches


@pytest.mark.parametrize("name", CONFIGS)
def test_only_a_tower_that_reads_tokens_keeps_words(trained, name):
    produced, out = trained(CONFIGS[name])
    words = () if CONFIGS[name].text == "frozen" else (WORDS,)
    assert produced.files == (CHECKPOINT, *words, *EXPORTED, SPOOL)
    assert (out / WORDS).is_file() == bool(words)


def test_an_objective_without_captions_keeps_the_backbone_only(trained):
    produced, out = trained(XCLRConfig(graph=TargetGraph()))
    assert list(parts_of(out)) == ["backbone"]
    assert produced.files == (CHECKPOINT, *EXPORTED, SPOOL) and not (out / WORDS).exists()


def test_the_words_are_those_of_the_training_captions_in_the_order_of_their_ids(home, trained):
    _, out = trained(CLIPConfig())
    captions = [text for text, split in zip(home.column("caption"), home.splits, strict=True) if split == "train"]
    about = json.loads((out / WORDS).read_text())
    assert {word: index for index, word in enumerate(about["words"], start=FIRST)} == vocabulary(captions)
    text = parts_of(out)["text"]
    assert text["words.weight"].shape[0] == len(about["words"]) + FIRST
    assert text["places"].shape[0] == about["tokens"]


def test_words_and_weights_make_the_tower_again_without_captions(trained):
    _, out = trained(CLIPConfig())
    words = Vocabulary.load(out / WORDS)
    tower = scratch_text(words, TRAIN)
    tower.load_state_dict(parts_of(out)["text"])
    long = "a cat " * 100
    assert tower(words.tokenize(["cat face", "never seen", "", long])).shape == (4, TRAIN.projector_out)
    assert words.tokenize([long]).shape == (1, words.tokens)


def test_words_come_back_as_they_were_saved(tmp_path):
    saved = Vocabulary(vocabulary(["Côte d’Ivoire", "a \U0001f98a and a cat", '"quoted" \\ words', "\u2028"]), 7)
    saved.save(tmp_path / WORDS)
    found = Vocabulary.load(tmp_path / WORDS)
    assert found == saved and list(found.known) == list(saved.known)


def test_lost_words_are_named(tmp_path):
    with pytest.raises(StoreError, match=r"words\.json is missing") as caught:
        Vocabulary.load(tmp_path / WORDS)
    assert "run the recipe again" in caught.value.remedy
