"""Wu-Palmer for all pairs at once is NLTK's, pair by pair."""

import random
import subprocess
import sys

import numpy as np
import pytest

from tests.graph import corpus
from xclr import schema
from xclr.errors import DataError
from xclr.graph import wordnet
from xclr.graph.wordnet import SHIPPED, Taxonomy, from_nltk, located, offset, shipped, wu_palmer


@pytest.fixture(scope="module")
def nltk(tmp_path_factory):
    return corpus.load(tmp_path_factory.mktemp("nltk"))


def test_the_shipped_table_needs_no_corpus():
    """dog.n.01 with cat.n.01, which both stand above classes of ImageNet."""
    assert wu_palmer(["n02084071", "n02121620"], shipped())[0, 1] == pytest.approx(0.857142857, abs=1e-9)


def test_the_golden_value(nltk):
    dog, cat = nltk.synset("dog.n.01"), nltk.synset("cat.n.01")
    assert offset(dog) == "n02084071"
    similarity = wu_palmer([offset(dog), offset(cat)], from_nltk([dog, cat]))
    assert similarity[0, 1] == similarity[1, 0] == pytest.approx(0.857142857, abs=1e-9)


@pytest.mark.slow
def test_two_hundred_fresh_synsets_have_nltks_similarities(nltk):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    sample = random.Random(seed).sample(sorted(nltk.all_synsets("n"), key=offset), 200)
    ours = wu_palmer([offset(each) for each in sample], from_nltk(sample))
    theirs = [[one.wup_similarity(other) for other in sample] for one in sample]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_several_ways_up_are_weighed_as_nltk_does(nltk):
    """Synsets with two hypernyms, among them instances: where ties and shorter ways over higher ancestors occur."""
    several = [each for each in nltk.all_synsets("n") if len(each.hypernyms() + each.instance_hypernyms()) > 1]
    sample = random.Random(1).sample(several, 40)
    ours = wu_palmer([offset(each) for each in sample], from_nltk(sample))
    np.testing.assert_allclose(ours, [[a.wup_similarity(b) for b in sample] for a in sample], rtol=0, atol=1e-12)


def test_the_shipped_table_is_what_the_corpus_gives(nltk):
    rows = schema.read(SHIPPED, schema.TAXONOMY).to_pylist()
    synsets = [nltk.synset_from_pos_and_offset("n", int(each["synset"][1:])) for each in rows]
    fresh = from_nltk(synsets)
    assert fresh == Taxonomy(dict(shipped().names), dict(shipped().above)) and len(rows) == 1860


def test_the_table_is_made_by_its_command(nltk, tmp_path):
    (tmp_path / "synsets.txt").write_text("n02084071\nn02121620\n")
    script = (
        "import nltk, pathlib, sys; folder, made, sys.argv[1] = sys.argv[1:]; nltk.data.path.insert(0, folder)\n"
        "from xclr.graph import wordnet; wordnet.SHIPPED = pathlib.Path(made); wordnet.main()"
    )
    arguments = [nltk_folder(nltk), str(tmp_path / "made"), str(tmp_path / "synsets.txt")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    rows = schema.read(tmp_path / "made", schema.TAXONOMY).to_pylist()
    assert {"dog.n.01", "cat.n.01", "carnivore.n.01", "entity.n.01"} <= {each["name"] for each in rows}


def nltk_folder(nltk):
    return str(nltk.root).removesuffix("/corpora/wordnet")


def test_names_without_a_synset_are_looked_up(nltk):
    synsets, taxonomy = located([("dog", None), ("tench", "n01440764"), ("ice cream", None)])
    assert synsets == ["n02084071", "n01440764", "n07614500"]
    assert taxonomy.names[synsets[2]] == "ice_cream.n.01"


def test_a_name_that_wordnet_does_not_know_is_named(nltk):
    with pytest.raises(DataError, match="does not know 1 of 2 classes: 'woman facepalming'") as caught:
        located([("dog", None), ("woman facepalming", None)])
    assert "class_captions" in caught.value.remedy


def test_without_a_corpus_the_remedy_is_said():
    script = (
        "import nltk; nltk.data.path[:] = ['/nonexistent']\n"
        "from xclr.graph.wordnet import located\nfrom xclr.errors import DataError\n"
        "print(len(located([('tench', 'n01440764')])[0]))\n"
        "try:\n    located([('dog', None)])\nexcept DataError as error:\n    print(error.message, '|', error.remedy)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.startswith("1\nWordNet is not on this machine and 1 classes need it: 'dog'")
    assert "python -m nltk.downloader wordnet" in said


def test_every_imagenet_class_has_a_similarity_to_every_other():
    leaves = [
        each for each in shipped().names if each not in {over for row in shipped().above.values() for over in row}
    ]
    similarity = wu_palmer(leaves, shipped())
    assert 900 < len(leaves) <= 1000  # a few classes stand above others
    assert (similarity > 0).all() and (similarity <= 1).all()
    np.testing.assert_array_equal(similarity, similarity.T)
    assert wordnet.SHIPPED.stat().st_size < 50_000
