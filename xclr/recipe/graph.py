"""How captions become vectors, and vectors a similarity graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from xclr.printable import acts
from xclr.recipe.config import LATER, RUNTIME, Config, Seed

Precision = Literal["float32", "bfloat16", "float16", "int8"]  # of the text model's products


class EmbedConfig(Config):
    """How captions become unit vectors."""

    model: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        pattern=r"\S",
        description="a sentence-transformers name or a folder with a model; ENCODER:MODEL for another encoder",
    )
    precision: Precision = Field(
        "float32",
        description="of the text model: float16 for GPUs; bfloat16 or int8 where a CPU is too slow. What another than "
        "float32 loses is measured and told",
    )
    batch_tokens: int | None = Field(
        None,
        ge=1,
        description="tokens encoded at once, padding included; default: 1,024 on a CPU, 32,768 on a GPU",
        json_schema_extra=RUNTIME,
    )
    shard: int = Field(
        32_768,
        ge=1,
        description="captions of one piece of the work, which a killed job repeats at most; an element of a job array",
        json_schema_extra=RUNTIME,
    )


GraphSource = Literal[
    "captions", "class_captions", "wordnet", "class", "random_class", "augmentation", "random_pair", "permuted",
    "shuffled", "knn", "truth", "matrix", "edges", "python",
]  # fmt: skip
NEEDS_CLASSES: frozenset[GraphSource] = frozenset({"class_captions", "wordnet", "class", "random_class", "matrix"})
OWN: Mapping[GraphSource, tuple[str, ...]] = {  # graphs that the user gives, and the fields of such alone
    "matrix": ("path",),
    "edges": ("path", "by"),
    "python": ("path", "function", "reads"),
}
NamedBy = Literal["row", "id", "path", "caption"]  # how edges name rows

TEXT_MODEL = "pretrained text model"
OWN_GRAPH = "own graph"
DRAWN: frozenset[GraphSource] = frozenset({"random_class", "random_pair", "permuted", "shuffled"})
USES: Mapping[GraphSource, tuple[str, ...]] = {
    "captions": ("captions", TEXT_MODEL),
    "knn": ("captions", TEXT_MODEL),
    "random_pair": ("captions", TEXT_MODEL),
    "permuted": ("captions", TEXT_MODEL),
    "shuffled": ("captions", TEXT_MODEL),
    "class_captions": ("labels", TEXT_MODEL),
    "random_class": ("labels", TEXT_MODEL),
    "wordnet": ("labels", "WordNet"),
    "class": ("labels",),
    "truth": ("factors",),
    "matrix": ("labels", OWN_GRAPH),
    "edges": (OWN_GRAPH,),
    "python": (OWN_GRAPH,),
}


class CorruptConfig(Config):
    """Edges that a graph loses or has too many, for each pair of pictures by chance.

    An edge is a pair of pictures whose similarity is at least `cutoff`. One that is lost has the mean similarity of
    what are no edges, a false one 1.
    """

    drop: float = Field(0.0, ge=0, le=1, description="share of the edges that are lost")
    add: float = Field(0.0, ge=0, le=1, description="false edges, for each true one")
    cutoff: float = Field(0.6, ge=-1, le=1, description="least similarity of an edge")

    @property
    def label(self) -> str:
        """What a table calls it."""
        return " ".join(f"{name}={value:g}" for name, value in self.model_dump(exclude_defaults=True).items())


class TargetGraph(Config):
    """Which similarities the targets come from."""

    source: GraphSource = Field(
        "captions",
        description="captions: cosines; class_captions: cosines of class names; wordnet: Wu-Palmer of the classes; "
        "class: 1 in a class, else 0; random_class: class cosines, shuffled over pairs of classes; augmentation: 1 "
        "for the picture itself; random_pair: cosines of captions, drawn for each pair of pictures; permuted: cosines "
        "of captions, after each class, or caption without one, was given that of another; shuffled: cosines of "
        "captions, after each picture was given that of another; knn: the neighbours kept in Parquet; truth: share of "
        "factors in common (scenes); matrix: a file of similarities of classes; edges: a file of similar pairs; "
        "python: a function of your own",
    )
    seed: Seed = Field(0, description="of what is drawn (random_class, random_pair, permuted, shuffled, corrupt)")
    corrupt: CorruptConfig | None = Field(
        None, description="edges that it loses or has too many; default: none", json_schema_extra=LATER
    )

    path: Path | None = Field(
        None,
        description="matrix: .npy in the order of the classes, or Parquet that names them; edges: Parquet with src, "
        "dst and sim; python: the module's folder, else PYTHONPATH is looked through, default: the recipe's own",
        json_schema_extra=LATER,
    )
    by: NamedBy = Field(
        "row",
        description="what src and dst hold: row ids, the data's ids or paths, or captions (edges)",
        json_schema_extra=LATER,
    )
    function: str | None = Field(
        None,
        pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$",
        description="MODULE:FUNCTION, which gets row ids and captions and gives similarities or vectors (python)",
        json_schema_extra=LATER,
    )
    reads: tuple[Path, ...] = Field(
        (),
        description="files that the function reads; what they hold names the graph, too (python)",
        json_schema_extra=LATER,
    )

    @model_validator(mode="after")
    def _own_graph_is_given(self) -> TargetGraph:
        """An own graph has what it is made of, and no other graph has."""
        for field in ("path", "by", "function", "reads"):
            if field not in OWN.get(self.source, ()) and getattr(self, field) != type(self).model_fields[field].default:
                takers = ", ".join(source for source, fields in OWN.items() if field in fields)
                raise ValueError(f"graph {self.source} takes no `{field}`, which is for {takers}")
        if self.source in {"matrix", "edges"} and self.path is None:
            raise ValueError(f"graph {self.source} needs `path`, the file with the similarities")
        if self.source == "python" and self.function is None:
            raise ValueError("graph python needs `function`, as MODULE:FUNCTION")
        if any(acts(each.name) for each in (*self.reads, self.path) if each is not None):
            raise ValueError("a file's name holds a line end, another control character or half a character")
        return self

    @property
    def target(self) -> TargetGraph:
        """All that says which similarities, the seed only where it has an effect."""
        corrupt = self.corrupt if self.corrupt and (self.corrupt.drop or self.corrupt.add) else None
        seed = self.seed if self.source in DRAWN or corrupt else 0
        own = {field: getattr(self, field) for field in ("path", "by", "function", "reads")}
        return TargetGraph(source=self.source, seed=seed, corrupt=corrupt, **own)

    @property
    def named(self) -> TargetGraph:
        """The same wherever its files lie: their names alone are left of the paths."""
        path = None if self.path is None or self.source == "python" else Path(self.path.name)
        return self.model_copy(update={"path": path, "reads": tuple(Path(each.name) for each in self.reads)})

    def below(self, base: Path) -> Self:
        """The same with relative paths starting at a folder, where a module lies by default."""
        if self.source not in OWN:
            return self
        reads = tuple(base / each for each in self.reads)
        return self.model_copy(update={"path": base / (self.path or ""), "reads": reads})

    @property
    def uses(self) -> tuple[str, ...]:
        """What it is made of, as tables name it; nothing for augmentation."""
        return USES.get(self.source, ())

    @property
    def label(self) -> str:
        """What a table calls it."""
        target = self.target
        given = self.function if self.source == "python" else self.path and self.path.name
        source = f"{self.source} {given}" if given else self.source
        name = source if target.seed == 0 else f"{source}-{target.seed}"
        return f"{name} {target.corrupt.label}" if target.corrupt else name


class GraphConfig(TargetGraph):
    """The similarity graph: its source, and the nearest neighbours written to Parquet."""

    method: Literal["exact", "approximate"] = Field(
        "exact",
        description="exact: every pair of captions is compared once, n^2 d multiplications; approximate: pairs in near "
        "cells of a FAISS index, as many cells as `recall` needs",
    )
    k: int = Field(32, ge=1, description="neighbours kept per caption")
    cutoff: float | None = Field(
        0.6,
        ge=-1,
        le=1,
        description="only neighbours at least this similar are kept, and `count` tells how many there are; null: the "
        "k nearest, however far",
    )
    recall: float = Field(
        0.99, gt=0, lt=1, description="share of a sample's true edges that the approximate graph must have"
    )
    part: int = Field(
        1 << 20,
        ge=2,
        description="captions of one side of an element of the job array, which compares two such parts; bounds its "
        "memory (exact)",
        json_schema_extra=RUNTIME,
    )
    block: int | None = Field(
        None,
        ge=1,
        description="rows compared at once, which bounds memory; default: 2,048 on a CPU, 16,384 on a GPU",
        json_schema_extra=RUNTIME,
    )
