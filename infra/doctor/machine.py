"""What this machine has and lacks; each check is a function that returns a Finding and raises nothing."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from infra import servers
from infra.access import PREFECT_AUTH, mlflow_auth
from infra.disks import NETWORK, MountedDisk, fs_type_of
from infra.finding import Finding
from infra.processes import send
from xclr.captions.source import reader_of
from xclr.disk import existing
from xclr.errors import XclrError
from xclr.graph.textmodel import locate
from xclr.recipe import RECIPES, EmbedConfig, load_recipe
from xclr.store import check_file_system

EXTRAS = ("", "eval", "pipeline")  # of xclr, all of which its command needs
PINNED = ("torch", "prefect", "fastapi", "mlflow", "pyarrow", "submitit")  # what is printed of the packages
SLURM = ("sinfo", "sbatch", "squeue", "sacct")
LEAST_DISK, LEAST_MEMORY = 2 * 2**30, 2 * 2**30  # of the emoji recipe
PARITY_WITHIN_S, STARTS_IN_S, SPEED_WITHIN_S = 60, 180, 600
GATHERING = "gathering between processes"


Tell = Callable[[str], None]  # is given what a check of many seconds does, before it begins


def examine(home: Path, state: Path, tell: Tell) -> Iterator[Finding]:
    """Every check, the quick ones first."""
    checks: Sequence[Callable[[], Finding]] = (
        check_python,
        check_packages,
        lambda: check_disk(home),
        check_memory,
        lambda: check_home(home),
        lambda: check_state(state, psutil.disk_partitions(all=True)),
        lambda: check_database(state),
        lambda: check_text_model(EmbedConfig().model),
        check_wordnet,
        check_slurm,
        lambda: check_left_behind(state),
        lambda: check_server("Prefect server", "PREFECT_API_URL", _prefect_url(state), partial(_ask_prefect, state)),
        lambda: check_server("MLflow server", "MLFLOW_TRACKING_URI", _mlflow_url(state), partial(_ask_mlflow, state)),
    )
    for check in checks:
        yield check()
    for path in sorted(RECIPES.glob("*.yaml")):
        yield check_recipe(path.stem)
    gpus = gpu_names()
    yield check_gpus(gpus)
    tell(GATHERING)
    yield check_gathering(*((len(gpus), "cuda") if len(gpus) > 1 else (2, "cpu")))


def examine_gpus(seconds: float, tell: Tell) -> Iterator[Finding]:
    """What to know on arrival at a GPU machine: the GPUs, gathering between all of them, and how fast they train."""
    gpus = gpu_names()
    if not gpus:
        remedy = "run it where the GPUs are (nvidia-smi lists them); everything runs on CPUs too, slowly"
        yield Finding(check="GPUs", state="wrong", found="torch sees none", remedy=remedy)
        return
    yield check_gpus(gpus)
    if len(gpus) > 1:
        tell(GATHERING)
        yield check_gathering(len(gpus), "cuda")
    tell(f"training for {seconds:.0f} s")
    yield check_throughput(len(gpus), "cuda", seconds)
    tell("measuring how near the device's limits the loss, the graph and the trainings are")
    yield from check_speed("cuda")


def check_python() -> Finding:
    """The version of Python."""
    version, wanted = ".".join(map(str, sys.version_info[:3])), _metadata("xclr", "Requires-Python") or ">=3.11"
    if Version(version) in SpecifierSet(wanted):
        return Finding(check="Python", state="ok", found=version)
    return Finding(check="Python", state="wrong", found=version, remedy=f"make the environment with Python {wanted}")


def check_packages() -> Finding:
    """Versions of the packages, against what the project and the two servers ask for."""
    unmet = [each for name in ("xclr", "prefect", "mlflow") for each in unmet_requirements(name)]
    if unmet:
        found = "; ".join(f"{each.of} needs {each.wanted}, found {each.found or 'none'}" for each in unmet)
        needed = " ".join(dict.fromkeys(f"'{each.wanted}'" for each in unmet))
        return Finding(check="packages", state="wrong", found=found, remedy=f"pip install {needed}")
    found = ", ".join(f"{name} {metadata.version(name)}" for name in PINNED)
    return Finding(check="packages", state="ok", found=found)


class Unmet(NamedTuple):
    """A requirement that this environment does not meet."""

    of: str
    wanted: str
    found: str | None


def unmet_requirements(name: str) -> list[Unmet]:
    """What an installed package needs and this environment has not."""
    try:
        wanted = [Requirement(each) for each in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:
        return [] if name == "xclr" else [Unmet("xclr", name, None)]  # xclr itself may run from its sources
    extras = EXTRAS if name == "xclr" else ("",)
    now = [each for each in wanted if each.marker is None or any(each.marker.evaluate({"extra": it}) for it in extras)]
    found = [(each, _metadata(each.name, "Version")) for each in now]
    return [
        Unmet(name, f"{each.name}{each.specifier}", version)
        for each, version in found
        if version is None or not each.specifier.contains(version, prereleases=True)
    ]


def check_disk(home: Path) -> Finding:
    """Free disk below HOME."""
    free = shutil.disk_usage(existing(home)).free
    fits = free >= LEAST_DISK
    remedy = "" if fits else "free some (xclr gc --dry-run shows what no run needs), or set XCLR_HOME to another disk"
    return Finding(check="free disk", state="ok" if fits else "wrong", found=_gigabytes(free), remedy=remedy)


def check_memory() -> Finding:
    """Free memory."""
    free = psutil.virtual_memory().available
    fits = free >= LEAST_MEMORY
    remedy = "" if fits else "end other programs, or train with a smaller train.batch_size"
    return Finding(check="free memory", state="ok" if fits else "optional", found=_gigabytes(free), remedy=remedy)


def check_home(home: Path) -> Finding:
    """HOME can be written, and what kind of disk it is on."""
    place = existing(home)
    kind = fs_type_of(place, psutil.disk_partitions(all=True))
    shared = " (shared)" if kind in NETWORK else ""
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        try:
            lacking = check_file_system(place) or ""
        except XclrError as error:
            return Finding(check="HOME", state="wrong", found=error.message, remedy=error.remedy)
        return Finding(check="HOME", state="ok", found=f"{home} on {kind}{shared}", remedy=lacking)
    return Finding(
        check="HOME", state="wrong", found=f"{home} cannot be written",
        remedy="choose a folder you own: --home DIR or XCLR_HOME",
    )  # fmt: skip


def check_state(state: Path, partitions: Iterable[MountedDisk]) -> Finding:
    """STATE is on a local disk: SQLite's locks are not safe on a network file system."""
    kind = fs_type_of(existing(state), partitions)
    if kind in NETWORK:
        return Finding(
            check="STATE", state="wrong", found=f"{state} is on a network file system ({kind})",
            remedy="set XCLR_STATE to a folder on a local disk, such as /var/tmp/xclr",
        )  # fmt: skip
    return Finding(check="STATE", state="ok", found=f"{state} on {kind}")


