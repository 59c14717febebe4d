"""The curves of trainings: what is spooled of each metric is uploaded once, wherever an upload was killed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infra.tracking.metrics import batches_of, points_of
from xclr.training.spool import SPOOL, read_spool
from xclr.training.watch import read_notices

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

    from infra.tracking.connection import Connection

WARNING = "warning"  # tag of a training that does not learn: what is seen, and the remedy


class Curves:
    """What is known to be sent of each run, so that MLflow is asked once."""

    def __init__(self, mlflow: Connection) -> None:
        self.mlflow = mlflow
        self.points = 0  # that were sent
        self.forget()

    def forget(self) -> None:
        """Ask MLflow anew how far it came."""
        self.sent: dict[str, dict[str, int]] = {}  # last step sent of each metric, by MLflow's id of a run

    def send(self, run: MlflowRun, out: Path) -> None:
        """Upload what is spooled of each metric beyond the last step that the run has of it.

        Each by itself: whoever was killed between two requests may have sent a step's loss and not its learning rate.
        """
        from mlflow.entities import Metric

        run_id, client = run.info.run_id, self.mlflow.client
        points = list(read_spool(out / SPOOL))
        last = self.sent.pop(run_id, None)  # until all is sent nobody knows how far it came
        if last is None:
            known = client.get_run(run_id).data.metrics.keys() & {name for point in points for name in point.metrics}
            last = {name: max(each.step for each in client.get_metric_history(run_id, name)) for name in known}
        fresh = [Metric(*each) for point in points for each in points_of(point) if point.step > last.get(each[0], -1)]
        for batch in batches_of(iter(fresh)):
            client.log_batch(run_id, metrics=batch)
            self.points += len(batch)
        self.sent[run_id] = last | {each.key: each.step for each in fresh}

    def warn(self, run: MlflowRun, out: Path) -> bool:
        """Tag a run with what is seen of a training that does not learn; True where that is new."""
        notices = read_notices(out)
        if notices == run.data.tags.get(WARNING, ""):
            return False
        self.mlflow.client.set_tag(run.info.run_id, WARNING, notices)
        return True
