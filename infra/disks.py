"""Which file system holds a path, and whether other machines see it too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

NETWORK = frozenset(
    {"nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p"}
    | {"orangefs", "pvfs2", "panfs", "wekafs"}
    | {f"fuse.{name}" for name in ("sshfs", "glusterfs", "ceph", "ceph-fuse", "beegfs", "s3fs", "rclone", "gcsfuse")}
)


class MountedDisk(Protocol):
    """A mounted file system, as psutil describes it."""

    @property
    def mountpoint(self) -> str:
        """Where it is mounted."""

    @property
    def fstype(self) -> str:
        """Its type."""


def fs_type_of(path: Path, partitions: Iterable[MountedDisk]) -> str:
    """Type of the file system that holds an absolute path; of two mounts at one place the later one counts."""
    kind, depth = "unknown", 0
    for each in partitions:
        mounted = Path(each.mountpoint)
        if path.is_relative_to(mounted) and len(mounted.parts) >= depth:
            kind, depth = each.fstype, len(mounted.parts)
    return kind
