"""HTML pages that need nothing else: one style, plots as SVG that takes the page's own colour and font, thumbnails."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

INK = "#010203"  # stands for the page's text colour until the SVG is written


def environment(folder: Path) -> Environment:
    """Templates of a folder, beside style.css.j2; everything in them is escaped, and nothing may be missing."""
    folders = [folder, Path(__file__).parent]
    return Environment(loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def plot(title: str, salt: str, draw: Callable[[Axes], None]) -> Markup:
    """What `draw` puts on axes, as one <svg> element with a title, safe to stand in HTML beside others.

    Plots of one page need different salts: ids are made of them.
    """
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 8}):
        figure = Figure(figsize=(3.4, 2.2), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(INK)
        axes.tick_params(which="both", colors=INK, width=0.5, length=3)
        axes.grid(color=INK, alpha=0.12, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color=INK, linewidth=0.5)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), title)


def _inline(svg: str, title: str) -> Markup:
    """Only the element: no prologue, metadata or size; the page's colour, a name, and no id but those referred to."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :].rstrip()
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL).replace(INK, "currentColor")
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", body)
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None, "matplotlib writes a viewBox"
    name = Markup.escape(title)
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" aria-label="{name}">'
    return Markup(f"{head}<title>{name}</title>{body}")  # noqa: S704 - matplotlib escapes what it writes


def thumbnail(picture: Tensor) -> str:
    """A picture [4, side, side] as a WebP data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
