"""Tars as other programs write them."""

import io
import tarfile


def added(tar, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def write_samples(path, samples):
    """A tar with the files of each key."""
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for ending, content in files.items():
                added(tar, f"{key}.{ending}", content)
