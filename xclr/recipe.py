"""Recipes: frozen, checked descriptions of a run, read from YAML."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from xclr.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"
VERSION = 1  # the newest format of recipes that this code reads
MIN_SIDE = 8  # pixels; smaller pictures show nothing
RUNTIME: Any = {"runtime": True}  # marks a field that never changes a value; it stays out of digests


def host_of(url: str) -> str:
    """Host and port of an http(s) address; empty for another string."""
    parts = urlsplit(url)
    return parts.netloc if parts.scheme in {"http", "https"} else ""


class Config(BaseModel):
    """Base of every config: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DownloadConfig(Config):
    """How pictures are fetched: how many at once, how patiently, from whom not."""

    connections: int = Field(64, ge=1, description="downloads at once, of each process", json_schema_extra=RUNTIME)
    per_host: int = Field(8, ge=1, description="of these from one host", json_schema_extra=RUNTIME)
    tries: int = Field(2, ge=1, description="of each address, where another may help", json_schema_extra=RUNTIME)
    connect_s: float = Field(10.0, gt=0, description="until a server takes the connection", json_schema_extra=RUNTIME)
    read_s: float = Field(20.0, gt=0, description="between two pieces of a body", json_schema_extra=RUNTIME)
    total_s: float = Field(60.0, gt=0, description="of a try, its redirects included", json_schema_extra=RUNTIME)
    workers: int | None = Field(
        None, ge=1, description="processes that decode pictures; default: a core each", json_schema_extra=RUNTIME
    )
    proxy: str | None = Field(
        None,
        description="http://host:port that downloads go through; it resolves the names, so that it must refuse private "
        "addresses itself. The environment's proxies are not used",
        json_schema_extra=RUNTIME,
    )
    most_bytes: int = Field(20 << 20, ge=1, description="of a picture; larger ones are refused")
    robots: bool = Field(True, description="respect X-Robots-Tag noai and noimageai")

    @field_validator("proxy")
    @classmethod
    def _proxy_has_no_password(cls, value: str | None) -> str | None:
        if value is not None and (not host_of(value) or "@" in value):
            raise ValueError("it must be http://host:port, without a name and password")
        return value


class DataConfig(Config):
    """Which captioned pictures."""

    source: Literal["emoji", "table", "folder", "cc3m", "cc12m", "wds", "imagenet"] = Field(
        "emoji",
        description="emoji: the embedded set; table: a Parquet, CSV, TSV or JSONL file; folder: a folder of class "
        "folders; cc3m, cc12m: the published TSV of captions and addresses; wds: WebDataset tars; imagenet: folders, "
        "or its official tars",
    )
    path: Path | None = Field(
        None, description="the table or folder (every source but emoji)", json_schema_extra=RUNTIME
    )
    url: str | None = Field(
        None,
        description="where to fetch the table from once, where `path` names none (cc3m, cc12m); pictures may be on the "
        "same host even if that is private",
        json_schema_extra=RUNTIME,
    )
    caption_column: str = Field("caption", description="column with the caption (table)")
    image_column: str = Field(
        "image", description="column with the picture: encoded bytes, a path that starts at the table, or a URL (table)"
    )
    label_column: str | None = Field(None, description="column with the class; SupCon and the probes need it (table)")
    caption_template: str = Field(
        "a photo of a {}", description="caption of a class, {} standing for its name (folder, imagenet)"
    )
    limit: int | None = Field(
        None, ge=1, description="use the first rows only; of folders so many pictures, drawn over all classes"
    )
    shortest_edge: int | None = Field(
        None,
        ge=MIN_SIDE,
        description="store pictures as upright RGB JPEGs whose shortest edge has at most so many pixels; default: as "
        "they were received",
    )
    shard: int = Field(
        10_000, ge=1, description="captions of one shard of pictures: a tar, and an element of a job array"
    )
    download: DownloadConfig = Field(DownloadConfig(), description="how pictures are fetched")
    allow_hosts: tuple[str, ...] = Field((), description="private or loopback hosts that downloads may reach")

    @model_validator(mode="after")
    def _source_has_a_path(self) -> DataConfig:
        if self.url is not None and (self.source not in {"cc3m", "cc12m"} or not host_of(self.url)):
            raise ValueError(f"`url` is an http(s) address of a table of cc3m or cc12m, not of {self.source}")
        if self.url is not None and "@" in urlsplit(self.url).netloc:  # it would stand in records and parameters
            raise ValueError("`url` must not hold a name and password: fetch the table yourself and set `path`")
        if self.source != "emoji" and self.path is None and self.url is None:
            raise ValueError(f"source {self.source} needs `path`, {PATHS[self.source]}")
        return self

    @property
    def reachable(self) -> tuple[str, ...]:
        """Hosts that downloads may reach though they are private: those allowed, and the one that `url` names."""
        return (*self.allow_hosts, *([host_of(self.url)] if self.url else []))

    @property
    def for_captions(self) -> DataConfig:
        """Only what captions depend on."""
        others = ("allow_hosts", "url", "shortest_edge", "shard", "download")
        return self.model_copy(update={name: DataConfig.model_fields[name].default for name in others})

    @field_validator("caption_template")
    @classmethod
    def _template_has_one_place(cls, value: str) -> str:
        if value.count("{}") != 1:
            raise ValueError("it must hold {} once, where the name of the class goes")
        return value


