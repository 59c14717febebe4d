"""Captions as token ids."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from xclr.training.words import MOST_TOKENS, MOST_WORDS, PAD, UNKNOWN, leave_out, tokenize, vocabulary, words

MARKS = 98
CAPTIONS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(1, MARKS - 1), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9]))), st.booleans()
    ),
    min_size=1,
    max_size=4,
)


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


def test_words_below_the_share_are_left_out_and_what_stays_moves_together():
    tokens = torch.tensor([[5, 6, 7, 8, 0], [5, 6, 7, 0, 0], [9, 0, 0, 0, 0], [98, 5, 6, 7, 99], [98, 99, 0, 0, 0]])
    numbers = torch.tensor([
        [0.1, 0.3, 0.2, 0.9, 0.0], [0.1, 0.25, 0.2, 0.9, 0.9], [0.0] * 5, [0.0, 0.4, 0.1, 0.3, 0.0], [0.0] * 5,
    ])  # fmt: skip
    assert leave_out(tokens, numbers, 0.3, MARKS).tolist() == [
        [6, 8, 0, 0, 0], [6, 0, 0, 0, 0], [9, 0, 0, 0, 0], [98, 5, 7, 99, 0], [98, 99, 0, 0, 0],
    ]  # fmt: skip
    assert torch.equal(leave_out(tokens, numbers, 0.0, MARKS), tokens)


@given(CAPTIONS, st.sampled_from([0.0, 0.2, 0.3, 0.99]))
def test_leaving_words_out_of_a_batch_is_leaving_them_out_of_each_caption(captions, share):
    """With a begin and an end token or without; what stands behind a caption counts for nothing."""
    long, given, expected = 2 + max(len(each) for each, _ in captions), [], []
    for words_of, marked in captions:
        kept = [word for word, number in words_of if number >= min(share, max(number for _, number in words_of))]
        begin, end = ([98], [99]) if marked else ([], [])
        expected.append([*begin, *kept, *end])
        line = [(each, 0.0) for each in begin] + words_of + [(each, 0.0) for each in end]
        given.append(line + [(PAD, 0.95)] * (long - len(line)))
    tokens, numbers = (torch.tensor([[pair[at] for pair in line] for line in given]) for at in (0, 1))
    found = leave_out(tokens, numbers, share, MARKS)
    assert found.tolist() == [line + [PAD] * (long - len(line)) for line in expected]
