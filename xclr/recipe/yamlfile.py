"""YAML as it is read here: no key twice, numbers that are what they look like, and the line of every fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from xclr.errors import RecipeError

Place = Sequence[Any]  # keys and numbers of entries, the outermost first
MOST_VALUES = 100_000  # of a file, those of aliases counted each time
CORE, DOUBTFUL = "tag:yaml.org,2002:", "!doubtful"
PLAIN: Sequence[tuple[str, str]] = (  # what is no text without quotes: that of YAML 1.2, and 1_000 for 1000
    (CORE + "null", r"~|null|Null|NULL|"),
    (CORE + "bool", r"true|True|TRUE|false|False|FALSE"),
    (DOUBTFUL, r"[-+]?(0[0-9_]+|0b[01_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)"),
    (CORE + "int", r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+|0o[0-7]+"),
    (CORE + "float", r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?"),
    (CORE + "float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
    (CORE + "merge", r"<<"),
)


class YAMLError(ValueError):
    """What is wrong with a text, and on which line."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


class _Loader(yaml.SafeLoader):
    """Knows PLAIN alone, and refuses keys that stand twice and numbers that may be read in two ways."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.Node] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            before = first.setdefault((key.tag, key.value), key)
            if before is not key:
                raise YAMLError(f"{key.value} stands twice, first on line {_line(before)}", _line(key))
        return node

    def construct_doubtful(self, node: yaml.ScalarNode) -> None:
        """Raise YAMLError: YAML 1.1 takes 010 for 8 and 1:30 for 90."""
        raise YAMLError(f"{node.value} is no plain number: write it in tens, or in quotes for text", _line(node))


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that _Loader would take for something else."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_constructor(DOUBTFUL, _Loader.construct_doubtful)
for _tag, _pattern in PLAIN:
    for _each in (_Loader, _Dumper):
        _each.add_implicit_resolver(_tag, re.compile(rf"({_pattern})\Z"), None)


class Document(NamedTuple):
    """A file's content, and the nodes it was made of."""

    path: Path
    content: Any
    root: yaml.Node | None

    def line(self, place: Place) -> int | None:
        """The line of a key or an entry of a list, counted from 1; None for one that is not in the file."""
        line, node = None, self.root
        for part in place:
            line, node = _below(node, part)
        return line


def read_yaml(path: Path) -> Document:
    """Read a file; raises RecipeError that names the line where it cannot be read, or in two ways."""
    try:
        content, root = _parsed(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8", "save it as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}", "see who may read it") from error
    except YAMLError as error:
        line = "" if error.line is None else f", line {error.line}"
        raise RecipeError(f"{path}{line}: {error}", "mend that line" if line else "mend the file") from error
    return Document(path, content, root)


def parse_yaml(text: str) -> Any:  # noqa: ANN401
    """The content of a text; raises YAMLError."""
    return _parsed(text)[0]


def dump_yaml(content: Mapping[str, Any]) -> str:
    """A text of which `parse_yaml` gives the same content, in its order."""
    layout: dict[str, Any] = {"sort_keys": False, "default_flow_style": None, "allow_unicode": True, "width": 100}
    return str(yaml.dump(dict(content), Dumper=_Dumper, **layout))


def list_faults(where: str, faults: Iterable[tuple[Place, str]], line: Callable[[Place], int | None]) -> str:
    """Faults of places in one message, each with its line where there is one: x.yaml, line 3: a; line 9: b."""
    lines = [(line(place), fault) for place, fault in faults]
    listed = "; ".join(fault if at is None else f"line {at}: {fault}" for at, fault in lines)
    return f"{where}{': ' if lines[0][0] is None else ', '}{listed}"


def _parsed(text: str) -> tuple[Any, yaml.Node | None]:
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        _check_size(root)
        return (None if root is None else loader.construct_document(root)), root
    except YAMLError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f" ({error.context})" if error.context else ""
        raise YAMLError(f"is not YAML: {error.problem}{context}", None if mark is None else mark.line + 1) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a ValueError is a number of too many digits
        raise YAMLError("is not YAML: " + " ".join(str(error).split())) from error


def _check_size(root: yaml.Node | None) -> None:
    """Raise YAMLError for a text whose aliases make more of it than anybody can read, or repeat it in itself."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MOST_VALUES + 1  # as long as it is being counted: what holds itself has no end
            parts = node.value if isinstance(node, yaml.CollectionNode) else ()
            inner = (each for part in parts for each in (part if isinstance(part, tuple) else (part,)))
            sizes[id(node)] = 1 + sum(map(size, inner))
        return sizes[id(node)]

    if root is not None and size(root) > MOST_VALUES:
        raise YAMLError(f"its aliases make more than {MOST_VALUES:,} values of it")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _below(node: yaml.Node | None, part: object) -> tuple[int | None, yaml.Node | None]:
    """Line and node of an entry of a node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if key.value == str(part):
                return _line(key), value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return _line(node.value[part]), node.value[part]
    return None, None
