"""The towers after training give what the training's own objective gives in evaluation mode."""

import numpy as np
import pytest
import torch

from tests.kit.home import RECIPE, TRAIN, build, make_home, one_thread, training_data
from tests.kit.stages import commit
from xclr.errors import DataError, StoreError
from xclr.evaluation.networks import towers as module
from xclr.evaluation.networks.towers import load_towers
from xclr.graph import SentenceEncoder
from xclr.graph import stages as graph_stages
from xclr.graph.embed import run as run_embeddings
from xclr.graph.textmodel import locate
from xclr.recipe import CLIPConfig, CLOOBConfig, SimCLRConfig, TextConfig
from xclr.training import CHECKPOINT, checkpoint, pretrain
from xclr.training import stages as training_stages
from xclr.training.stages import PretrainConfig
from xclr.training.words import WORDS

EXACT = {"rtol": 1e-5, "atol": 1e-6}
FEATURES = 8 * TRAIN.width
SMALL = {"width": 16, "layers": 2, "heads": 2, "dropout": 0.1}
OBJECTIVES = {
    "scratch": CLIPConfig(),
    "frozen": CLIPConfig(text="frozen"),
    "cloob": CLOOBConfig(),
    "bpe": CLIPConfig(text=TextConfig(**SMALL), train={"projector": "linear", "projector_out": TRAIN.projector_out}),
    "words": CLOOBConfig(text=TextConfig(tokens="words", context=8, **SMALL)),
}
WORDLESS = ("frozen", "bpe")  # whose text tower needs no list of words


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder(locate("sentence-transformers/all-MiniLM-L6-v2"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """400 emoji with the vectors that the packaged MiniLM gives to their captions."""
    home = make_home(tmp_path_factory.mktemp("home"))
    stage = graph_stages.embeddings(RECIPE, home.store, home.artifacts["captions"])
    home.artifacts["embeddings"] = commit(home.store, stage, run_embeddings)
    return home


@pytest.fixture(scope="module")
def trained(home, tmp_path_factory):
    """For each objective (the stage's config, its folder)."""
    recipe = RECIPE.model_copy(update={"train": TRAIN.model_copy(update={"epochs": 1})})
    found = {}
    for name, objective in OBJECTIVES.items():
        stage = training_stages.pretrain(recipe, objective, 0, training_data(home.artifacts))
        out = tmp_path_factory.mktemp("pretrain")
        pretrain.run(stage, out, lambda *_: None)
        found[name] = stage.config, out
    return found


@pytest.fixture
def features():
    return torch.randn(40, FEATURES, generator=torch.Generator().manual_seed(1))


def loaded(trained, name, encoder):
    config, out = trained[name]
    return load_towers(out, config, encoder if name == "frozen" else None)


def old_checkpoint(trained, name, folder):
    """The checkpoint as versions before wrote it."""
    state = torch.load(trained[name][1] / CHECKPOINT, weights_only=True)
    torch.save({"backbone": state["backbone"]}, folder / CHECKPOINT)
    return folder


@pytest.mark.parametrize("name", OBJECTIVES)
def test_pictures_and_texts_are_the_z_and_t_of_the_trained_objective(home, trained, features, encoder, name):
    config, out = trained[name]
    model = build(config.objective, home.paths, config.train, seed=7)
    model.load_state_dict(checkpoint.load(checkpoint.latest(out / "checkpoints"))["model"])
    rows = torch.arange(0, 400, 10)
    with torch.no_grad():
        first, second = model.eval().objective.towers(features.repeat(2, 1), model.look(rows), 1.0)
    captions = home.column("caption")
    towers = loaded(trained, name, encoder)
    torch.testing.assert_close(towers.pictures(features).clone(), first.pictures, **EXACT)
    torch.testing.assert_close(towers.pictures(features).clone(), second.pictures, **EXACT)
    frozen = {"rtol": 0, "atol": 1e-4}  # the encoder's other batches move a few vectors by half a float16's step
    expected, found = first.captions, towers.texts([captions[row] for row in rows]).clone()
    torch.testing.assert_close(found, expected, **(frozen if name == "frozen" else EXACT))
    assert (found - found.mean(0)).norm(dim=1).min() > 1e-3  # captions do not all get one vector


def test_a_frozen_tower_reads_the_vectors_that_its_training_read(home, trained, encoder):
    stored = np.load(home.paths["embeddings"] / "vectors.npy")
    read = loaded(trained, "frozen", encoder).read(home.column("caption")).numpy()
    assert (read == stored.astype(np.float32)).mean() > 0.98  # float32 in another batch would have none of them
    np.testing.assert_allclose(read, stored.astype(np.float32), rtol=0, atol=2**-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rows_are_of_length_one_and_do_not_depend_on_the_others(trained, features, encoder, name, monkeypatch):
    towers = loaded(trained, name, encoder)
    captions = ["cat", "a red heart", "", "an unheard-of zyzzyva, " * 40, "flag: Japan"]
    z, t = towers.pictures(features), towers.texts(captions)
    assert z.shape == (40, TRAIN.projector_out) and t.shape == (5, TRAIN.projector_out)
    for rows in (z, t):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)), **EXACT)
    monkeypatch.setattr(module, "BLOCK", 2)
    torch.testing.assert_close(towers.pictures(features), z, **EXACT)
    torch.testing.assert_close(towers.pictures(features[3:4])[0], z[3], **EXACT)
    torch.testing.assert_close(towers.texts(captions), t, rtol=0, atol=1e-4)
    torch.testing.assert_close(towers.texts(captions[::-1]), t.flip(0), rtol=0, atol=1e-4)