PATHS = {
    "table": "a Parquet, CSV, TSV or JSONL file",
    "folder": "a folder with a folder of pictures for every class",
    "cc3m": "the file Train_GCC-training.tsv",
    "cc12m": "the file cc12m.tsv",
    "wds": "a folder of tars, or one",
    "imagenet": "the folder that holds train, val and LOC_synset_mapping.txt, or the official tars",
}


Precision = Literal["float32", "bfloat16", "float16", "int8"]  # of the text model's products


class EmbedConfig(Config):
    """How captions become unit vectors."""

    model: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2", description="a sentence-transformers name or a folder with a model"
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
    "captions", "class_captions", "wordnet", "class", "random_class", "augmentation", "random_pair", "knn"
]
NEEDS_CLASSES: frozenset[GraphSource] = frozenset({"class_captions", "wordnet", "class", "random_class"})


class TargetGraph(Config):
    """Which similarities the targets come from."""

    source: GraphSource = Field(
        "captions",
        description="captions: cosines; class_captions: cosines of class names; wordnet: Wu-Palmer of the classes; "
        "class: 1 in a class, else 0; random_class: class cosines, shuffled over pairs of classes; augmentation: 1 "
        "for the picture itself; random_pair: cosines of captions, drawn for each pair of pictures; knn: the "
        "neighbours kept in Parquet",
    )
    seed: int = Field(0, ge=0, description="of what is drawn (random_class, random_pair)")

    @property
    def target(self) -> TargetGraph:
        """Source and seed alone, the seed only where it has an effect."""
        return TargetGraph(source=self.source, seed=self.seed if self.source.startswith("random") else 0)

    @property
    def label(self) -> str:
        """What a table calls it."""
        return self.source if self.target.seed == 0 else f"{self.source}-{self.seed}"


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
    block: int = Field(2048, ge=1, description="rows compared at once; bounds memory", json_schema_extra=RUNTIME)


TEMPERATURE = "tau, of the similarities between pictures"


class ViewsConfig(Config):
    """Base of the objectives between views of pictures."""

    temperature: float = Field(0.1, gt=0, description=TEMPERATURE)


class SimCLRConfig(ViewsConfig):
    """One-hot target on the other view."""

    name: Literal["simclr"] = "simclr"


class SupConConfig(ViewsConfig):
    """Uniform target on the views of the same class (L_out)."""

    name: Literal["supcon"] = "supcon"


class DCLConfig(ViewsConfig):
    """SimCLR without the other view in the denominator."""

    name: Literal["dcl"] = "dcl"


class DCLWConfig(ViewsConfig):
    """DCL that draws near pairs less than far ones (von Mises-Fisher weights)."""

    name: Literal["dclw"] = "dclw"
    sigma: float = Field(0.5, gt=0, description="of the weights; large is DCL")


