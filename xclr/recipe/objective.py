"""The objectives by their configs and names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from xclr.recipe.changes import Changes, TrainChanges
from xclr.recipe.config import LATER, Config
from xclr.recipe.graph import OWN, TEXT_MODEL, TargetGraph
from xclr.recipe.sources import SOURCES
from xclr.recipe.train import TrainConfig

TEMPERATURE = "tau, of the similarities between pictures"
DETAILS = ("train", "label_smoothing")  # fields that a table tells below itself, and not in a method's name


class TrainedConfig(Config):
    """Base of the objectives that are trained."""

    targets: ClassVar[str]  # where they come from, as tables name it
    train: TrainChanges = Field(
        default_factory=Changes,
        description="what of `train` is otherwise for this objective; not what pictures are seen, and in which order",
        json_schema_extra=LATER,
    )

    @property
    def uses(self) -> tuple[str, ...]:
        """What it learns from, as tables name it."""
        return ("pixels",)

    def trained(self, train: TrainConfig) -> TrainConfig:
        """How it is trained where the recipe's `train` is so."""
        return TrainConfig.model_validate(train.model_dump() | self.train) if self.train else train


class ViewsConfig(TrainedConfig):
    """Base of the objectives between views of pictures."""

    targets: ClassVar[str] = "augmentation"
    temperature: float = Field(0.1, gt=0, description=TEMPERATURE)


class SimCLRConfig(ViewsConfig):
    """One-hot target on the other view."""

    name: Literal["simclr"] = "simclr"


class SupConConfig(ViewsConfig):
    """Uniform target on the views of the same class (L_out)."""

    name: Literal["supcon"] = "supcon"
    classes: Literal["judged", "concepts"] = Field(
        "judged",
        description="judged: the classes that suites judge by; concepts: on the emoji, all drawings of one thing",
        json_schema_extra=LATER,
    )

    @property
    def targets(self) -> str:  # type: ignore[override]
        """Which classes they come from."""
        return "class" if self.classes == "judged" else "concept"

    @property
    def uses(self) -> tuple[str, ...]:
        """Pictures and their classes."""
        return "pixels", "labels"


class DCLConfig(ViewsConfig):
    """SimCLR without the other view in the denominator."""

    name: Literal["dcl"] = "dcl"


class DCLWConfig(ViewsConfig):
    """DCL that draws near pairs less than far ones (von Mises-Fisher weights)."""

    name: Literal["dclw"] = "dclw"
    sigma: float = Field(0.5, gt=0, description="of the weights; large is DCL")


class GraphedConfig(TrainedConfig):
    """Base of the objectives whose targets come from a similarity graph."""

    graph: TargetGraph | None = Field(None, description="default: the recipe's graph")

    @property
    def uses(self) -> tuple[str, ...]:
        """What it uses beside the graph, and what that is made of."""
        graph = self.graph or TargetGraph()
        return tuple(dict.fromkeys((*super().uses, *graph.uses)))


class CACRConfig(ViewsConfig):
    """The other view attracts, and near negatives repel more than far ones."""

    name: Literal["cacr"] = "cacr"
    attraction: float = Field(1.0, ge=0, description="weight of the pull to the other view")
    repulsion: float = Field(1.0, ge=0, description="weight of the push from all others")


class MannWhitneyConfig(ViewsConfig):
    """How often a negative is nearer than the other view, smoothly."""

    name: Literal["mw"] = "mw"


class AUCConfig(ViewsConfig):
    """The area under the ROC curve of other views among negatives, by a margin."""

    name: Literal["auc"] = "auc"
    margin: float = Field(1.0, gt=0, description="between the mean cosines of other views and of negatives")


class SwAVConfig(ViewsConfig):
    """Each view is assigned to prototypes as the other one is, all prototypes being used equally."""

    targets: ClassVar[str] = "prototypes"
    name: Literal["swav"] = "swav"
    prototypes: int = Field(3000, ge=2, description="number of them")
    epsilon: float = Field(0.05, gt=0, description="of the assignments; small is one-hot")
    iterations: int = Field(3, ge=1, description="of Sinkhorn's normalisation")


class QueueConfig(ViewsConfig):
    """Base of those that compare with keys of earlier batches, made by a running average of the network."""

    momentum: float = Field(0.999, ge=0, lt=1, description="of the average, whose keys the queue holds")
    queue: int = Field(65536, ge=2, description="number of keys")


