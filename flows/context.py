"""What a flow run needs around it: store, cluster, tracker, progress; opened before the first stage, closed after."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infra import servers
from infra.access import PREFECT_AUTH, mlflow_auth
from infra.cluster import load_cluster
from infra.home.runs import RunRecord, new_record, tracking_tags, write_record
from infra.loopback import spare_loopback
from infra.processes import now
from infra.tracking.links import sqlite_uri
from infra.tracking.patient import UNTRACKED, PatientTracker, first_line
from infra.tracking.tracker import Tracker, sweep_key
from xclr.captions.stages import tell_choices
from xclr.disk import check_room, told
from xclr.environment import setting
from xclr.errors import StoreError, XclrError
from xclr.evaluation.stages import tell_skipped
from xclr.printable import acts, in_one_line
from xclr.recipe import Recipe
from xclr.report.html import keep_fonts
from xclr.stage import Stage
from xclr.store import Store, check_file_system
from xclr.sweep.layout import SweepPlan, values_of
from xclr.sweep.spec import Sweep

if TYPE_CHECKING:
    from prefect import Flow, State
    from prefect.client.schemas.objects import FlowRun

    from infra.mode import Mode
    from infra.progress import Board
    from infra.run import Run

current: list[Run] = []  # the runs of this process, for whoever must stop them


def home_folder(home: str | None) -> Path:
    """XCLR_HOME: artifacts, ledger and logs.

    Raises StoreError for a folder whose name could end a line of a batch script.
    """
    found = Path(home or setting("XCLR_HOME") or ".xclr").absolute()
    if acts(str(found)):
        raise StoreError(
            f"{in_one_line(str(found))} holds a line end, another control character or half a character",
            "set XCLR_HOME to a folder without",
        )
    return found


def state_folder(home: Path) -> Path:
    """XCLR_STATE: databases and the servers' files, on a local disk.

    Raises StoreError for a folder whose name the addresses of databases cannot hold.
    """
    state = Path(setting("XCLR_STATE") or home / "state").absolute()
    if odd := next((each for each in str(state) if each in "?#%" or acts(each)), None):
        raise StoreError(
            f"{state}: no database can be in a folder with {odd!r} in its name",
            "set XCLR_STATE to another one on a local disk",
        )
    return state


def give_home(state: Path) -> None:
    """Let STATE be ~ for Prefect and MLflow where this user has none, as in some containers."""
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - Path raises
        os.environ["HOME"] = str(state)


def check_places(home: Path) -> str | None:
    """A line where HOME's file system lacks what runs can do without.

    Raises StoreError unless HOME can be written and locked, and its disk, and that of STATE, have room for a run to
    begin.
    """
    Store(home).check_writable()
    line = check_file_system(home)
    for place in (home, state_folder(home)):
        check_room(place, servers.LEAST_ROOM)
    return line


def cluster_name(cluster: str | None) -> str:
    """The cluster file that was asked for, else the one that XCLR_CLUSTER names, else local."""
    return cluster or setting("XCLR_CLUSTER") or "local"


def tracking_uri(state: Path) -> str:
    """The user's MLflow, else the one of `xclr serve` when it is up, else the file it would serve."""
    running = servers.find(servers.MLFLOW, state)
    return setting("MLFLOW_TRACKING_URI") or (running.url if running else sqlite_uri(state))


def reach_mlflow(state: Path) -> str:
    """The same, once it answers; what its client must know of this STATE's server is then in the environment.

    Raises what servers.check_mlflow raises: one of servers.AWAY where MLflow may be back, and told later.
    """
    uri = tracking_uri(state)
    os.environ.update(servers.access_to(uri, state))
    servers.check_mlflow(uri, mlflow_auth(os.environ))
    return uri


@contextmanager
def open_run(
    recipe: Recipe,
    planned: Iterable[Stage],
    cluster: str | None,
    home: str | None,
    mode: Mode,
    swept: SweepPlan | None = None,
) -> Iterator[Run]:
    """Check what can be checked at once, then open a run of a recipe or a sweep; its record says how it ended.

    Raises StoreError for whatever comes of a disk that takes nothing more.
    """
    place = home_folder(home)
    with told(place, state_folder(place)), _open_run(recipe, planned, cluster, place, mode, swept) as run:
        yield run


@contextmanager
def _open_run(
    recipe: Recipe, planned: Iterable[Stage], cluster: str | None, home: Path, mode: Mode, swept: SweepPlan | None
) -> Iterator[Run]:
    from flows import notify
    from infra.run import Run  # here, because plans and status need no submitit

    store = Store(home)
    planned = list(planned)
    where = cluster_name(cluster)
    place = load_cluster(where)
    place.check_here()
    lacking = check_places(home)
    state = state_folder(store.home)
    state.mkdir(parents=True, exist_ok=True)
    keep_fonts(state / "matplotlib")
    away = _mlflow_away(store.home, state)
    if mode == "force":
        for stage in planned:
            store.discard(store.reference(stage.digest))
    with _board(len(planned), brief=swept is not None) as board:
        for line in (*tell_choices(recipe), *tell_skipped(recipe), *filter(None, [lacking, notify.lacking()])):
            board.say(line)
        sweep, cells = (None, ()) if swept is None else (swept.sweep, swept.cells)
        record = _record(recipe, sweep, where, [stage.digest for stage in planned]).model_copy(update={"cells": cells})
        tracker = Tracker(
            tracking_uri(state), recipe, servers.artifacts_of(state), tracking_tags(record), place.tracking
        )
        patient = PatientTracker(tracker, board.say, state / UNTRACKED / record.run, away)
        run = Run(record, store, place, mode, patient, board)
        current.append(run)
        if swept is not None:
            tracker.points = values_of(swept.cells)
            patient.end(sweep_key(swept.sweep.name), "RUNNING")
        try:
            yield run
        except BaseException:
            run.stopping.set()
            _close(run, planned, "failed")
            raise
        finally:
            current.remove(run)
        _close(run, planned, "completed")


