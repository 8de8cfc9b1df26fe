"""Which file system a path is on: SQLite's log needs memory that processes share, so no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_NETWORK = {
    *("9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs"),
    *("nfs", "nfs3", "nfs4", "ocfs2", "gfs2", "smb3", "smbfs", "vboxsf", "webdav"),
    *("fuse.ceph", "fuse.davfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "macfuse"),
}


def network_file_system(path: Path) -> str:
    """The type of the network file system that path is on, "" when it is on none."""
    kind = file_system(path.resolve(), _mounts())
    return kind if kind in _NETWORK else ""


def file_system(path: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """The type of the file system that path is on. mounts: mount points and types, the latest last."""
    inside = [(len(Path(point).parts), kind) for point, kind in mounts if path.is_relative_to(point)]
    # Of two mounts at one place the later hides the earlier.
    return max(reversed(inside), key=lambda mount: mount[0], default=(0, ""))[1]


def _mounts() -> list[tuple[str, str]]:
    if sys.platform == "darwin":
        return parse_mount(subprocess.run(["/sbin/mount"], capture_output=True, text=True, timeout=5).stdout)
    table = Path("/proc/self/mounts")
    return parse_proc(os.fsdecode(table.read_bytes())) if table.exists() else []


def parse_proc(text: str) -> list[tuple[str, str]]:
    """Mount points and types from Linux' table, where a blank in a path is written \\040."""
    fields = (line.split(" ") for line in text.splitlines())
    return [(_unescaped(point), kind) for _, point, kind, *_ in fields]


def parse_mount(text: str) -> list[tuple[str, str]]:
    """Mount points and types from what the BSDs' mount prints: `//me@nas/x on /Volumes/x (smbfs, nodev)`."""
    return re.findall(r" on (/.*?) \((\w+)", text)


def _unescaped(path: str) -> str:
    if "\\" not in path:  # as in most: to compile the pattern takes longer than all the rest
        return path
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
