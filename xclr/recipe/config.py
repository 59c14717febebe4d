"""The base of every config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from xclr.printable import acts

MIN_SIDE = 8  # pixels; smaller pictures show nothing
LATER: Any = {"later": True}  # marks a field that came later; at its default it stays out of digests, as it was before
RUNTIME: Any = {"runtime": True}  # marks a field that never changes a value; it stays out of digests
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]  # what every library's generator takes


def host_of(url: str) -> str:
    """Host and port of an http(s) address; empty for another string."""
    parts = urlsplit(url)
    return parts.netloc if parts.scheme in {"http", "https"} else ""


class OneOf:
    """Marks a text as one of a registry's names; forms list them."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        return core_schema.literal_schema(self.names)


class Config(BaseModel):
    """Base of every config: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    any_text: ClassVar[frozenset[str]] = frozenset()  # fields in which control characters mean something

    @field_validator("*")
    @classmethod
    def _text_does_not_act(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
        """Refuse line ends and other control characters: names go to terminals, pages, scripts and databases."""
        texts = value if isinstance(value, tuple) else (value,)
        if info.field_name not in cls.any_text and any(isinstance(each, str) and acts(each) for each in texts):
            raise ValueError("it holds a line end, another control character or half a character")
        return value

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, given: Any) -> Any:  # noqa: ANN401
        """Refuse true and false where a number belongs: Python takes them for 1 and 0."""
        faults = list(cls._truths(given)) if isinstance(given, Mapping) else []
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return given

    @classmethod
    def _truths(cls, given: Mapping[Any, Any]) -> Iterator[InitErrorDetails]:
        fault = PydanticCustomError("number", "it is a number, not true or false")
        for name, value in given.items():
            entries = list(enumerate(value)) if isinstance(value, list | tuple) else [(None, value)]
            for number, entry in entries:
                if (
                    isinstance(entry, bool)
                    and name in cls.model_fields
                    and _is_number(cls.model_fields[name].annotation)
                ):
                    yield {"type": fault, "loc": (name,) if number is None else (name, number), "input": entry}


def _is_number(annotation: Any) -> bool:  # noqa: ANN401
    """Whether a field holds numbers and never true or false."""
    kinds = [annotation]
    for each in kinds:
        kinds += get_args(each)
    return (int in kinds or float in kinds) and bool not in kinds
