"""What the pages of all reports share: one look, filled templates, pictures inside the file.

A page is one HTML file that needs nothing beside itself. Its template stands beside the module that
fills it and extends ``report_page.html.j2``.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

_HERE = Path(__file__).parent
_MIME_TYPES = {".svg": "image/svg+xml", ".jpg": "image/jpeg", ".png": "image/png"}


def load_template(file: Path) -> Template:
    """Read the template of a page; text that it is filled with is escaped.

    Args:
        file: The template.
    """
    environment = Environment(
        loader=FileSystemLoader((file.parent, _HERE)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    return environment.get_template(file.name)


def shared_look() -> str:
    """Return the styles that all pages share, as CSS."""
    return (_HERE / "look.css").read_text(encoding="utf-8")


def jpeg_url(picture: Image.Image, *, max_side_px: int, quality: int) -> str:
    """Return a picture as the address of a JPEG that stands in the page itself.

    Args:
        picture: The picture; it stays as it is.
        max_side_px: Longest side of the JPEG; smaller pictures are not enlarged.
        quality: Of the JPEG, 1..95.
    """
    reduced = picture.convert("RGB")
    reduced.thumbnail((max_side_px, max_side_px))
    buffer = io.BytesIO()
    reduced.save(buffer, "JPEG", quality=quality)
    return _data_url(_MIME_TYPES[".jpg"], buffer.getvalue())


def file_url(file: Path) -> str:
    """Return a file of a picture as an address that holds its content.

    Args:
        file: Ends in ``.svg``, ``.jpg`` or ``.png``.
    """
    return _data_url(_MIME_TYPES[file.suffix], file.read_bytes())


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"  # noqa: RUF001 - a dash, not a minus
