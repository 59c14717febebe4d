"""What reads files of strangers, and what must hold whatever is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.ledger import Book
from tests.fuzz.target import Check, Checking
from tests.kit.recipes import TINY
from xclr.artifact import Digest
from xclr.captions import tablefile, wds
from xclr.errors import DataError, RecipeError, StoreError, XclrError
from xclr.evaluation.datasets import READERS, Tree
from xclr.files import is_text
from xclr.images.generations import STATUSES
from xclr.images.picture import judge
from xclr.images.read import decode
from xclr.pipeline import pipeline
from xclr.recipe import DataConfig, Recipe, load_recipe, with_overrides
from xclr.store import MANIFEST, Store
from xclr.training.weights import read_state

DIGEST = "0" * 32


@contextmanager
def pictures(folder: Path) -> Iterator[Check]:
    """What is called ok is read by every reader."""

    def check(data: bytes) -> None:
        for edge in (None, 8):
            judged = judge(data, edge)
            assert judged.columns["status"] in STATUSES
            if judged.columns["status"] == "ok":
                decode(judged.stored or data, 8)

    yield check


def refusing(name: str, read: Callable[[Path], object], fault: type[XclrError] = DataError) -> Checking:
    """A check that a file is read, or refused by its name."""

    @contextmanager
    def checking(folder: Path) -> Iterator[Check]:
        path = folder / name

        def check(data: bytes) -> None:
            path.write_bytes(data)
            try:
                read(path)
            except fault as error:
                assert path.name in error.message

        yield check

    return checking


def read_tar(path: Path) -> None:
    """A tar gives text, and places that are in it."""
    size = path.stat().st_size
    for record in wds.captions(DataConfig(source="wds", path=path)):
        _, offset, length = record["place"]
        assert is_text(record["caption"] + record["path"]) and 0 <= offset <= offset + length <= size


def read_table(path: Path) -> None:
    """All rows with all columns."""
    table = tablefile.open_table(path)
    for _ in tablefile.rows(table, list(table.types)):
        pass


def read_weights(path: Path) -> None:
    """Tensors under names, and nothing else."""
    assert all(isinstance(name, str) and each.numel() >= 0 for name, each in read_state(path).items())


def read_benchmark(name: str) -> Callable[[Path], None]:
    """A data set's items, each with classes that there are."""

    def read(path: Path) -> None:
        found = READERS[name].read(Tree.open(path))
        assert all(each >= 0 for targets in found.items["targets"].to_pylist() for each in targets)

    return read


@contextmanager
def recipes(folder: Path) -> Iterator[Check]:
    """A recipe is planned, or refused by a sentence; no file is written."""
    path, store = folder / "x.yaml", Store(folder / "home")

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            pipeline(load_recipe(str(path)), store)
        except XclrError as error:
            assert is_text(error.message) and "\n" not in error.message
        assert [each.name for each in folder.iterdir()] == [path.name]

    yield check


@contextmanager
def settings(folder: Path) -> Iterator[Check]:
    """What --set says makes a recipe, or is refused by a sentence."""
    recipe = Recipe.model_validate(TINY)

    def check(data: bytes) -> None:
        try:
            with_overrides(recipe, [data.decode("utf-8", "surrogateescape")])
        except RecipeError as error:
            assert is_text(error.message) and "\n" not in error.message

    yield check


@contextmanager
def manifests(folder: Path) -> Iterator[Check]:
    """A manifest is that of its artifact, whose files are as it says, or there is no artifact."""
    store, digest = Store(folder / "home"), Digest("graph", DIGEST)
    out = store.begin(digest)

    def check(data: bytes) -> None:
        (out / MANIFEST).write_bytes(data)
        found = store.find(digest)
        if found is not None:
            assert store.manifest(found).digest == str(digest)
            assert all((out / each.path).stat().st_size == each.bytes for each in store.manifest(found).files)

    yield check


def ledger(name: str, read: Callable[[Book], object]) -> Checking:
    """A check that a file of the ledger is read, or refused by its path."""

    @contextmanager
    def checking(folder: Path) -> Iterator[Check]:
        path = folder / "ledger" / DIGEST / name
        path.parent.mkdir(parents=True)

        def check(data: bytes) -> None:
            path.write_bytes(data)
            try:
                read(Book(folder))
            except StoreError as error:
                assert str(path) in error.message

        yield check

    return checking