class GraphedConfig(Config):
    """Base of the objectives whose targets come from a similarity graph."""

    graph: TargetGraph | None = Field(None, description="default: the recipe's graph")


class XCLRConfig(ViewsConfig, GraphedConfig):
    """Target = softmax of the graph's similarities."""

    name: Literal["xclr"] = "xclr"
    target_temperature: float = Field(0.1, gt=0, description="tau_s, of the graph's similarities; small is one-hot")


class PairsConfig(Config):
    """Base of the objectives between pictures and their captions."""

    text: Literal["scratch", "frozen"] = Field(
        "scratch", description="scratch: a small transformer; frozen: an MLP on the caption embeddings"
    )


class LearnedScaleConfig(PairsConfig):
    """Base of those with a learned temperature."""

    init_temperature: float = Field(0.07, gt=0, description="before training")
    max_scale: float = Field(100.0, gt=0, description="largest learned 1 / temperature")


class CLIPConfig(LearnedScaleConfig):
    """Image-text contrast in both directions with a learned temperature."""

    name: Literal["clip"] = "clip"


class CWCLConfig(LearnedScaleConfig, GraphedConfig):
    """CLIP whose captions draw all pictures, in proportion to the graph's (similarity + 1) / 2."""

    name: Literal["cwcl"] = "cwcl"


class SoftCLIPConfig(LearnedScaleConfig):
    """CLIP with targets softened by the similarities inside each modality."""

    name: Literal["softclip"] = "softclip"
    mix: float = Field(0.3, ge=0, le=1, description="share of the softened target; 0 is CLIP")


class CLOOBConfig(PairsConfig):
    """InfoLOOB on embeddings that a Hopfield network retrieved from the batch."""

    name: Literal["cloob"] = "cloob"
    scale: float = Field(30.0, gt=0, description="1 / temperature, not learned")
    hopfield_scale: float = Field(8.0, gt=0, description="beta of the retrieval; large retrieves single embeddings")


class RandomConfig(Config):
    """No training: the features of the initial weights, the row every table starts with."""

    name: Literal["random"] = "random"


ObjectiveConfig = Annotated[
    SimCLRConfig
    | SupConConfig
    | XCLRConfig
    | DCLConfig
    | DCLWConfig
    | CLIPConfig
    | CWCLConfig
    | SoftCLIPConfig
    | CLOOBConfig
    | RandomConfig,
    Field(discriminator="name"),
]
OBJECTIVE_MODELS: tuple[type[Config], ...] = get_args(get_args(ObjectiveConfig)[0])
OBJECTIVE_NAMES: tuple[str, ...] = tuple(model.model_fields["name"].default for model in OBJECTIVE_MODELS)


def method_name(objective: ObjectiveConfig) -> str:
    """What a table calls an objective: its name and what differs from the defaults, the graph left out."""
    given = objective.model_dump(exclude={"name", "graph"}, exclude_defaults=True)
    variant = given.pop("text", None)
    words = [objective.name if variant is None else f"{objective.name}-{variant}"]
    return " ".join(words + [f"{key}={value}" for key, value in given.items()])


def graph_name(objective: ObjectiveConfig) -> str:
    """Where an objective's targets come from."""
    if isinstance(objective, GraphedConfig):
        return objective.graph.label if objective.graph is not None else "captions"
    if isinstance(objective, PairsConfig):
        return "pairs"
    return {"supcon": "class", "random": "none"}.get(objective.name, "augmentation")


def with_graph(objectives: Sequence[ObjectiveConfig], default: TargetGraph) -> list[ObjectiveConfig]:
    """The objectives with the graph filled in where one that needs it does not name its own."""
    return [
        each.model_copy(update={"graph": (each.graph or default).target}) if isinstance(each, GraphedConfig) else each
        for each in objectives
    ]


PATCH = 16  # of a vision transformer, pixels