def _close(run: Run, planned: Iterable[Stage], state: Literal["completed", "failed"]) -> None:
    """Tell MLflow how what the run did not make stands, whoever saw it end, and write how the run ended."""
    from infra.home.ends import endings, goes_on
    from infra.home.sweeps import cell_lines
    from infra.home.swept import state_of
    from infra.stage import track_lost

    try:
        for stage in planned:
            track_lost(run, stage)
        if (sweep := run.record.sweep) is not None:
            lines = cell_lines(run.store.home, run.record)
            run.tracker.end(sweep_key(sweep.name), state_of(lines, cancelled=run.cancelled))
        run.tracker.close(ended=not goes_on(endings(run.store.home, run.record.digests)))
    finally:
        run.close(state)


def _mlflow_away(home: Path, state: Path) -> Exception | None:
    """Why MLflow cannot be told now; where it can, it is told first what earlier runs left."""
    try:
        reach_mlflow(state)
    except servers.AWAY as error:
        return error
    tell_mlflow(home)
    return None


def tell_mlflow(home: Path, *, over: bool = False) -> None:
    """Tell MLflow what earlier runs could not, `over` for those alone that have no job left; a line for what cannot be.

    MLflow is asked only where there is something to tell.
    """
    from infra.home.ends import is_over, untold

    state = state_folder(home)
    try:
        records = [each for each in untold(home, state) if not over or is_over(home, each)]
        if records:
            from infra.catch_up import catch_up  # brings tables

            uri = reach_mlflow(state)
            for told in catch_up(home, uri, servers.artifacts_of(state), records):
                if told.fault:
                    _say_untold(told.fault)
    except Exception as error:  # noqa: BLE001 - the command itself was done
        _say_untold(first_line(error))


def _say_untold(why: str) -> None:
    print(f"xclr: MLflow has still not been told all of earlier runs (xclr sync): {why}", file=sys.stderr)


@contextmanager
def recording_failure(recipe: Recipe, sweep: Sweep | None, cluster: str | None, home: str | None) -> Iterator[None]:
    """Leave the record of a run that failed, with the reason, where the block raises XclrError before it is planned."""
    try:
        yield
    except XclrError as error:
        record = _record(recipe, sweep, cluster_name(cluster), ())
        failed = record.model_copy(update={"state": "failed", "ended": now(), "reason": error.line})
        with suppress(OSError):  # of a disk that takes nothing more
            write_record(home_folder(home), failed)
        raise


def _record(recipe: Recipe, sweep: Sweep | None, cluster: str, digests: Sequence[str]) -> RunRecord:
    record = new_record(recipe, digests, _flow_run(), "" if sweep is None else f"sweep-{sweep.name}")
    where = str(Path(cluster).absolute()) if Path(cluster).is_file() else cluster
    return record.model_copy(update={"sweep": sweep, "cluster": where})


def _board(stages: int, *, brief: bool) -> Board:
    """Shows a run on the terminal, but for a deployment's, which has none; the server gets every line."""
    from prefect.logging import get_run_logger
    from prefect.runtime import deployment

    from infra.progress import Board

    return Board(stages, quiet=deployment.id is not None, brief=brief, log=get_run_logger().info)


def _flow_run() -> str | None:
    from prefect.runtime import flow_run

    return str(flow_run.id) if flow_run.id else None


def cancel_jobs(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """End the jobs of a flow run that was cancelled in the Prefect UI or by its API."""
    from infra.cancel import cancel_flow_run

    home = home_folder((flow_run.parameters or {}).get("home"))
    cancel_flow_run(home, str(flow_run.id))
    tell_mlflow(home, over=True)


@contextmanager
def prefect_server(state: Path) -> Iterator[None]:
    """Point Prefect at the server that PREFECT_API_URL names, else at the one of this STATE, started if need be.

    Must come before the first import of Prefect, which reads its settings once.
    """
    state.mkdir(parents=True, exist_ok=True)  # or Prefect complains
    os.environ.update(servers.prefect_environment(state))
    spare_loopback(os.environ)
    if url := os.environ.get("PREFECT_API_URL"):
        os.environ.update(servers.access_to(url, state))
        servers.check_prefect(url, os.environ.get(PREFECT_AUTH))
        yield
        return
    with servers.using(servers.PREFECT, state) as address:
        url = f"{address}/api"
        os.environ.update({"PREFECT_API_URL": url, **servers.access_to(url, state)})
        servers.check_prefect(url, os.environ[PREFECT_AUTH])
        with servers.kept_up(servers.PREFECT, state, _tell):  # its clients ask again for a minute
            yield


def _tell(line: str) -> None:
    """Say something on the boards of this process's runs, else on standard error."""
    for run in current:
        run.board.say(line)
    if not current:
        print(line, file=sys.stderr)
