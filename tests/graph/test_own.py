"""Graphs of the user's own: what is read is what the file says, and what cannot be is named."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.kit.captions import ROWS, captions_artifact
from tests.kit.stages import no_progress
from xclr import schema
from xclr.artifact import Manifest, sha256_file
from xclr.errors import DataError
from xclr.graph import open_similarity
from xclr.graph.own import run
from xclr.graph.stages import OWN_GRAPH, own_graph
from xclr.recipe import TargetGraph
from xclr.store import Store

N = len(ROWS)
LABELS = [label for _, label in ROWS]
IDS = [None if row == 4 else f"id-{row % 9}" for row in range(N)]  # rows 9 to 12 are called as 0 to 3
NAMES = [f"class {label}" for label in range(5)]
RANDOM = np.random.default_rng(0)
ROWS_ASKED, COLS_ASKED = torch.tensor([3, 0, 8, 12, 7, 10]), torch.tensor([10, 12, 0, 1, 5, 11, 8, 3])
MODULE = (
    "import numpy as np\nfrom beside import {what}\n\ndef similar(rows, captions):\n    return {what}(rows, captions)\n"
)
BESIDE = """
import numpy as np
from scipy.sparse import coo_array, csr_array

def words(captions):
    return [set(each.lower().split()) for each in captions]

def square(rows, captions):
    sets = words(captions)
    return [[len(a & b) / len(a | b) for b in sets] for a in sets]

def sparse(rows, captions):
    return csr_array(np.triu(square(rows, captions), 1))  # one direction, no diagonal

def vectors(rows, captions):
    return np.stack([[1 + row, len(text), -2.0] for row, text in zip(rows, captions)])
"""


def symmetric(n):
    """Similarities [n, n] of three decimals, which float32 holds in text and back."""
    upper = np.triu(RANDOM.integers(-999, 1000, (n, n)) / 1000, 1)
    return (upper + upper.T + np.eye(n)).astype(np.float32)


MATRIX = symmetric(5)


@pytest.fixture
def captions(tmp_path):
    """Thirteen rows with classes, and ids, some of which several rows share."""
    artifact = captions_artifact(tmp_path / "captions", ROWS)
    names = {"row_id": range(N), "id": IDS, "path": [f"{row}.png" for row in range(N)]}
    schema.write(pa.table(names, schema=schema.NAMES), artifact.path / "names.parquet", schema.NAMES, {})
    return artifact


@pytest.fixture
def made(tmp_path, captions):
    """What makes a graph from its keys in a recipe: the source that training opens, and the stage's output."""

    def make(**keys):
        graph = TargetGraph(**keys)
        stage = own_graph(graph, Store(tmp_path / "home"), captions)
        out = tmp_path / str(stage.digest)
        out.mkdir(exist_ok=True)
        produced = run(stage, out, no_progress)
        assert all((out / name).is_file() for name in produced.files)
        return open_similarity(graph, {"captions": captions.path, "own_graph": out}), produced

    return make


