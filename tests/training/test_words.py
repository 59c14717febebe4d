"""Captions as token ids."""

import torch

from xclr.training.words import MOST_TOKENS, MOST_WORDS, PAD, UNKNOWN, tokenize, vocabulary, words


def test_words_are_lower_case_and_punctuation_stands_alone():
    assert words("Flag: Côte d’Ivoire, 2 Cats!") == ["flag", ":", "côte", "d", "’", "ivoire", ",", "2", "cats", "!"]


def test_frequent_words_come_first_and_ties_by_the_alphabet():
    assert vocabulary(["cat dog", "Cat bird", "cat dog ant"]) == {"cat": 2, "dog": 3, "ant": 4, "bird": 5}


def test_the_vocabulary_does_not_depend_on_the_order_of_the_captions():
    captions = ["red fox", "grey fox", "red kite", "a kite"]
    assert list(vocabulary(captions).items()) == list(vocabulary(captions[::-1]).items())


def test_the_rarest_words_of_a_large_vocabulary_are_dropped():
    known = vocabulary([f"w{index} common" for index in range(MOST_WORDS)] + ["w9 w9"])
    assert len(known) == MOST_WORDS - 2 and max(known.values()) == MOST_WORDS - 1
    assert known["common"] == 2 and known["w9"] == 3


def test_unknown_words_share_one_id():
    assert tokenize(["cat zebra yak"], {"cat": 2}).tolist() == [[2, UNKNOWN, UNKNOWN]]


def test_short_captions_are_padded_to_the_longest():
    tokens = tokenize(["cat", "cat dog cat"], {"cat": 2, "dog": 3})
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [[2, PAD, PAD], [2, 3, 2]]


def test_long_captions_are_cut():
    tokens = tokenize(["cat " * 100, "dog"], {"cat": 2, "dog": 3})
    assert tokens.shape == (2, MOST_TOKENS)
    assert tokens[0].tolist() == [2] * MOST_TOKENS


def test_a_caption_without_words_still_has_a_token():
    assert tokenize(["", "cat dog"], {"cat": 2, "dog": 3}).tolist() == [[UNKNOWN, PAD], [2, 3]]
