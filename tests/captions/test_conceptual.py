"""Conceptual Captions: two orders of columns, and lines of no use counted."""

import gzip

import pytest

from xclr import schema
from xclr.captions import reader_of, run
from xclr.captions.stages import CAPTIONS, CaptionsConfig
from xclr.errors import DataError
from xclr.recipe import DataConfig
from xclr.stage import Stage

PAIRS = [("a  dog", "http://host/a.jpg"), ("a cat , asleep", "https://host/b.jpg"), ('a "quote', "http://host/a.jpg")]


def line(source, caption, url):
    return f"{caption}\t{url}\n" if source == "cc3m" else f"{url}\t{caption}\n"


def read(data):
    """Records, and the source's own stats."""
    records, stats = [], {}

    def following():
        stats.update((yield from reader_of(data.source).captions(data)))

    records.extend(following())
    return records, stats


@pytest.mark.parametrize("source", ["cc3m", "cc12m"])
@pytest.mark.parametrize("name", ["all.tsv", "all.tsv.gz"])
def test_captions_and_addresses_are_read_in_the_sets_own_order(source, name, tmp_path):
    content = "".join(line(source, *pair) for pair in PAIRS).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    data = DataConfig(source=source, path=tmp_path / name)
    records, stats = read(data)
    assert [each["caption"] for each in records] == ["a dog", "a cat , asleep", 'a "quote']
    assert [each["url"] for each in records] == [url for _, url in PAIRS]
    assert {each["split"] for each in records} == {"train"}
    assert len({each["key"] for each in records}) == 3
    assert stats == {"malformed": 0}
    assert reader_of(source).size(data) >= 3


@pytest.mark.parametrize("source", ["cc3m", "cc12m"])
def test_malformed_lines_are_counted_named_and_left_out(source, tmp_path):
    good = [line(source, *pair).encode() for pair in PAIRS]
    bad = [
        b"one column\n",
        b"\n",
        line(source, " ", "http://host/x.jpg").encode(),
        line(source, "a dog", "ftp://x").encode(),
    ]
    bad += [b"a\tb\tc\n", line(source, "caf", "http://host/x").encode().replace(b"caf", b"caf\xe9")]
    (tmp_path / "all.tsv").write_bytes(good[0] + b"".join(bad) + good[1] + good[2])
    records, stats = read(DataConfig(source=source, path=tmp_path / "all.tsv"))
    assert len(records) == 3
    assert stats == {"malformed": 6, "malformed_lines": "2, 3, 4, 5, 6, ..."}
    assert len(read(DataConfig(source=source, path=tmp_path / "all.tsv", limit=2))[0]) == 2


def test_a_file_without_a_usable_line_is_refused(tmp_path):
    (tmp_path / "all.tsv").write_text("nothing here\n")
    with pytest.raises(DataError, match="no line of cc3m"):
        list(reader_of("cc3m").captions(DataConfig(source="cc3m", path=tmp_path / "all.tsv")))


@pytest.mark.parametrize("source", ["cc3m", "cc12m"])
def test_a_picture_stands_once_and_a_caption_s_first_row_is_named(source, tmp_path):
    pairs = [("a dog", "http://h/1"), ("a cat", "http://h/2"), ("a dog", "http://h/1"), (" a  DOG", "http://h/2"),
             ("a cow", "http://h/3"), ("a  dog ", "http://h/4"), ("a cow", "http://h/5")]  # fmt: skip
    (tmp_path / "all.tsv").write_text("".join(line(source, *pair) for pair in pairs))
    stage = Stage(
        CAPTIONS, "captions", CaptionsConfig(data=DataConfig(source=source, path=tmp_path / "all.tsv"), sha256=())
    )
    produced = run(stage, tmp_path, lambda done, total: None)
    table = schema.read(tmp_path / "captions.parquet", schema.CAPTIONS).to_pylist()
    assert [(row["row_id"], row["caption"], row["url"][-1], row["dup_of"]) for row in table] == [
        (0, "a dog", "1", None), (1, "a cat", "2", None), (2, "a cow", "3", None), (3, "a dog", "4", 0),
        (4, "a cow", "5", 2),
    ]  # fmt: skip
    assert produced.stats == {"train": 5, "rows": 5, "distinct": 3, "malformed": 0, "repeated_urls": 2}