class TrainConfig(Config):
    """How a backbone is pretrained."""

    backbone: Literal["resnet-mini", "resnet18", "resnet34", "resnet50", "vit-small", "vit-base"] = Field(
        "resnet-mini", description="resnet-mini is made for 32 pixels; the others are torchvision's, patches of 16"
    )
    width: int = Field(16, ge=4, description="channels of the first block (resnet-mini)")
    image_size: int = Field(32, ge=8, description="side of a training view, pixels")
    projector_hidden: int = Field(512, ge=1, description="units of the projector's hidden layer")
    projector_out: int = Field(128, ge=1, description="size of the vectors that the loss compares")
    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the training pictures that a pretraining sees, drawn by its seed: those of a smaller "
        "share are among those of a larger one, and an epoch is a pass over them",
    )
    epochs: int = Field(12, ge=1, description="passes over the training pictures")
    batch_size: int = Field(256, ge=2, description="samples per step over all ranks; each gives two views")
    optimizer: Literal["adamw", "sgd", "lars"] = Field("adamw", description="sgd and lars have momentum 0.9")
    learning_rate: float = Field(3e-3, gt=0, description="at its highest, after lr_rule")
    lr_rule: Literal["absolute", "linear", "sqrt"] = Field(
        "absolute",
        description="what learning_rate is multiplied by: absolute 1, linear batch_size / 256, sqrt sqrt(batch_size)",
    )
    weight_decay: float = Field(1e-4, ge=0, description="not on biases and norms")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="share of the steps with rising learning rate")
    views: Literal["stickers", "simclr", "autoaugment"] = Field(
        "stickers",
        description="stickers: cut-out pictures on drawn backgrounds, in one pass on the batch; simclr: crop, flip, "
        "colour, grey, blur; autoaugment: crop, flip and AutoAugment's ImageNet policy",
    )
    min_crop: float = Field(0.3, gt=0, le=1, description="smallest share of the picture's area in a crop")
    background: float = Field(
        0.8, ge=0, le=1, description="how often a transparent picture gets its group's background (stickers)"
    )
    shuffle_shards: int | None = Field(
        None, ge=1, description="shuffle pictures within so many shards at a time, for slow disks; default: within all"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the network's products; weights and losses stay float32"
    )
    channels_last: bool = Field(True, description="memory format of pictures in the network")
    compile: bool = Field(False, description="torch.compile the backbone")
    activation_checkpointing: bool = Field(
        False, description="compute activations twice to keep fewer in memory", json_schema_extra=RUNTIME
    )
    blockwise_from: int = Field(
        2048,
        ge=2,
        description="views in a global batch from which the loss goes block by block",
        json_schema_extra=RUNTIME,
    )
    workers: int = Field(
        4,
        ge=0,
        description="processes of each rank that decode pictures, at most one a core",
        json_schema_extra=RUNTIME,
    )
    log_every: int = Field(5, ge=1, description="steps between two log lines", json_schema_extra=RUNTIME)
    checkpoint_every: int = Field(100, ge=1, description="steps between two checkpoints", json_schema_extra=RUNTIME)
    keep_checkpoints: int = Field(
        2, ge=1, description="newest checkpoints kept, beside the best", json_schema_extra=RUNTIME
    )
    stuck_after_s: int = Field(
        600, ge=1, description="how long ranks wait for one that is late", json_schema_extra=RUNTIME
    )

    @model_validator(mode="after")
    def _patches_fill_the_picture(self) -> TrainConfig:
        if self.backbone.startswith("vit") and self.image_size % PATCH:
            raise ValueError(f"image_size {self.image_size} is no multiple of {PATCH}, the patches of {self.backbone}")
        return self

    def seen(self, pictures: int) -> int:
        """How many of so many training pictures a pretraining sees: fraction * pictures, rounded."""
        return round(self.fraction * pictures)


Dataset = Literal["imagenet", "real", "imagenet9", "objectnet", "mit-states"]
DATASETS: tuple[Dataset, ...] = get_args(Dataset)
SuiteName = Literal[
    "linear", "keywords", "imagenet", "real", "imagenet9", "objectnet", "mit-states", "knn", "few-shot", "zero-shot",
    "retrieval", "finetune",
]  # fmt: skip


