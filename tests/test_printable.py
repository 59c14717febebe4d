"""Text from outside: what would act where it is shown is spelled out."""

import pytest

from xclr.errors import DataError
from xclr.printable import acts, in_one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;own\x07", "\\x1b]0;own\\x07"),
        ("a\rb\x9bc", "a\\rb\\x9bc"),
        ("right \u202e left", "right \\u202e left"),
        ("half \ud83d", "half \\ud83d"),
        ("whole \U0001f600 caf\u00e9\tand more", "whole \U0001f600 caf\u00e9\tand more"),
    ],
)
def test_what_acts_is_spelled_out(text, shown):
    assert printable(text) == shown
    assert acts(text) == (text != shown)
    assert str(DataError(text, text)) == f"{shown}\n  -> {shown}"


def test_in_one_line_nothing_begins_another():
    assert acts("a\nb") and not acts("a b")
    assert in_one_line("x\ntouch  #\r\n\t# heading") == "x touch #\\r # heading"
