"""Published tables of addresses, and how their pictures are fetched."""

from tests.kit.web import LIMIT
from xclr.recipe import DataConfig, DownloadConfig

EDGE = 32
PATIENT = DownloadConfig(tries=2, workers=2, most_bytes=LIMIT * 3)


def table(rows, folder):
    """A published table of addresses and captions."""
    path = folder / "cc12m.tsv"
    path.write_text("".join(f"{url}\t{text}\n" for url, text in rows))
    return path


def conceptual(urls, folder, **changes):
    """Data with a distinct caption for each address."""
    path = table([(url, f"picture {row}") for row, url in enumerate(urls)], folder)
    fields = {"shard": 20, "shortest_edge": EDGE, "download": PATIENT, "allow_hosts": ("127.0.0.1:*",)} | changes
    return DataConfig(source="cc12m", path=path, **fields)