class Needs(NamedTuple):
    """What a suite reads: features of which data set (None: of the recipe's own pictures), and labels of which."""

    pictures: Dataset | None = None
    labels: Dataset | None = None
    probe: bool = False  # the head that was fitted to ImageNet's training pictures
    towers: bool = False  # the heads of an objective between pictures and captions

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The data sets that must be there."""
        wanted = (self.pictures, self.labels, "imagenet" if self.probe else None)
        return tuple(each for each in DATASETS if each in wanted)


SUITES: Mapping[SuiteName, Needs] = {
    "linear": Needs(),
    "keywords": Needs(),
    "imagenet": Needs("imagenet", "imagenet", probe=True),
    "real": Needs("imagenet", "real", probe=True),
    "imagenet9": Needs("imagenet9", "imagenet9", probe=True),
    "objectnet": Needs("objectnet", "objectnet", probe=True),
    "mit-states": Needs("mit-states", "mit-states"),
    "knn": Needs("imagenet", "imagenet"),
    "few-shot": Needs("imagenet", "imagenet"),
    "zero-shot": Needs("imagenet", "imagenet", towers=True),
    "retrieval": Needs(towers=True),
    "finetune": Needs("imagenet", "imagenet"),
}


class ProbeConfig(Config):
    """The linear head on frozen features; every learning rate and weight decay is fitted at once.

    The best pair on a split of the training pictures is fitted again on all of them.
    """

    solver: Literal["sgd", "lbfgs", "ridge"] = Field(
        "sgd", description="sgd and lbfgs minimise the cross-entropy, ridge the squared error to one-hot targets"
    )
    learning_rates: tuple[float, ...] = Field((0.01, 0.03, 0.1), min_length=1, description="that compete (sgd)")
    weight_decays: tuple[float, ...] = Field((1e-5, 1e-4, 1e-3, 1e-2, 1e-1), min_length=1, description="that compete")
    epochs: int = Field(20, ge=1, description="of each pair; the chosen one takes three times as many (sgd)")


class FinetuneConfig(Config):
    """How the suite finetune trains a pretrained backbone and a classifier on ImageNet's training pictures."""

    epochs: int = Field(10, ge=1, description="passes over the training pictures")
    batch_size: int = Field(256, ge=2, description="pictures a step over all ranks")
    learning_rate: float = Field(0.01, gt=0, description="of SGD, at its highest")
    weight_decay: float = Field(0.0, ge=0, description="not on biases and norms")


WEIGHTS = (".pt", ".pth", ".bin", ".safetensors")  # endings of files with a state dict


class Reference(Config):
    """A network from elsewhere, a row to compare with."""

    library: Literal["torchvision", "timm", "open_clip"] = Field(description="whose network it is")
    model: str = Field(description="as the library names it: resnet50, vit_small_patch16_224, ViT-B-32")
    weights: str = Field(
        description="published weights by name (IMAGENET1K_V2, laion2b_s34b_b79k; timm: its tag, or default), the path "
        "of a file with a state dict, or random"
    )
    seed: int = Field(0, ge=0, description="of random weights")

    @property
    def is_file(self) -> bool:
        """Whether the weights are those of a file."""
        return Path(self.weights).suffix in WEIGHTS

    @property
    def label(self) -> str:
        """What a table calls it."""
        return f"{self.library} {self.model}"


class EvalConfig(Config):
    """Which suites judge the frozen features."""

    suites: tuple[SuiteName, ...] = Field(
        ("linear",),
        description="linear needs classes; keywords the emoji's annotations; zero-shot and retrieval captions; the "
        "others the data sets of `roots`",
    )
    roots: Mapping[Dataset, Path] = Field(
        {},
        description="where data sets lie: imagenet, imagenet9, objectnet, mit-states: the folder, or an uncompressed "
        "tar of it; real: real.json. The emoji and ImageNet's own recipe bring theirs",
    )
    references: tuple[Reference, ...] = Field((), description="networks from elsewhere that are judged too")
    probe: ProbeConfig = ProbeConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    prompts: tuple[str, ...] = Field((), description="of zero-shot, {} standing for the class; default: CLIP's eighty")
    bootstrap: int = Field(1000, ge=100, description="resamples of the items for an interval of one seed")
    seed: int = Field(0, ge=0, description="of the resamples, halves, draws and heads")
    shard: int = Field(
        50_000,
        ge=1,
        description="pictures of one piece of the features; an element of a job array",
        json_schema_extra=RUNTIME,
    )


