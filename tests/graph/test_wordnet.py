"""Wu-Palmer for all pairs at once is NLTK's, pair by pair."""

import random
import sys

import numpy as np
import pytest
from nltk.corpus.reader import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from tests.kit import wordnet as corpus
from xclr import schema
from xclr.errors import DataError
from xclr.graph import wordnet
from xclr.graph.wordnet import SHIPPED, Taxonomy, from_nltk, located, offset, shipped, wu_palmer


@pytest.fixture(scope="module")
def nltk(tmp_path_factory):
    return corpus.load(tmp_path_factory.mktemp("nltk"))


@pytest.fixture(scope="module")
def nouns(nltk):
    """The lines of WordNet's nouns; the first number is the offset, @ and @i stand before hypernyms."""
    return [line for line in nltk.open("data.noun").read().splitlines() if line[0].isdigit()]


def drawn(nltk, nouns, number, rng):
    """Some of the synsets."""
    return [nltk.synset_from_pos_and_offset("n", int(line[:8])) for line in rng.sample(nouns, number)]


def test_the_shipped_table_needs_no_corpus():
    """dog.n.01 with cat.n.01, which both stand above classes of ImageNet."""
    assert wu_palmer(["n02084071", "n02121620"], shipped())[0, 1] == pytest.approx(0.857142857, abs=1e-9)


def test_the_golden_value(nltk):
    dog, cat = nltk.synset("dog.n.01"), nltk.synset("cat.n.01")
    assert offset(dog) == "n02084071"
    similarity = wu_palmer([offset(dog), offset(cat)], from_nltk([dog, cat]))
    assert similarity[0, 1] == similarity[1, 0] == pytest.approx(0.857142857, abs=1e-9)


@pytest.mark.slow
def test_two_hundred_fresh_synsets_have_nltks_similarities(nltk, nouns):
    """Each with twenty others."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    sample = drawn(nltk, nouns, 200, rng)
    ours = wu_palmer([offset(each) for each in sample], from_nltk(sample))
    for one, row in zip(sample, ours, strict=True):
        others = rng.sample(range(200), 20)
        theirs = [one.wup_similarity(sample[other]) for other in others]
        np.testing.assert_allclose(row[others], theirs, rtol=0, atol=1e-12)


def test_several_ways_up_are_weighed_as_nltk_does(nltk, nouns):
    """Synsets with two hypernyms, among them instances: where ties and shorter ways over higher ancestors occur."""
    several = [line for line in nouns if sum(each in {"@", "@i"} for each in line.partition("|")[0].split()) > 1]
    sample = drawn(nltk, several, 40, random.Random(1))
    assert all(len(each.hypernyms() + each.instance_hypernyms()) > 1 for each in sample)
    ours = wu_palmer([offset(each) for each in sample], from_nltk(sample))
    np.testing.assert_allclose(ours, [[a.wup_similarity(b) for b in sample] for a in sample], rtol=0, atol=1e-12)


def test_the_shipped_table_is_what_the_corpus_gives(nltk):
    rows = schema.read(SHIPPED, schema.TAXONOMY).to_pylist()
    synsets = [nltk.synset_from_pos_and_offset("n", int(each["synset"][1:])) for each in rows]
    fresh = from_nltk(synsets)
    assert fresh == Taxonomy(dict(shipped().names), dict(shipped().above)) and len(rows) == 1860


def test_the_table_is_made_by_its_command(nltk, tmp_path, monkeypatch):
    (tmp_path / "synsets.txt").write_text("n02084071\nn02121620\n")
    monkeypatch.setattr(sys, "argv", ["wordnet", str(tmp_path / "synsets.txt")])
    monkeypatch.setattr(wordnet, "SHIPPED", tmp_path / "made")
    wordnet.main()
    rows = schema.read(tmp_path / "made", schema.TAXONOMY).to_pylist()
    assert {"dog.n.01", "cat.n.01", "carnivore.n.01", "entity.n.01"} <= {each["name"] for each in rows}


def test_names_without_a_synset_are_looked_up(nltk):
    synsets, taxonomy = located([("dog", None), ("tench", "n01440764"), ("ice cream", None)])
    assert synsets == ["n02084071", "n01440764", "n07614500"]
    assert taxonomy.names[synsets[2]] == "ice_cream.n.01"


def test_a_name_that_wordnet_does_not_know_is_named(nltk):
    with pytest.raises(DataError, match="does not know 1 of 2 classes: 'woman facepalming'") as caught:
        located([("dog", None), ("woman facepalming", None)])
    assert "class_captions" in caught.value.remedy


def test_without_a_corpus_the_remedy_is_said(monkeypatch):
    monkeypatch.setattr("nltk.data.path", ["/nonexistent"])
    monkeypatch.setattr("nltk.corpus.wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, None))
    assert len(located([("tench", "n01440764")])[0]) == 1
    with pytest.raises(DataError, match="WordNet is not on this machine and 1 classes need it: 'dog'") as caught:
        located([("dog", None)])
    assert "python -m nltk.downloader wordnet" in caught.value.remedy


def test_every_imagenet_class_has_a_similarity_to_every_other():
    """All come to one root; the values are those of 250 classes."""
    above = shipped().above
    over = {synset for row in above.values() for synset in row}
    leaves = sorted(each for each in shipped().names if each not in over)
    assert 900 < len(leaves) <= 1000  # a few classes stand above others
    assert [each for each in above if not above[each]] == ["n00001740"]
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    similarity = wu_palmer(random.Random(seed).sample(leaves, 250), shipped())
    assert (similarity > 0).all() and (similarity <= 1).all()
    np.testing.assert_array_equal(similarity, similarity.T)
    assert wordnet.SHIPPED.stat().st_size < 50_000