def check_database(state: Path) -> Finding:
    """SQLite works in STATE, with a write-ahead log."""
    try:
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=existing(state)) as folder:
            mode = _write_ahead(Path(folder) / "probe.db")
        for path in (state / "mlflow.db", state / "prefect" / "prefect.db"):
            if path.exists():
                _read_schema(path)
    except (sqlite3.Error, OSError) as error:
        return Finding(
            check="SQLite", state="wrong", found=f"{state}: {error}",
            remedy="see who owns the files there, or set XCLR_STATE to another folder",
        )  # fmt: skip
    found = f"{sqlite3.sqlite_version}, journal {mode}"
    if mode == "wal":
        return Finding(check="SQLite", state="ok", found=found)
    return Finding(check="SQLite", state="wrong", found=found, remedy="set XCLR_STATE to a folder on a local disk")


def check_text_model(name: str) -> Finding:
    """The default text model is on this machine or can be fetched."""
    try:
        locate(name)
    except XclrError as error:
        return Finding(check="text model", state="wrong", found=error.message, remedy=error.remedy)
    return Finding(check="text model", state="ok", found=name)


def check_wordnet() -> Finding:
    """NLTK's WordNet corpus; the classes of ImageNet are shipped."""
    roots = [Path(each) for each in os.environ.get("NLTK_DATA", "").split(os.pathsep) if each]
    roots += [Path.home() / "nltk_data", Path(sys.prefix) / "nltk_data"]
    roots += [Path(each) / "nltk_data" for each in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")]
    for path in (root / "corpora" / name for root in roots for name in ("wordnet", "wordnet.zip")):
        if path.exists():
            return Finding(check="WordNet", state="ok", found=str(path))
    remedy = "only for graph.source wordnet on other classes: python -m nltk.downloader wordnet"
    return Finding(check="WordNet", state="optional", found="ImageNet's classes, which are shipped", remedy=remedy)


def check_slurm() -> Finding:
    """Slurm's commands."""
    missing = [name for name in SLURM if shutil.which(name) is None]
    if not missing:
        remedy = "xclr doctor --cluster FILE asks it about every stage kind of a cluster file"
        return Finding(check="Slurm", state="ok", found=", ".join(SLURM), remedy=remedy)
    remedy = "only to submit to a cluster: run on its login node; jobs on this machine need no Slurm"
    return Finding(check="Slurm", state="optional", found=f"no {', '.join(missing)}", remedy=remedy)


def check_server(name: str, variable: str, url: str | None, check: Callable[[str], str]) -> Finding:
    """The server that runs would use: the one that the variable names must be up and fit; none is no fault."""
    if url is None:
        return Finding(check=name, state="optional", found="none is up", remedy="xclr serve starts the servers")
    try:
        version = check(url)
    except XclrError as error:
        return Finding(check=name, state="wrong", found=error.message, remedy=error.remedy)
    source = f" ({variable})" if variable in os.environ else ""
    return Finding(check=name, state="ok", found=f"{version} at {servers.without_secrets(url)}{source}")


def check_left_behind(state: Path) -> Finding:
    """Servers that a killed run or `xclr serve` left behind."""
    found = servers.left_behind(state)
    if not found:
        return Finding(check="left servers", state="ok", found="none")
    pids = ", ".join(f"{name} (process {each.process.rsplit('/', 2)[1]})" for name, each in found.items())
    remedy = "they are ended when this command ends; if not, end them by hand"
    return Finding(check="left servers", state="optional", found=f"{pids}, whose users were killed", remedy=remedy)


def check_recipe(name: str) -> Finding:
    """The data of a named recipe; only the embedded ones must be there."""
    check = f"data of {name}"
    try:
        recipe = load_recipe(name, ())
        files = reader_of(recipe.data.source).files(recipe.data)
    except XclrError as error:
        state: Literal["optional", "wrong"] = "wrong" if name == "emoji" else "optional"
        return Finding(check=check, state=state, found=error.message, remedy=error.remedy)
    size = f"{_gigabytes(sum(path.stat().st_size for path in files))} of tables" if files else "drawn, no files"
    return Finding(check=check, state="ok", found=f"{recipe.data.source}: {size}")


def gpu_names() -> list[str]:
    """The GPUs that torch sees."""
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def check_gpus(names: Sequence[str]) -> Finding:
    """GPUs."""
    if names:
        return Finding(check="GPUs", state="ok", found=", ".join(names))
    return Finding(
        check="GPUs", state="optional", found="none", remedy="training uses the CPU; large recipes need GPUs"
    )


def check_throughput(world: int, device: str, seconds: float) -> Finding:
    """Pictures a second in the trainer's own steps, all GPUs together."""
    from infra.doctor.throughput import Throughput

    check, what = "throughput", f"{world} {device} processes"
    measured = _measured(
        check, what, ["infra.doctor.throughput", str(world), device, str(seconds)], seconds + STARTS_IN_S
    )
    if isinstance(measured, Finding):
        return measured
    found = Throughput.model_validate_json(measured)
    return Finding(
        check=check, state="ok",
        found=f"{found.images_per_s:,.0f} pictures a second, {found.images_per_s / world:,.0f} on each of {what}: "
        f"{found.backbone} in {found.precision}, {found.steps} steps of SimCLR, {found.memory_gb:.1f} GB each",
    )  # fmt: skip


def check_speed(device: str, sections: Sequence[str] = (), within_s: float = SPEED_WITHIN_S) -> Iterator[Finding]:
    """How near the device's limits trainings, losses, graphs and embeddings are, and what is the narrow place."""
    from infra.doctor.ratios import Ratio

    measured = _measured("speed", f"a {device} process", ["infra.doctor.ratios", device, *sections], within_s)
    if isinstance(measured, Finding):
        yield measured
        return
    found = [Ratio.model_validate_json(line) for line in measured.splitlines()]
    for each in found:
        said = f"{each.name}: {each.ratio:.2f}, bar {each.bar:.2f}"
        yield Finding(
            check="speed",
            state="ok" if each.met else "optional",
            found=said,
            remedy="" if each.met else each.remedy or "python -m infra.doctor.ratios cuda repeats the measurement",
        )
    narrow = max(found, key=lambda each: each.ratio / each.bar if each.bar else each.ratio)
    yield Finding(check="narrow place", state="ok", found="none" if narrow.met else narrow.name)


def check_gathering(world: int, device: str, within_s: float = PARITY_WITHIN_S) -> Finding:
    """Candidates gathered from several processes have one process's values and gradient."""
    from infra.doctor.parity import Parity

    check, what = "all-gather", f"{world} {device} processes"
    measured = _measured(check, what, ["infra.doctor.parity", str(world), device], within_s)
    if isinstance(measured, Finding):
        return measured
    parity = Parity.model_validate_json(measured)
    found = f"{what}: values differ by {parity.values:g}, gradient by {parity.gradient:.0e}"
    if parity.holds:
        return Finding(check=check, state="ok", found=found)
    return Finding(check=check, state="wrong", found=found, remedy="do not train on several processes here")


def _measured(check: str, what: str, module: Sequence[str], within_s: float) -> str | Finding:
    """What a module of this project prints when it is run, or what went wrong."""
    try:
        return _output([sys.executable, "-m", *module], within_s)
    except subprocess.TimeoutExpired:
        remedy = "see whether a firewall or GLOO_SOCKET_IFNAME / NCCL_SOCKET_IFNAME keeps processes apart"
        return Finding(check=check, state="wrong", found=f"{what} did not end in {within_s:g} s", remedy=remedy)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or str(error)).strip().splitlines()[-1:]
        remedy = f"see what it says: python -m {' '.join(module)}"
        return Finding(check=check, state="wrong", found=f"{what} failed: {''.join(last)}", remedy=remedy)


