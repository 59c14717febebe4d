"""Text towers as CLIP's: tokens, and parity of the tower with open_clip's."""

import open_clip
import pytest
import torch
from open_clip.model import CLIP

from xclr.recipe import TextConfig, TrainConfig
from xclr.training.objectives.towers import causal_text
from xclr.training.tokens import Pieces, Words, open_tokens
from xclr.training.words import Vocabulary

CAPTIONS = ["a photo of a cat", "Grinning face with big eyes!", "", "zyzzyva " * 100, "flag: Côte d’Ivoire"]
TEXT = TextConfig(width=32, layers=3, heads=4, context=20)


def test_pieces_are_open_clips_tokens_without_the_padding_that_no_caption_needs():
    peer = open_clip.SimpleTokenizer(context_length=77)
    for captions in (CAPTIONS, CAPTIONS[:1]):
        found, expected = Pieces(77)(captions), peer(captions)
        assert torch.equal(found, expected[:, : found.shape[1]]) and not expected[:, found.shape[1] :].any()
        assert (found[:, -1] != 0).any()
    assert Pieces(77).size == 49_408 and Pieces(77).marks == Pieces(77)([""])[0, 0] == 49_406
    assert Pieces(77)(CAPTIONS[3:4]).shape == (1, 77) and Pieces(77)(CAPTIONS[3:4])[0, -1] == 49_407


def test_words_end_with_the_largest_id_and_unknown_ones_are_one():
    tokens = open_tokens(TEXT.model_copy(update={"tokens": "words", "context": 4}), Vocabulary({"a": 2, "cat": 3}, 4))
    assert tokens == Words({"a": 2, "cat": 3}, 4) and tokens.size == 5 and tokens.marks == 4
    assert tokens(["A cat", "", "a dog", "cat a cat a cat"]).tolist() == [
        [2, 3, 4, 0], [4, 0, 0, 0], [2, 1, 4, 0], [3, 2, 3, 4],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def peer():
    torch.manual_seed(0)
    size = {"context_length": 20, "vocab_size": 49_408, "width": 32, "heads": 4, "layers": 3}
    model = CLIP(24, {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}, size)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.05 * torch.randn_like(each))
    return model.eval()


def mine(peer, text=TEXT):
    tower = causal_text(Pieces(20), text, TrainConfig(projector_out=24))
    tower.load_state_dict({name: value for name, value in peer.state_dict().items() if name in tower.state_dict()})
    return tower.eval()


def test_with_the_same_weights_a_caption_has_open_clips_vector(peer):
    tokens = Pieces(20)(CAPTIONS)
    with torch.no_grad():
        expected, found = peer.encode_text(open_clip.SimpleTokenizer(context_length=20)(CAPTIONS)), mine(peer)(tokens)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert sum(each.numel() for each in mine(peer).parameters()) == sum(
        each.numel() for name, each in peer.named_parameters() if not name.startswith(("visual", "logit"))
    )


def test_only_what_stands_before_a_token_reaches_it_and_neighbours_do_not_matter(peer):
    tower, captions = mine(peer), ["a cat", "a cat that is so very much longer than the one before"]
    with torch.no_grad():
        alone, together = tower(Pieces(20)(captions[:1]))[0], tower(Pieces(20)(captions))[0]
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)


def test_dropout_is_of_the_training_alone_and_adds_no_weights(peer):
    tokens, plain = Pieces(20)(CAPTIONS), mine(peer)
    tower = mine(peer, TEXT.model_copy(update={"dropout": 0.5}))
    with torch.no_grad():
        assert torch.equal(tower(tokens), plain(tokens))
        tower.train()
        assert not torch.equal(tower(tokens), tower(tokens))
