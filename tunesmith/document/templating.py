"""The template engine: one environment for pages (escaping everything) and one for Markdown (escaping by `claims.quoting`)."""

from __future__ import annotations

import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2

from tunesmith.document.formats import counted, formatted

TEMPLATES = Path(__file__).parent / "templates"
BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f]")


def rendered(template: str, **values: Any) -> str:
    """The template filled in. A name that the template uses and nobody gave is an error, never an empty place."""
    return _environment(template.endswith(".html")).get_template(template).render(**values)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no markup, no HTML, no table borders, no links made from addresses."""
    flat = " ".join(BIDI_CONTROLS.sub("", text).split())
    flat = re.sub(r"([\\`*\[\]|~#$!])", r"\\\1", flat)
    flat = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", flat)
    flat = re.sub(r":(?=//)", r"\\:", flat)
    flat = re.sub(r"(?i)\bwww\.", r"www\\.", flat)
    flat = re.sub(r"^([-+=])", r"\\\1", flat)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def hue(number: int) -> int:
    """The angle on the wheel of colours, in degrees, for the class or type of this number; neighbours are far apart."""
    return round(210 + 137.508 * number) % 360


@cache
def _environment(escaping: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escaping,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"hue": hue, "plain": partial(formatted, form="plain"), "thousands": counted}
    return environment