def _output(command: Sequence[str], within_s: float) -> str:
    """A program's standard output; ends it and what it started when it takes too long."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, said = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                send(child, signal.SIGKILL)
            process.kill()
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command), out, said)
    return out


def _write_ahead(path: Path) -> str:
    database = sqlite3.connect(path)
    try:
        (mode,) = database.execute("PRAGMA journal_mode=WAL").fetchone()
        database.execute("CREATE TABLE probe (x)")
        database.commit()
        return str(mode)
    finally:
        database.close()


def _read_schema(path: Path) -> None:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        database.execute("PRAGMA schema_version").fetchone()
    finally:
        database.close()


def _prefect_url(state: Path) -> str | None:
    running = servers.find(servers.PREFECT, state)
    return os.environ.get("PREFECT_API_URL") or (f"{running.url}/api" if running else None)


def _ask_prefect(state: Path, url: str) -> str:
    return servers.check_prefect(url, _knowing(state, url).get(PREFECT_AUTH))


def _ask_mlflow(state: Path, url: str) -> str:
    return servers.check_mlflow(url, mlflow_auth(_knowing(state, url)))


def _knowing(state: Path, url: str) -> dict[str, str]:
    """The environment of a client of a server."""
    return dict(os.environ) | servers.access_to(url, state)


def _mlflow_url(state: Path) -> str | None:
    running = servers.find(servers.MLFLOW, state)
    return os.environ.get("MLFLOW_TRACKING_URI") or (running.url if running else None)


def _metadata(name: str, key: str) -> str | None:
    try:
        return str(metadata.metadata(name)[key])
    except metadata.PackageNotFoundError:
        return None


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
