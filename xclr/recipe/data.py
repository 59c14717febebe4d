"""Which captioned pictures, and how they are fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from xclr.recipe.config import LATER, MIN_SIDE, RUNTIME, Config, OneOf, host_of
from xclr.recipe.scenes import ScenesConfig
from xclr.recipe.sources import SOURCES

SECRET = re.compile("token|key|sig|secret|pass|auth|credential", re.IGNORECASE)  # in names of an address's parameters


class DownloadConfig(Config):
    """How pictures are fetched: how many at once, how patiently, from whom not."""

    connections: int = Field(64, ge=1, description="downloads at once, of each process", json_schema_extra=RUNTIME)
    per_host: int = Field(8, ge=1, description="of these from one host", json_schema_extra=RUNTIME)
    tries: int = Field(2, ge=1, description="of each address, where another may help", json_schema_extra=RUNTIME)
    connect_s: float = Field(10.0, gt=0, description="until a server takes the connection", json_schema_extra=RUNTIME)
    read_s: float = Field(20.0, gt=0, description="between two pieces of a body", json_schema_extra=RUNTIME)
    total_s: float = Field(60.0, gt=0, description="of a try, its redirects included", json_schema_extra=RUNTIME)
    workers: int | None = Field(
        None, ge=1, description="processes that decode pictures; default: a core each", json_schema_extra=RUNTIME
    )
    proxy: str | None = Field(
        None,
        description="http://host:port that downloads go through; it resolves the names, so that it must refuse private "
        "addresses itself. The environment's proxies are not used",
        json_schema_extra=RUNTIME,
    )
    most_bytes: int = Field(20 << 20, ge=1, description="of a picture; larger ones are refused")
    robots: bool = Field(True, description="respect X-Robots-Tag noai and noimageai")

    @field_validator("proxy")
    @classmethod
    def _proxy_has_no_password(cls, value: str | None) -> str | None:
        if value is not None and (not host_of(value) or "@" in value or not _has_port(value)):
            raise ValueError("it must be http://host:port, without a name and password")
        return value


def _has_port(url: str) -> bool:
    """Whether the port of an address, if it names one, is one."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


