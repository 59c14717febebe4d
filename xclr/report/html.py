"""HTML pages that need nothing else: one style, plots as SVG that takes the page's own colour and font, thumbnails."""

from __future__ import annotations

import atexit
import base64
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from xclr.disk import existing

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image
    from torch import Tensor

INK = "#010203"  # stands for the page's text colour until the SVG is written
SIZE = (3.4, 2.2)  # of a plot, inches
DPI = 200  # of a picture
FONT_SIZE = 8
FORMULAS = False  # a dollar in a name begins none


def keep_fonts(folder: Path) -> None:
    """Where matplotlib keeps its list of fonts, once it is imported; else it writes below ~.

    Where the folder cannot be written it is one that goes with this process.
    """
    if os.access(existing(folder), os.W_OK):
        os.environ.setdefault("MPLCONFIGDIR", str(folder))
    elif "MPLCONFIGDIR" not in os.environ:
        os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="xclr-fonts-")
        atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)


def environment() -> Environment:
    """The templates of pages; everything in them is escaped, nothing may be missing, and `bdi` marks foreign text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=here, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters["bdi"] = isolated
    return made


def isolated(text: object) -> Markup:
    """Foreign text in an element of its own, so that its direction does not turn what stands around it."""
    return Markup("<bdi>{}</bdi>").format(text)


def plot(title: str, salt: str, draw: Callable[[Axes], None], size: tuple[float, float] = SIZE) -> Markup:
    """What `draw` puts on axes, as one <svg> element with a title, safe to stand in HTML beside others.

    Plots of one page need different salts: ids are made of them.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": FONT_SIZE, "text.parse_math": FORMULAS}
    ):
        metadata = {"Date": None, "Creator": None}
        _figure(draw, size).savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return _inline(buffer.getvalue(), title)


def picture(title: str, draw: Callable[[Axes], None], size: tuple[float, float] = SIZE) -> bytes:
    """The same as a PNG file on white, under its title, with a legend of what `draw` labelled."""
    import matplotlib as mpl
    from matplotlib.patheffects import withStroke

    buffer = io.BytesIO()
    with mpl.rc_context({"font.size": FONT_SIZE, "text.parse_math": FORMULAS}):
        figure = _figure(draw, size)
        figure.suptitle(title, fontsize=9)
        (axes,) = figure.axes
        for text in axes.texts:
            text.set_path_effects([withStroke(linewidth=2, foreground="white")])
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside lower center", fontsize=7, frameon=False, ncols=2)
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _figure(draw: Callable[[Axes], None], size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    draw(axes)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
    axes.tick_params(which="both", colors=INK, width=0.5, length=3)
    axes.grid(color=INK, alpha=0.12, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=INK, linewidth=0.5)
    return figure


def _inline(svg: str, title: str) -> Markup:
    """Only the element: no prologue, metadata or size; the page's colour, a name, and no id but those referred to."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :].rstrip()
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL).replace(INK, "currentColor")
    used = set(re.findall(r"#([\w-]+)", body))
    body = _thinned(body)
    body = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", body)
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None, "matplotlib writes a viewBox"
    name = Markup.escape(title)
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" aria-label="{name}">'
    return Markup(f"{head}<title>{name}</title>{body}")  # noqa: S704 - matplotlib escapes what it writes


def _thinned(body: str) -> str:
    """The same picture in half as many bytes: places in hundredths of a point, no indents, fonts or turns by 0."""
    body = re.sub(r"\n +", "\n", re.sub(r' transform="rotate\(-0 [^"]*"| font-family: [^;"]*;', "", body))
    return re.sub(r' (?:d|x|y|transform)="[^"]+"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body)


def thumbnail(picture: Tensor) -> str:
    """A picture [4, side, side] as a WebP data URI."""
    from PIL import Image

    return webp(Image.fromarray(picture.permute(1, 2, 0).numpy()))


def webp(picture: Image.Image) -> str:
    """A picture as a WebP data URI."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