def written(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def as_pairs(names, matrix, keep=lambda src, dst: True):
    """src, dst and sim of the pairs of names that are kept."""
    kept = [(a, b) for a in range(len(names)) for b in range(len(names)) if keep(a, b)]
    return {
        "src": [names[a] for a, _ in kept], "dst": [names[b] for _, b in kept],
        "sim": [float(matrix[a, b]) for a, b in kept],
    }  # fmt: skip


def check(source, expected):
    """A block, whole and in part, is what it should be."""
    expected = torch.as_tensor(np.asarray(expected, dtype=np.float32))
    rows = torch.arange(N)
    torch.testing.assert_close(source.block(rows, rows), expected)
    torch.testing.assert_close(source.block(ROWS_ASKED, COLS_ASKED), expected[ROWS_ASKED[:, None], COLS_ASKED])


def of_rows(matrix):
    """What the rows of ROWS have in common by a matrix of classes."""
    return [
        [float(r == s) if a is None or b is None else matrix[a, b] for s, b in enumerate(LABELS)]
        for r, a in enumerate(LABELS)
    ]


@pytest.mark.parametrize("form", ["npy", "pairs", "one direction", "columns"])
def test_a_matrix_is_of_classes_by_place_or_name(form, tmp_path, made):
    mixed = [3, 0, 5, 2, 4, 1]  # another order, and a class that the data do not have
    names, matrix = [*NAMES, "class 9"], np.pad(MATRIX, (0, 1), constant_values=0.25)
    matrix[5, 5] = 1
    names, matrix = [names[each] for each in mixed], matrix[np.ix_(mixed, mixed)]
    if form == "npy":
        path = tmp_path / "matrix.npy"
        np.save(path, MATRIX.astype(np.float64))
    elif form == "columns":
        path = written(tmp_path / "m.parquet", name=names, **dict(zip(reversed(names), matrix.T[::-1], strict=True)))
    else:
        keep = (lambda a, b: a < b) if form == "one direction" else (lambda a, b: True)
        path = written(tmp_path / "matrix.parquet", **as_pairs(names, matrix, keep))
    source, produced = made(source="matrix", path=path)
    check(source, of_rows(MATRIX))
    assert produced.stats["left_out"] == (0 if form == "npy" else 1)
    assert produced.stats["classes"] == 5


EDGES = {(0, 1): 0.5, (2, 1): -0.25, (5, 6): 0.75, (12, 0): 0.125}  # by row


def by_brute_force(called, edges):
    """1 for rows that are called the same, else what an edge between their names says, else 0."""
    same = lambda a, b: a == b or (called[a] is not None and called[a] == called[b])  # noqa: E731
    found = np.zeros((N, N))
    for a in range(N):
        for b in range(N):
            given = [
                sim
                for (src, dst), sim in edges.items()
                for x, y in ((src, dst), (dst, src))
                if same(a, x) and same(b, y)
            ]
            found[a, b] = 1 if same(a, b) else (given or [0])[0]
    return found


@pytest.mark.parametrize("by", ["row", "id", "path", "caption"])
def test_edges_hold_both_ways_between_rows_however_they_are_called(by, tmp_path, made):
    called = {
        "row": range(N),
        "id": IDS,
        "path": [f"{n}.png" for n in range(N)],
        "caption": [text for text, _ in ROWS],
    }[by]
    edges = {(0, 1): 0.5, (1, 2): -0.25, (5, 6): 0.75} if by == "id" else EDGES  # id-3 is row 12's, too
    columns = {"src": [called[a] for a, _ in edges], "dst": [called[b] for _, b in edges], "sim": list(edges.values())}
    if by == "caption":
        columns["src"][0] = f"  {columns['src'][0]} "  # as no caption of the data is spelled
    if by != "row":
        columns = {"src": [*columns["src"], "x"], "dst": [*columns["dst"], "y"], "sim": [*columns["sim"], 0.5]}
    source, produced = made(source="edges", path=written(tmp_path / "edges.parquet", **columns), by=by)
    check(source, by_brute_force(called, edges))
    stats = produced.stats
    assert (stats["rows"], stats["edges"], stats["left_out"]) == (N, len(edges), int(by != "row"))
    found = by_brute_force(called, edges)
    same = by_brute_force(called, {})
    assert stats["alone"] == int(((found == same).all(axis=1)).sum()) > 0


@pytest.mark.parametrize("what", ["square", "sparse", "vectors"])
def test_a_function_gets_rows_and_captions_and_gives_similarities_or_vectors(what, tmp_path, made):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "mine.py").write_text(MODULE.format(what=what))
    (tmp_path / "lab" / "beside.py").write_text(BESIDE)
    source, produced = made(source="python", path=tmp_path / "lab", function="mine:similar")
    texts = [text for text, _ in ROWS]
    if what == "vectors":
        vectors = np.array([[1 + row, len(text), -2.0] for row, text in enumerate(texts)])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = torch.arange(N)
        np.testing.assert_allclose(source.block(rows, rows), vectors @ vectors.T, atol=1e-3)
    else:
        sets = [set(each.lower().split()) for each in texts]
        check(source, [[len(a & b) / len(a | b) for b in sets] for a in sets])
    assert produced.stats["rows"] == N
    assert "mine" not in sys.modules and not any("lab" in each for each in sys.path)


def test_the_name_is_of_what_the_file_holds_wherever_it_lies(tmp_path, captions):
    store = Store(tmp_path / "home")

    def digest(path, sim=0.5, **keys):
        path.parent.mkdir(exist_ok=True)
        written(path, src=[0], dst=[1], sim=[sim])
        return own_graph(TargetGraph(source="edges", path=path, **keys), store, captions).digest

    one = digest(tmp_path / "a.parquet")
    assert one == digest(tmp_path / "b" / "c.parquet")
    assert len({one, digest(tmp_path / "a.parquet", 0.25), digest(tmp_path / "a.parquet", by="caption")}) == 3
    stage = own_graph(TargetGraph(source="edges", path=tmp_path / "a.parquet"), store, captions)
    (given,) = OWN_GRAPH.given(stage.config, store)
    assert given.rehash() == given.sha256 == (sha256_file(tmp_path / "a.parquet"),)