class RetriesConfig(Config):
    """How often a run submits a job again; preemption counts for nothing, and too little memory is not tried again."""

    timeouts: int = Field(3, ge=0, description="after the time limit of the cluster file")
    node_failures: int = Field(3, ge=0, description="after the loss of its node")
    failures: int = Field(0, ge=0, description="after a fault that the job reports itself; mostly it comes again")
    crashes: int = Field(2, ge=0, description="after an end without a word: killed, or lost by the scheduler")
    lost_after_s: int = Field(300, ge=1, description="how long a job must be absent from Slurm's queue to be lost")


class Recipe(Config):
    """A whole run."""

    version: int = Field(1, ge=1, description="format of this recipe")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the MLflow experiment and of runs")
    data: DataConfig = DataConfig()
    embed: EmbedConfig = EmbedConfig()
    graph: GraphConfig = GraphConfig()
    objectives: tuple[ObjectiveConfig, ...] = Field(
        (SimCLRConfig(), SupConConfig(), CLIPConfig(), XCLRConfig()),
        min_length=1,
        description="what is trained, each with every seed",
    )
    train: TrainConfig = TrainConfig()
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="three or more give intervals over seeds")
    evaluate: EvalConfig = EvalConfig()
    retries: RetriesConfig = RetriesConfig()

    @field_validator("objectives", mode="before")
    @classmethod
    def _names_are_objectives(cls, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list | tuple):
            return [{"name": entry} if isinstance(entry, str) else entry for entry in value]
        return value

    @model_validator(mode="after")
    def _nothing_twice(self) -> Recipe:
        entries = {
            "objectives": with_graph(self.objectives, self.graph),
            "seeds": self.seeds,
            "evaluate.suites": self.evaluate.suites,
            "evaluate.references": self.evaluate.references,
        }
        for key, values in entries.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: the same entry stands twice")
        return self


def recipe_names() -> list[str]:
    """The named recipes of the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path and apply `key.sub=value` overrides; raises RecipeError with the nearest names.

    A relative data.path starts at the recipe's folder, that of a named recipe at the current one.
    """
    path = _locate(source)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8", "save it as UTF-8") from error
    except (yaml.YAMLError, ValueError) as error:  # a ValueError is a date that there is not
        raise RecipeError(f"{path} is not YAML: {error}", "mend the line it names") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path} does not hold keys and values", "see xclr/recipes/emoji.yaml for one that does")
    _check_version(raw, str(path))
    raw.setdefault("name", path.stem)
    for override in overrides:
        _override(raw, override)
    return parse_recipe(raw, where=str(path), base=Path() if path.parent == RECIPES else path.parent)


def parse_recipe(raw: dict[str, Any], where: str, base: Path = Path()) -> Recipe:
    """Check a recipe's keys and values, all faults at once; `base` is where relative paths start."""
    _check_version(raw, where)
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        faults = [dict(fault) for fault in error.errors()]
        root = [
            fault for fault in faults if fault["type"] != "too_short"
        ] or faults  # a bad entry also shortens its list
        lines = [_explain(fault) for fault in root]
        raise RecipeError(f"{where}: " + "; ".join(lines), "mend the keys named above") from error
    return _placed(recipe, base.absolute())