class MoCoConfig(QueueConfig):
    """One-hot target on the average's key of the other view, among the keys of earlier batches."""

    name: Literal["moco"] = "moco"
    temperature: float = Field(0.2, gt=0, description=TEMPERATURE)
    stages: float = Field(
        0.0,
        ge=0,
        description="weight of the squared distance between what both networks make of two views after each stage of "
        "the backbone; its paper has 0.25",
    )


class MoCHiConfig(MoCoConfig):
    """MoCo with further negatives, mixed of the hardest and of the query."""

    name: Literal["mochi"] = "mochi"  # type: ignore[assignment]
    hardest: int = Field(1024, ge=2, description="negatives, those nearest to a query, that others are mixed of")
    mixed: int = Field(1024, ge=0, description="negatives between two of them")
    mixed_with_query: int = Field(128, ge=0, description="negatives between one of them and the query")
    mix_after: float = Field(0.05, ge=0, lt=1, description="share of the training before negatives are mixed")

    @model_validator(mode="after")
    def _the_queue_holds_the_hardest(self) -> MoCHiConfig:
        if 2 * self.hardest > self.queue:  # some of the queue are keys of the query's own picture
            raise ValueError(f"hardest {self.hardest} are more than half of a queue of {self.queue} keys: choose fewer")
        return self


class ReSSLConfig(QueueConfig):
    """The other view's key is as near to the keys of earlier batches, by a softmax, as the average finds it."""

    targets: ClassVar[str] = "keys"
    name: Literal["ressl"] = "ressl"
    target_temperature: float = Field(0.04, gt=0, description="of the average's similarities; small is one-hot")


class XCLRConfig(ViewsConfig, GraphedConfig):
    """Target = softmax of the graph's similarities."""

    name: Literal["xclr"] = "xclr"
    target_temperature: float = Field(0.1, gt=0, description="tau_s, of the graph's similarities; small is one-hot")
    mix: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of the target that is the graph's; the rest lies on the other view: 0 is simclr",
        json_schema_extra=LATER,
    )


class TextConfig(Config):
    """A text tower as CLIP's: a causal transformer, whose output at the end token is projected."""

    width: int = Field(512, ge=8, description="of a token's vector")
    layers: int = Field(12, ge=1, description="blocks of attention and MLP")
    heads: int = Field(8, ge=1, description="of attention; they divide the width")
    context: int = Field(
        77, ge=3, description="tokens of a caption at most, begin and end included; longer ones are cut"
    )
    tokens: Literal["bpe", "words"] = Field(
        "bpe", description="bpe: CLIP's 49,408 pieces of words; words: those of the training captions"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="of what each block's attention and MLP add, while it trains")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> TextConfig:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.width}")
        return self


def _tag(value: object) -> str:
    return "<name>" if isinstance(value, str) else "<keys>"


TextTower = Annotated[
    Annotated[Literal["scratch", "frozen"], Tag("<name>")] | Annotated[TextConfig, Tag("<keys>")], Discriminator(_tag)
]


class PairsConfig(TrainedConfig):
    """Base of the objectives between pictures and their captions."""

    targets: ClassVar[str] = "pairs"
    text: TextTower = Field(
        "scratch",
        description="scratch: a small transformer; frozen: an MLP on the caption embeddings; keys: a tower as CLIP's",
    )

    alignment: float = Field(
        0.0,
        ge=0,
        description="weight of the squared distance of pictures and their captions, a term of the gap between both",
        json_schema_extra=LATER,
    )
    uniformity: float = Field(
        0.0,
        ge=0,
        description="weight of how unevenly pictures, and captions, lie on the sphere",
        json_schema_extra=LATER,
    )
    cross_uniformity: float = Field(
        0.0, ge=0, description="weight of the same between pictures and other captions", json_schema_extra=LATER
    )

    @property
    def uses(self) -> tuple[str, ...]:
        """Pictures, captions, and what the text tower was trained on."""
        return tuple(dict.fromkeys((*super().uses, "captions", *((TEXT_MODEL,) if self.text == "frozen" else ()))))


class LearnedScaleConfig(PairsConfig):
    """Base of those with a learned temperature."""

    init_temperature: float = Field(0.07, gt=0, le=1, description="before training")
    max_scale: float = Field(100.0, ge=1, description="largest learned 1 / temperature; the smallest is 1")
    scale_learning_rate: float = Field(
        3e-3,
        gt=0,
        description="of AdamW on the scale alone, at its highest: it rises and falls with train.learning_rate",
    )