def test_nothing_of_the_towers_can_be_trained(trained, encoder):
    towers = loaded(trained, "frozen", encoder)
    for tower in (towers.head, towers.text):
        assert not tower.training and not any(each.requires_grad for each in tower.parameters())


def test_half_precision_features_are_taken_and_none_are_no_error(trained, features):
    towers = loaded(trained, "scratch", None)
    torch.testing.assert_close(towers.pictures(features.half()), towers.pictures(features), rtol=0, atol=5e-3)
    assert towers.pictures(features[:0]).shape == (0, TRAIN.projector_out)


def test_neither_captions_nor_embeddings_of_the_training_are_needed(trained, encoder, features, tmp_path):
    for name in OBJECTIVES:
        config, out = trained[name]
        folder = tmp_path / name
        folder.mkdir()
        for file in (CHECKPOINT, *([] if name in WORDLESS else [WORDS])):
            (folder / file).write_bytes((out / file).read_bytes())
        towers = load_towers(folder, config, encoder if name == "frozen" else None)
        assert np.isfinite(towers.texts(["a cat"]).numpy()).all()


def test_an_objective_without_captions_has_no_towers(tmp_path):
    config = PretrainConfig(objective=SimCLRConfig(), train=TRAIN, seed=0, dataset="emoji")
    assert load_towers(tmp_path, config, None) is None


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_checkpoint_of_an_earlier_version_says_to_train_again(trained, encoder, name, tmp_path):
    with pytest.raises(StoreError, match="holds no head and no text: an earlier version") as caught:
        load_towers(old_checkpoint(trained, name, tmp_path), trained[name][0], encoder)
    assert "run the recipe again" in caught.value.remedy and str(tmp_path) in caught.value.message


def test_lost_words_say_to_train_again(trained, tmp_path):
    config, out = trained["scratch"]
    (tmp_path / CHECKPOINT).write_bytes((out / CHECKPOINT).read_bytes())
    with pytest.raises(StoreError, match=r"words\.json is missing"):
        load_towers(tmp_path, config, None)


class Narrow:
    """A text model of another width."""

    dim = 5

    def encode(self, captions):
        return np.eye(5, dtype=np.float32)[: len(captions)]


@pytest.mark.parametrize(("given", "message"), [(None, "no text model was given"), (Narrow(), "have size 5")])
def test_a_text_model_that_does_not_fit_is_refused(trained, given, message):
    config, out = trained["frozen"]
    with pytest.raises(DataError, match=f"size 384, and .*{message}") as caught:
        load_towers(out, config, given)
    assert "embed.model" in caught.value.remedy