class DataConfig(ScenesConfig):
    """Which captioned pictures."""

    any_text = frozenset({"separator"})

    source: Annotated[str, OneOf(SOURCES)] = Field(
        "emoji", description="; ".join(f"{name}: {source.about}" for name, source in SOURCES.items())
    )
    path: Path | None = Field(
        None, description="the table or folder (every source but emoji and scenes)", json_schema_extra=RUNTIME
    )
    url: str | None = Field(
        None,
        description="where to fetch the table from once, where `path` names none (cc3m, cc12m); pictures may be on the "
        "same host even if that is private",
        json_schema_extra=RUNTIME,
    )
    caption_column: str = Field("caption", description="column with the caption (table)")
    image_column: str = Field(
        "image",
        description="column with the picture: encoded bytes, a path that starts at the table, or a URL; where there is "
        "no column of this name, file_name (table)",
    )
    label_column: str | None = Field(None, description="column with the class; SupCon and the probes need it (table)")
    id_column: str | None = Field(
        None,
        description="column that names the rows, kept beside what comes of them; default: row_id, where it is (table)",
        json_schema_extra=LATER,
    )
    split_column: str | None = Field(
        None,
        description="column that says train, or what is held out: val, valid, validation, test, dev or eval; default: "
        "what the files' names say, else a tenth is held out (table)",
        json_schema_extra=LATER,
    )
    separator: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="between the values of a row; default: a comma in .csv, a tab in .tsv (table)",
        json_schema_extra=LATER,
    )
    encoding: str | None = Field(
        None,
        description="of a table that is text, as Python names it: cp1252, utf-16, shift_jis; default: that of its "
        "byte order mark, else utf-8 (table)",
        json_schema_extra=LATER,
    )
    caption_template: str = Field(
        "a photo of a {}", description="caption of a class, {} standing for its name (folder, imagenet)"
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="use the first rows only, of files of several splits as large a share of each; of folders so many "
        "pictures, drawn over all classes",
    )
    shortest_edge: int | None = Field(
        None,
        ge=MIN_SIDE,
        description="store pictures as upright RGB JPEGs whose shortest edge has at most so many pixels; default: as "
        "they were received",
    )
    shard: int = Field(
        10_000, ge=1, description="captions of one shard of pictures: a tar, and an element of a job array"
    )
    most_equal: int | None = Field(
        None,
        ge=1,
        description="leave out pictures that more addresses than so many show, which servers send in the place of what "
        "is gone; default: they are counted and told",
        json_schema_extra=LATER,
    )
    download: DownloadConfig = Field(DownloadConfig(), description="how pictures are fetched")
    allow_hosts: tuple[str, ...] = Field(
        (),
        description="private or loopback hosts that downloads may reach: nas (at 80 and 443), nas:8080, or nas:* for "
        "any port",
    )

    @model_validator(mode="after")
    def _source_has_a_path(self) -> DataConfig:
        if self.url is not None and not (SOURCES[self.source].by_url and host_of(self.url)):
            raise ValueError(f"`url` is an http(s) address of a table of cc3m or cc12m, not of {self.source}")
        if self.url is not None and "@" in urlsplit(self.url).netloc:  # it would stand in records and parameters
            raise ValueError("`url` must not hold a name and password: fetch the table yourself and set `path`")
        if self.url is not None and any(SECRET.search(name) for name, _ in parse_qsl(urlsplit(self.url).query)):
            raise ValueError("`url` must not hold a token or signature: fetch the table yourself and set `path`")
        if not self.is_located and self.url is None:
            raise ValueError(f"source {self.source} needs `path`, {SOURCES[self.source].path}")
        return self

    @model_validator(mode="after")
    def _drawn_where_it_says_so(self) -> DataConfig:
        if SOURCES[self.source].drawn:
            if self.limit is not None:
                raise ValueError("scenes have no `limit`: `pictures` says how many are trained on")
            return self
        for name, field in ScenesConfig.model_fields.items():
            if getattr(self, name) != field.default:
                raise ValueError(f"`{name}` is of source scenes, and source is {self.source}")
        return self

    @property
    def is_located(self) -> bool:
        """False while nobody has said, or fetched, where the table or folder is."""
        return self.path is not None or SOURCES[self.source].path is None

    @property
    def has_labels(self) -> bool:
        """Whether the pictures have classes."""
        labels = SOURCES[self.source].labels
        return labels == "always" or (labels == "column" and self.label_column is not None)

    @property
    def reachable(self) -> tuple[str, ...]:
        """Hosts that downloads may reach though they are private: those allowed, and the one that `url` names."""
        return (*self.allow_hosts, *([host_of(self.url)] if self.url else []))

    @property
    def for_captions(self) -> DataConfig:
        """Only what captions depend on."""
        others = ("allow_hosts", "url", "shortest_edge", "shard", "most_equal", "download", "size")
        return self.model_copy(update={name: DataConfig.model_fields[name].default for name in others})

    @field_validator("separator")
    @classmethod
    def _separator_parts_values(cls, value: str | None) -> str | None:
        if value is not None and value in '"\r\n':
            raise ValueError("it must be neither a quote nor the end of a line")
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, value: str | None) -> str | None:
        try:
            "a".encode(value or "utf-8")
        except (LookupError, ValueError) as error:
            raise ValueError("Python knows no such encoding of text; try utf-8, cp1252, utf-16 or shift_jis") from error
        return value

    @field_validator("caption_template")
    @classmethod
    def _template_has_one_place(cls, value: str) -> str:
        if value.count("{}") != 1:
            raise ValueError("it must hold {} once, where the name of the class goes")
        return value
