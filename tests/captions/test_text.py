"""Normalised captions, keys and shares."""

import codecs
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclr.captions import normalise
from xclr.captions.text import CaptionCheck, encoding_of, key, label_of, readable, share, visible
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


MARKS = "\x00\x07\u00ad\u200b\u200e\u200f\u202a\u202e\u2060\u2066\u2069\ufeff\u061c"


@given(TRICKY, st.lists(st.sampled_from(MARKS), min_size=1, max_size=4), st.integers(0, 9))
def test_marks_that_nobody_sees_make_no_other_text(text, marks, place):
    marked = text[:place] + "".join(marks) + text[place:]
    assert readable(marked) == readable(text) == normalise(visible(text))
    assert readable(readable(marked)) == readable(marked)


@pytest.mark.parametrize("text", ["\U0001f469\u200d\U0001f680", "می\u200cخواهم", "\u2764\ufe0f", "שלום, world", "نص"])
def test_what_shapes_letters_and_emoji_stays(text):
    assert readable(f"\u200f {text}\u00a0") == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ([1.0, "1.0", "1", 1, " 1.00 ", "\ufeff1"], "1"),
        ([-3.0, "-3.0"], "-3"),
        ([2.5, "2.5"], "2.5"),
        ([None, float("nan"), "", " \u00a0", "NaN", "nan", "\u200b"], None),
        (["café", "cafe\u0301", "\u00a0café ", "ca\u00adfé"], "café"),
        (["a b", "a\u00a0b", "a  b", "a\tb\u200f"], "a b"),
        ([float("inf")], "inf"),
        ([True], "True"),
        (["1.0.0"], "1.0.0"),
        (["Cat"], "Cat"),
        (["cat"], "cat"),
    ],
)
def test_labels_that_look_alike_are_one_class(values, label):
    assert {label_of(value) for value in values} == {label}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_tell_the_encoding(encoding):
    assert encoding_of("a".encode(encoding)) == encoding
    assert encoding_of("a".encode(encoding.removesuffix("-sig") + "-le" * (encoding != "utf-8-sig"))) is None
    for mark in (codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE):
        assert encoding_of(mark + b"a") in {"utf-16", "utf-32"}


def checked(values):
    """The captions of a column that are of use, its rows as places, and the stats of the others."""
    check = CaptionCheck("mine.parquet", lambda places: "rows " + ", ".join(map(str, places)))
    captions = [caption for row, value in enumerate(values) if (caption := check.caption(row, value))]
    return captions, check.finish()


def test_captions_may_be_text_or_utf8():
    assert checked(["a  dog", " café".encode()]) == (["a dog", "café"], {})


def test_captions_that_are_of_no_use_are_left_out_counted_and_named_by_row():
    values = ["a dog", b"caf\xe9", "a cat", None, "\ud83d", "a cow", "\u200b", "a hen"]
    captions, stats = checked(values)
    assert captions == ["a dog", "a cat", "a cow", "a hen"]
    assert stats == {"malformed": 4, "malformed_samples": "not UTF-8: rows 1, 4; empty: rows 3, 6"}


def test_many_captions_of_no_use_are_counted_and_the_first_named():
    _, stats = checked(["a dog"] * 9 + [""] * 9)
    assert stats == {"malformed": 9, "malformed_samples": "empty: rows 9, 10, 11, 12, 13, 14"}


@pytest.mark.parametrize("empty", ["", " \t\n\u00a0", None, b"", b"  ", float("nan"), "\u200b\ufeff", "\x00"])
def test_more_captions_of_no_use_than_others_are_an_error(empty):
    with pytest.raises(DataError) as caught:
        checked(["a dog", empty, empty])
    assert caught.value.message == "mine.parquet: 2 of 3 captions are of no use (empty: rows 1, 2)"
    assert "data.caption_column" in caught.value.remedy


@pytest.mark.parametrize(
    ("value", "kind"), [(7, "a number"), ([1], "a list"), ({}, "an object"), (True, "true or false")]
)
def test_a_caption_that_is_no_text_is_named_at_once(value, kind):
    with pytest.raises(DataError, match=f"the caption is {kind}") as caught:
        checked(["a dog", value])
    assert "rows 1" in caught.value.message