def broken(place, value):
    matrix = MATRIX.copy()
    matrix[place] = value
    return matrix


BROKEN_MATRICES = {
    "not symmetric": (broken((1, 3), 0.9876), r"not symmetric: class 'class 1' with class 'class 3' has 0\.9876"),
    "too large": (broken(([1, 3], [3, 1]), 1.5), r"class 'class 1' with class 'class 3' has 1\.5: .*\[-1, 1\]"),
    "no number": (broken(([0, 2], [2, 0]), np.nan), "class 'class 0' with class 'class 2' has nan"),
    "diagonal": (broken((4, 4), 0.5), r"class 'class 4' has 0\.5 with itself, not 1"),
    "another size": (MATRIX[:4, :4], r"shape \[4, 4\], and the data have 5 classes"),
    "texts": (MATRIX.astype(str), "has <U32"),
}


@pytest.mark.parametrize("fault", BROKEN_MATRICES)
def test_a_matrix_that_cannot_be_is_refused_by_its_first_classes(fault, tmp_path, made):
    matrix, said = BROKEN_MATRICES[fault]
    np.save(tmp_path / "matrix.npy", matrix)
    with pytest.raises(DataError, match=said) as caught:
        made(source="matrix", path=tmp_path / "matrix.npy")
    assert caught.value.remedy


TABLES = {
    "a pair is missing": (
        as_pairs(NAMES, MATRIX, lambda a, b: {a, b} != {1, 2}), "class 'class 1' with class 'class 2' is missing"
    ),
    "a class is missing": (as_pairs(NAMES[:4], MATRIX), "'class 0' with class 'class 4' is missing, as are 4 pairs"),
    "two directions": (
        as_pairs(NAMES, broken((0, 2), -0.9)), r"not symmetric: class 'class 0' with class 'class 2' has both"
    ),
    "no row": ({"name": NAMES[:4], **dict(zip(NAMES, MATRIX[:, :4], strict=True))}, "class 'class 4' has no row"),
    "no column": ({"name": NAMES, **dict(zip(NAMES[1:], MATRIX[1:], strict=True))}, "'class 0' has no column"),
    "twice": ({"name": [*NAMES[:4], "class 3"], **dict(zip(NAMES, MATRIX, strict=True))}, "two classes 'class 3'"),
    "no names": ({"src": [0], "dst": [1]}, "one column of text"),
    "a text": ({"src": ["class 0"], "dst": ["class 1"], "sim": ["near"]}, "a similarity is a number, and not string"),
}  # fmt: skip


@pytest.mark.parametrize("fault", TABLES)
def test_a_table_of_classes_that_cannot_be_is_refused_by_its_first_classes(fault, tmp_path, made):
    columns, said = TABLES[fault]
    with pytest.raises(DataError, match=said) as caught:
        made(source="matrix", path=written(tmp_path / "matrix.parquet", **columns))
    assert caught.value.remedy


