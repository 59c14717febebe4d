"""The pretrain stage: from artifacts to a backbone's weights, resumed from where an earlier attempt came to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from xclr.errors import Stopped, WeakError
from xclr.images.stages import unreadable
from xclr.recipe import TrainConfig, TrainedConfig
from xclr.release import DEFAULT, About, Released, write_export
from xclr.stage import Produced, Progress, Stage
from xclr.store import Store
from xclr.training import checkpoint
from xclr.training.batches import Batches
from xclr.training.checkpoint import Checkpoint
from xclr.training.compiling import keep_compiled
from xclr.training.health import check_device
from xclr.training.loader import open_batches
from xclr.training.loop import Pretrainer, precision_of, train
from xclr.training.meter import narrow_place
from xclr.training.model import build_backbone
from xclr.training.objectives.build import build_objective
from xclr.training.objectives.materials import Materials, Objective
from xclr.training.objectives.pairs import towers_of
from xclr.training.objectives.scale import LearnedScale
from xclr.training.objectives.towers import Towers
from xclr.training.optim import warmup_steps
from xclr.training.quality import Quality, open_sample, quality_of
from xclr.training.ranks import Rank
from xclr.training.spool import SPOOL, Spool, read_spool
from xclr.training.stages import CHECKPOINT, PretrainConfig, origin
from xclr.training.stop import WEAK, StopFlag
from xclr.training.subset import told as told_of
from xclr.training.views import PLAIN, preparation_of
from xclr.training.watch import Watch, signs, write_notices
from xclr.training.words import WORDS

Stats = dict[str, float | str]
EXPORT = "export"  # the folder beside the checkpoint
SAY_EVERY_S = 10.0  # in the job's log


def run(stage: Stage[PretrainConfig], out: Path, progress: Progress) -> Produced:
    """Write checkpoint.pt, spool.jsonl and, of a training, a folder export; every rank runs it, rank 0 writes.

    The checkpoint is {"backbone": weights}; an objective with captions adds "head", on the backbone's features, and
    "text", and where the text tower reads tokens words.json says what it knows. In export is the backbone again, for
    other libraries. The stats are the last metrics, and of a training which pictures it saw.
    """
    config = stage.config
    inputs = {role: artifact.path for role, artifact in stage.inputs.items()}
    torch.manual_seed(config.seed)
    keep_compiled(Store.of(out).home)
    backbone, features = build_backbone(config.train)
    if "initial" in inputs:
        backbone.load_state_dict(checkpoint.read_weights(inputs["initial"] / CHECKPOINT))
    objective: Objective | None = None
    stats: Mapping[str, float | str] = {"step": 0}
    if isinstance(config.objective, TrainedConfig):
        batches = open_batches(inputs["captions"], inputs["images"], config.train, config.seed, inputs.get("graph"))
        steps = config.train.epochs * batches.steps_per_epoch
        materials = Materials(inputs, features, config.train, Rank.here().device, steps)
        objective = build_objective(config.objective, materials)
        model = Pretrainer(backbone, objective, precision_of(config.train))
        quality = _quality(config.train, inputs, batches)
        stats = {**fit(config.train, batches, model, out, progress, quality), **told_of(batches.rows.numpy())}
        backbone = model.backbone
    elif _first():
        Spool(out / SPOOL, 0)
    files = _write(backbone, towers_of(objective), out) if _first() else ()
    if files and objective is not None:
        about = About(origin(config), config.objective, stats, stage.digest)
        how = preparation_of(config.train)
        files += _export(Released(backbone, features, config.train, how, PLAIN, about), out)
    return Produced((*files, SPOOL), dict(stats), scratch=("checkpoints",))


def _quality(config: TrainConfig, inputs: Mapping[str, Path], batches: Batches) -> Quality | None:
    """What looks at a fixed sample on rank 0, where the training is long enough."""
    steps = config.epochs * batches.steps_per_epoch
    if not _first() or config.watch_every is None or steps < config.watch_every:
        return None
    return quality_of(open_sample(inputs["captions"], inputs["images"], config), config, precision_of(config))


def fit(
    config: TrainConfig,
    batches: Batches,
    model: Pretrainer,
    out: Path,
    progress: Progress,
    quality: Quality | None = None,
) -> Stats:
    """Train a model as `train` does, on from the newest checkpoint below `out`, with spool.jsonl; its last metrics.

    Every rank calls it; rank 0 writes, and asks `quality` of the backbone every config.watch_every steps. Raises
    Stopped, with the signal's number, after a checkpoint; WeakError, after one, where a sweep left word to stop;
    NodeError where a GPU is out of order.
    """
    if Rank.here().device.type == "cuda":
        check_device(Rank.here())
    resume, steps = _agree(checkpoint.latest(out / "checkpoints")), config.epochs * batches.steps_per_epoch
    begun = resume.step if resume else 0
    stats: Stats = {"step": begun}
    watch = _watch(config, model, steps)
    for point in read_spool(out / SPOOL):
        if point.step <= begun:
            watch(point.step, point.metrics)
    spool, said = Spool(out / SPOOL, begun) if _first() else None, -SAY_EVERY_S
    weak = out / WEAK
    if spool is not None:
        write_notices(out, watch.told)
        weak.unlink(missing_ok=True)  # of an attempt before; a sweep that still finds so says it again

    def log(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal said
        if spool is not None:
            looked = quality(model.backbone, Rank.here().device) if quality and _is_due(step, config) else {}
            spool(step, {**metrics, **looked})
            progress(step, steps)
            if time.monotonic() - said >= SAY_EVERY_S or step == steps:
                said = time.monotonic()
                print(_line(step, steps, metrics), flush=True)
        stats.update(metrics, step=step)
        news = watch(step, metrics)
        for notice in news if spool is not None else ():
            print(f"warning: {notice}", flush=True)
            write_notices(out, watch.told)

    with StopFlag() as flag:
        try:
            asked = (lambda: flag() or weak.exists()) if spool is not None and quality else flag
            train(config, batches, model, out=out, resume=resume, should_stop=asked, log=log)
        except Stopped as stopped:
            if flag.number is None and spool is not None and weak.exists():  # other ranks end with this one
                raise WeakError(weak.read_text(), "xclr retry SWEEP trains what was stopped to its end") from None
            raise Stopped(str(stopped), flag.number) from None
    told = {"notices": "\n".join(watch.told.values())} if watch.told else {}
    return {**stats, **told, **account(batches.lost)}


def _is_due(step: int, config: TrainConfig) -> bool:
    """Whether a look at the sample fell due since the logged step before."""
    every, before = config.watch_every, (step - 1) // config.log_every * config.log_every
    return every is not None and step // every > before // every


def _watch(config: TrainConfig, model: Pretrainer, steps: int) -> Watch:
    most = next((each.most for each in model.modules() if isinstance(each, LearnedScale)), None)
    return Watch(signs(most), warmup_steps(steps, config), config.stop_dead)


def account(lost: set[int]) -> Mapping[str, int | str]:
    """What the manifest says of the rows that any rank found unreadable."""
    found = [lost]
    if dist.is_initialized():
        found = [set[int]() for _ in range(dist.get_world_size())]
        dist.all_gather_object(found, lost)
    return unreadable(set().union(*found))


def _write(backbone: nn.Module, towers: Towers | None, out: Path) -> tuple[str, ...]:
    """What evaluation needs of a training; the names of the files."""
    parts = {"backbone": backbone} | ({"head": towers.head, "text": towers.text} if towers else {})
    checkpoint.write_tensors(out / CHECKPOINT, {name: each.cpu().state_dict() for name, each in parts.items()})
    if towers is None or towers.words is None:
        return (CHECKPOINT,)
    towers.words.save(out / WORDS)
    return (CHECKPOINT, WORDS)


def _export(released: Released, out: Path) -> tuple[str, ...]:
    """The backbone in the export's default format; the names of the files."""
    (out / EXPORT).mkdir(exist_ok=True)
    return tuple(f"{EXPORT}/{name}" for name in write_export(released, DEFAULT, out / EXPORT))


def _line(step: int, steps: int, metrics: Mapping[str, float]) -> str:
    """What a job's log says of a step."""
    speed = metrics.get("train/images_per_s", math.nan)
    narrow = narrow_place(metrics)
    said = f"step {step} of {steps}  loss {metrics['train/loss']:.4f}  {speed:,.0f} pictures/s"
    return f"{said}  {narrow} is the narrow place" if narrow else said


def _first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _agree(found: Checkpoint | None) -> Checkpoint | None:
    """Rank 0's choice for everyone, whatever each sees of a shared file system."""
    if not dist.is_initialized():
        return found
    choice = [found]
    dist.broadcast_object_list(choice)
    return choice[0]
