"""Self-contained HTML pages from templates: no script, no link, pictures inside, text escaped."""

from __future__ import annotations

import base64
import functools
import struct
from typing import Any, NamedTuple

import jinja2

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DOTS_PER_CSS_PIXEL = 200 / 96


class Picture(NamedTuple):
    """A picture inside a page.

    data: The PNG in base 64.
    width: In CSS pixels.
    height: In CSS pixels.
    caption: Plain text; its first sentence says what is shown, for those who cannot see it.
    """

    data: str
    width: int
    height: int
    caption: str


def picture(png: bytes, caption: str) -> Picture:
    """Return a picture from the bytes of a PNG file.

    Raises:
      ValueError: The bytes are not a PNG.
    """
    if not png.startswith(_PNG_SIGNATURE) or len(png) < 24:
        raise ValueError("A figure is not a PNG; figures are given as the bytes of PNG files.")
    width, height = (round(n / _DOTS_PER_CSS_PIXEL) for n in struct.unpack(">II", png[16:24]))
    return Picture(base64.b64encode(png).decode("ascii"), width, height, caption)


def render(template: str, *, package: str = __package__, **values: Any) -> str:
    """Return a template filled in, every text in it escaped but what is ``Markup``.

    Args:
      template: Name of its file.
      package: Whose folder ``templates`` is looked into, before that of ``bnn_adv.report``.
      values: What the template names.
    """
    return _environment(package).get_template(template).render(values)


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    packages = dict.fromkeys((package, __package__))
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