BROKEN_EDGES = {
    "two directions": (([0, 3, 3], [1, 2, 2], [0.5, 0.5, 0.5]), ([1], [0], [0.25]), "row", "row 0 with row 1 has both"),
    "too large": (([0], [1], [0.5]), ([5], [2], [-1.5]), "row", r"row 5 with row 2 has -1\.5"),
    "null": (([0], [1], [0.5]), ([5], [2], [None]), "row", "row 5 with row 2 has nan"),
    "itself": (([0], [1], [0.5]), ([7], [7], [0.5]), "row", r"row 7 has 0\.5 with itself"),
    "beyond": (([0], [1], [0.5]), ([N], [2], [0.5]), "row", "edge 1 has an end at row 13, and .* 0 to 12"),
    "texts": ((["0"], ["1"], [0.5]), ([], [], []), "row", "string with 0 nulls, not row ids"),
    "others": ((["a"], ["b"], [0.5]), ([], [], []), "caption", "no edge is of these data: .* between a and b"),
    "names": ((["a dog"], ["a truck"], [0.5]), (["a truck"], ["a dog"], [0.6]), "caption", "'a dog' with caption"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN_EDGES)
def test_edges_that_cannot_be_are_refused_by_the_first_rows(fault, tmp_path, made):
    some, more, by, said = BROKEN_EDGES[fault]
    columns = {name: [*a, *b] for name, a, b in zip(("src", "dst", "sim"), some, more, strict=True)}
    with pytest.raises(DataError, match=said) as caught:
        made(source="edges", path=written(tmp_path / "edges.parquet", **columns), by=by)
    assert caught.value.remedy


@pytest.mark.parametrize(("source", "said"), [("matrix", "not a Parquet file"), ("edges", "not a Parquet file")])
def test_a_file_of_something_else_is_refused(source, said, tmp_path, made):
    (tmp_path / "mine.parquet").write_text("src,dst,sim\n")
    with pytest.raises(DataError, match=said):
        made(source=source, path=tmp_path / "mine.parquet")
    np.savez(tmp_path / "mine.npz", MATRIX)
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    for content in (b"", b"1 2\n2 1\n", (tmp_path / "mine.npz").read_bytes(), (tmp_path / "pickled.npy").read_bytes()):
        (tmp_path / "mine.npy").write_bytes(content)
        with pytest.raises(DataError, match="no array of NumPy"):
            made(source="matrix", path=tmp_path / "mine.npy")


def test_edges_by_ids_that_the_data_do_not_have_are_refused(tmp_path, captions, made):
    (captions.path / "names.parquet").unlink()
    with pytest.raises(DataError, match="the rows of these data have no id"):
        made(source="edges", by="id", path=written(tmp_path / "edges.parquet", src=["a"], dst=["b"], sim=[0.5]))
    with pytest.raises(DataError, match="no column 'sim', but src, dst"):
        made(source="edges", path=written(tmp_path / "edges.parquet", src=["a"], dst=["b"]))


FUNCTIONS = {
    "np.eye(3)": r"mine:similar gave ndarray \[3, 3\] of float64 for 13 rows",
    "np.ones(len(rows))": r"gave ndarray \[13\]",
    "[[1], [1, 2]]": "gave no array",
    "None": "gave ndarray",
    "np.full((len(rows), len(rows)), 'x')": "of <U1",
    "np.zeros((len(rows), 2))": "the vector of row 0 has no direction",
    "np.arange(13)[:, None] / (rows != 5)[:, None] + 1": "the vector of row 5 has no direction",
    "np.eye(len(rows)) * 0.5": r"row 0 has 0\.5 with itself",
    "np.eye(len(rows)) + np.eye(len(rows), k=2)": "not symmetric: row 0 with row 2 has 1, and 0 the other way round",
    "csr_array(np.eye(len(rows), k=3) * 1.01)": r"row 0 with row 3 has 1\.01",
    "csr_array(np.eye(len(rows))[:, :5])": r"\[13, 5\]",
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("body", FUNCTIONS)
def test_what_a_function_gives_is_refused_by_its_first_rows(body, tmp_path, made):
    lines = "import numpy as np\nfrom scipy.sparse import csr_array\ndef similar(rows, captions):\n"
    (tmp_path / "mine.py").write_text(f"{lines}    return {body}\n")
    with pytest.raises(DataError, match=FUNCTIONS[body]) as caught:
        made(source="python", path=tmp_path, function="mine:similar")
    assert caught.value.remedy


def test_a_square_of_too_many_rows_is_refused(tmp_path, made, monkeypatch):
    monkeypatch.setattr("xclr.graph.own.MOST_SQUARE", 12)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef similar(rows, captions):\n    return np.eye(len(rows))\n"
    )
    with pytest.raises(DataError, match="a square of 13 rows is too large, above 12"):
        made(source="python", path=tmp_path, function="mine:similar")


def test_a_file_that_changed_after_it_was_planned_is_not_taken(tmp_path, captions):
    path = written(tmp_path / "edges.parquet", src=[0], dst=[1], sim=[0.5])
    stage = own_graph(TargetGraph(source="edges", path=path), Store(tmp_path / "home"), captions)
    written(path, src=[0], dst=[1], sim=[0.25])
    with pytest.raises(DataError, match="has changed since it was planned"):
        run(stage, tmp_path, no_progress)
    path.unlink()
    with pytest.raises(DataError, match="has changed since it was planned"):
        run(stage, tmp_path, no_progress)


def test_people_are_told_what_has_no_edge_and_what_was_left_out(tmp_path, made):
    columns = {"src": ["a dog", "a dog", "x"], "dst": ["a truck", "a dog", "y"], "sim": [0.5, 1.0, 0.5]}
    _, produced = made(source="edges", by="caption", path=written(tmp_path / "edges.parquet", **columns))
    facts = {"kind": "own_graph", "digest": "0", "inputs": (), "code": 1, "files": (), "created": ""}
    assert list(OWN_GRAPH.tell(Manifest(config={"source": "edges"}, stats=produced.stats, **facts))) == [
        "own graph: 9 of 13 rows have no edge",
        "own graph: 1 of its file's edges were of other data, and left out",
    ]