class CLIPConfig(LearnedScaleConfig):
    """Image-text contrast in both directions with a learned temperature."""

    name: Literal["clip"] = "clip"
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of a target that is spread over the whole batch", json_schema_extra=LATER
    )
    local: float = Field(
        0.0,
        ge=0,
        description="weight of local pairs: a view through a second head, its caption without some words through a "
        "second projection; not with text frozen",
        json_schema_extra=LATER,
    )
    words_left_out: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the words that captions of local pairs lack, drawn anew at each step",
        json_schema_extra=LATER,
    )

    @model_validator(mode="after")
    def _local_pairs_have_words(self) -> CLIPConfig:
        if self.local and self.text == "frozen":
            raise ValueError(
                "local leaves out words, and frozen reads a caption's vector: choose another text, or local 0"
            )
        return self


class SigLIPConfig(LearnedScaleConfig):
    """Each picture and caption by itself is a pair or none; equal captions are one."""

    name: Literal["siglip"] = "siglip"
    init_temperature: float = Field(0.1, gt=0, le=1, description="before training")
    init_bias: float = Field(-10.0, description="of the logits, before training; learned too")


class SoftSigLIPConfig(SigLIPConfig, GraphedConfig):
    """SigLIP whose pairs are matches by exp((similarity - 1) / target_temperature) of the graph."""

    name: Literal["softsiglip"] = "softsiglip"  # type: ignore[assignment]
    target_temperature: float = Field(0.1, gt=0, description="of the graph's similarities; small is siglip")


class CLIPLiteConfig(LearnedScaleConfig):
    """One other caption for each picture: a bound on the Jensen-Shannon mutual information."""

    name: Literal["clip-lite"] = "clip-lite"


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

    targets: ClassVar[str] = "none"
    uses: ClassVar[tuple[str, ...]] = ()
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
    | SigLIPConfig
    | SoftSigLIPConfig
    | CLIPLiteConfig
    | CACRConfig
    | MannWhitneyConfig
    | AUCConfig
    | SwAVConfig
    | MoCoConfig
    | MoCHiConfig
    | ReSSLConfig
    | RandomConfig,
    Field(discriminator="name"),
]
OBJECTIVE_MODELS: tuple[type[Config], ...] = get_args(get_args(ObjectiveConfig)[0])
OBJECTIVE_NAMES: tuple[str, ...] = tuple(model.model_fields["name"].default for model in OBJECTIVE_MODELS)


def method_name(objective: ObjectiveConfig) -> str:
    """What a table calls an objective: its name and what differs from the defaults.

    Left out are the graph, which classes, and what `details` tells.
    """
    given = objective.model_dump(exclude={"name", "graph", "classes", *DETAILS}, exclude_defaults=True)
    variant = given.pop("text", None)
    words = [objective.name if variant is None else f"{objective.name}-{_tower(variant)}"]
    return " ".join(words + [f"{key}={value}" for key, value in given.items()])


def _tower(text: str | dict[str, Any]) -> str:
    return text if isinstance(text, str) else TextConfig(**text).tokens


def details(objective: ObjectiveConfig) -> dict[str, Any]:
    """How else than as usual an objective is trained: its text tower, its label smoothing, changes to `train`."""
    given = objective.model_dump(include={"text", *DETAILS}, exclude_defaults=True)
    if isinstance(objective, PairsConfig) and isinstance(objective.text, TextConfig):
        given["text"] = objective.text.model_dump()
    else:
        given.pop("text", None)
    flat: dict[str, Any] = {}
    for key, value in given.items():
        flat |= {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def graph_name(objective: ObjectiveConfig, source: str) -> str:
    """Where an objective's targets come from, on data of that source.

    What its graph calls a class is a concept on the emoji: there the judged classes hold several.
    """
    if not isinstance(objective, GraphedConfig):
        return objective.targets
    graph = objective.graph or TargetGraph()
    concepts = SOURCES[source].annotated and graph.source not in OWN
    return graph.label.replace("class", "concept") if concepts else graph.label


def with_graph(objectives: Sequence[ObjectiveConfig], default: TargetGraph) -> list[ObjectiveConfig]:
    """The objectives with the graph filled in where one that needs it does not name its own."""
    return [
        each.model_copy(update={"graph": (each.graph or default).target}) if isinstance(each, GraphedConfig) else each
        for each in objectives
    ]
