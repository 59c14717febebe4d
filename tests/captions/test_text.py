"""Normalised captions, keys and shares."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclr.captions import normalise
from xclr.captions.text import CaptionCheck, key, share
from xclr.errors import DataError

# letters, marks that compose with them, and every sort of white space
TRICKY = st.text(
    alphabet=st.sampled_from(
        [*"aéÅ한 \t\n\r\v\f\x1c\x1f\x85", *"\u0301\u0327\u0338\u00a0\u2000\u2028\u3000\u1100\u1161"]
    )
)


@given(st.text() | TRICKY)
def test_normalising_twice_changes_nothing_more(caption):
    once = normalise(caption)
    assert normalise(once) == once


@given(st.text() | TRICKY)
def test_a_normal_caption_is_nfc_with_single_spaces(caption):
    normal = normalise(caption)
    assert unicodedata.is_normalized("NFC", normal)
    assert normal == normal.strip()
    assert "  " not in normal
    assert all(each == " " or not each.isspace() for each in normal)


@given(st.text() | TRICKY)
def test_spellings_of_one_caption_become_one(caption):
    spellings = {caption, unicodedata.normalize("NFD", caption), unicodedata.normalize("NFC", caption)}
    spellings |= {f"  {caption}\n", caption.replace(" ", " \t ")}
    assert len({normalise(each) for each in spellings}) == 1


@given(st.lists(st.text(alphabet="abcé", min_size=1), max_size=6))
def test_words_stay_as_they_are_and_in_order(words):
    assert normalise(" \n".join(words)).split(" ") == (words or [""])


def test_case_and_punctuation_stay():
    assert normalise("\u00a0A  Dog,\u2003on a\r\nroad! ") == "A Dog, on a road!"


PARTS = st.lists(st.text(alphabet="ab", max_size=3), min_size=1, max_size=3)


@given(PARTS, PARTS)
def test_keys_are_equal_for_equal_parts_only(left, right):
    assert (key(*left) == key(*right)) == (left == right)


def test_a_key_has_16_bytes_and_stays_the_same_over_versions():
    assert key("emoji", "noto", "1F415").hex() == "73599a712e6fb97f81f381f912197d64"


@given(st.text(), st.text())
def test_a_share_lies_from_0_to_1_and_is_fixed_by_its_parts(first, second):
    assert 0 <= share(first, second) < 1
    assert share(first, second) == share(first, second)


def test_shares_are_spread_evenly():
    below = sum(share("picture", str(number)) < 0.1 for number in range(10_000))
    assert 900 < below < 1100


def checked(values):
    """The captions of a column, its rows as places."""
    check = CaptionCheck("mine.parquet", lambda places: "rows " + ", ".join(map(str, places)))
    captions = [check.caption(row, value) for row, value in enumerate(values)]
    check.finish()
    return captions


def test_captions_may_be_text_or_utf8():
    assert checked(["a  dog", " café".encode()]) == ["a dog", "café"]


def test_captions_that_are_not_utf8_are_named_by_row():
    with pytest.raises(DataError) as caught:
        checked(["a dog", b"caf\xe9", "a cat", b"\xff", "\ud83d"])
    assert caught.value.message == "mine.parquet: 3 captions are not UTF-8 (rows 1, 3, 4)"
    assert "rows" in caught.value.remedy


@pytest.mark.parametrize("empty", ["", " \t\n\u00a0", None, b"", b"  "])
def test_empty_captions_are_named_by_row(empty):
    with pytest.raises(DataError) as caught:
        checked(["a dog", empty])
    assert caught.value.message == "mine.parquet: 1 captions are empty (rows 1)"


@pytest.mark.parametrize(
    ("value", "kind"), [(7, "a number"), ([1], "a list"), ({}, "an object"), (True, "true or false")]
)
def test_a_caption_that_is_no_text_is_named_at_once(value, kind):
    with pytest.raises(DataError, match=f"the caption is {kind}") as caught:
        checked(["a dog", value])
    assert "rows 1" in caught.value.message