def _placed(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with paths that are relative starting at `base`."""
    data, evaluate = recipe.data, recipe.evaluate
    if data.path is not None:
        data = data.model_copy(update={"path": base / data.path})
    roots = {name: base / root for name, root in evaluate.roots.items()}
    references = tuple(
        each.model_copy(update={"weights": str(base / each.weights)}) if each.is_file else each
        for each in evaluate.references
    )
    evaluate = evaluate.model_copy(update={"roots": roots, "references": references})
    return recipe.model_copy(update={"data": data, "evaluate": evaluate})


def _check_version(raw: dict[str, Any], where: str) -> None:
    """Refuse a recipe of a newer format before its keys are found to be unknown."""
    version = raw.get("version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise RecipeError(
            f"{where} was written for a newer xclr: it has format {version}, this one reads {VERSION}", "upgrade xclr"
        )


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A recipe with `key.sub=value` overrides applied; raises RecipeError as `load_recipe` does."""
    if not overrides:
        return recipe
    raw = recipe.model_dump(mode="json")
    for override in overrides:
        _override(raw, override)
    return parse_recipe(raw, where=f"recipe {recipe.name}")


def _locate(source: str) -> Path:
    named = RECIPES / f"{source}.yaml"
    if named.is_file():
        return named
    path = Path(source)
    if path.is_file():
        return path
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        raise RecipeError(
            f"no recipe file {source}", "give a path that exists, or one of: " + ", ".join(recipe_names())
        )
    near = difflib.get_close_matches(source, recipe_names(), n=2) or recipe_names()
    raise RecipeError(f"no recipe {source!r}", "did you mean " + " or ".join(near) + "?")


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {override}: no value", "write --set train.epochs=2")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"--set {override}: {text!r} is not YAML", "quote the value") from error
    parts = key.split(".")
    if parts[0] == "objective":
        _override_objectives(raw, parts[1:], value)
    else:
        _assign(raw, parts, value, override)


def _override_objectives(raw: dict[str, Any], parts: list[str], value: object) -> None:
    """Set a field on every objective that has it."""
    models = {model.model_fields["name"].default: model for model in OBJECTIVE_MODELS}
    known = sorted({field for model in models.values() for field in model.model_fields} - {"name"})
    if not parts or parts[0] not in known:
        raise RecipeError(f"no objective has the key {'.'.join(parts)!r}", _nearest(parts[0] if parts else "", known))
    entries = raw.setdefault("objectives", [{"name": each.name} for each in Recipe.model_fields["objectives"].default])
    for index, entry in enumerate(entries if isinstance(entries, list) else []):  # other faults are told later
        named = dict(entry) if isinstance(entry, dict) else {"name": entry}
        model = models.get(named["name"]) if isinstance(named.get("name"), str) else None
        if model is not None and parts[0] in model.model_fields:
            _assign(named, parts, value, "objective." + ".".join(parts))
            entries[index] = named


def _assign(raw: dict[str, Any], parts: list[str], value: object, override: str) -> None:
    node = raw
    for part in parts[:-1]:
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            raise RecipeError(f"--set {override}: {part} holds a value, not keys", "set it whole: --set key=value")
        node = child
    node[parts[-1]] = value


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=2)
    return "did you mean " + " or ".join(near) + "?" if near else "known keys: " + ", ".join(known)


def _explain(fault: dict[str, Any]) -> str:
    loc = list(fault["loc"])
    place = loc[:2] + loc[3:] if loc[:1] == ["objectives"] else loc  # the third part repeats the objective's name
    key = ".".join(str(part) for part in place)
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r} ({_nearest(str(place[-1]), _keys_at(fault['loc'][:-1]))})"
    if fault["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        given = fault["input"].get("name") if isinstance(fault["input"], dict) else fault["input"]
        return f"{key}: no objective {given!r} ({_nearest(str(given), OBJECTIVE_NAMES)})"
    if fault["type"] == "literal_error":
        return f"{key}: {fault['input']!r} is not one of {fault['ctx']['expected']}"
    given = "" if not key or isinstance(fault["input"], dict) else f" (got {fault['input']!r})"
    return f"{key or 'recipe'}: {fault['msg']}{given}"


def _keys_at(loc: Sequence[Any]) -> list[str]:
    """The keys the model at `loc` knows."""
    model: type[BaseModel] = Recipe
    parts = list(loc)
    if parts[:1] == ["objectives"]:
        model = next((each for each in OBJECTIVE_MODELS if each.model_fields["name"].default in parts), model)
        parts = parts[3:]
    for part in parts:
        field = model.model_fields.get(str(part))
        options = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        model = next((each for each in options if isinstance(each, type) and issubclass(each, BaseModel)), model)
    return list(model.model_fields)
