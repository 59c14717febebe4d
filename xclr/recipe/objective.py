"""The objectives by their configs and names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from xclr.recipe.config import Config
from xclr.recipe.graph import TargetGraph

TEMPERATURE = "tau, of the similarities between pictures"


class ViewsConfig(Config):
    """Base of the objectives between views of pictures."""

    targets: ClassVar[str] = "augmentation"  # where they come from, as tables name it
    temperature: float = Field(0.1, gt=0, description=TEMPERATURE)


class SimCLRConfig(ViewsConfig):
    """One-hot target on the other view."""

    name: Literal["simclr"] = "simclr"


class SupConConfig(ViewsConfig):
    """Uniform target on the views of the same class (L_out)."""

    targets: ClassVar[str] = "class"
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

    targets: ClassVar[str] = "pairs"
    text: Literal["scratch", "frozen"] = Field(
        "scratch", description="scratch: a small transformer; frozen: an MLP on the caption embeddings"
    )


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
    return objective.targets


def with_graph(objectives: Sequence[ObjectiveConfig], default: TargetGraph) -> list[ObjectiveConfig]:
    """The objectives with the graph filled in where one that needs it does not name its own."""
    return [
        each.model_copy(update={"graph": (each.graph or default).target}) if isinstance(each, GraphedConfig) else each
        for each in objectives
    ]
