"""Search results for people: a table in the terminal, a page with pictures.

Takes metadata and scores of documents; gives text, or one self-contained HTML file.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cm3_retrieval.artifact import atomic_file
from cm3_retrieval.own_file import MARK
from cm3_retrieval.picture_file import ImageError, load_image, shown

_SIDE = 224
"""Longest side of a picture on the page, in pixels."""


def text_table(documents: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> str:
    """Return a table with one line per document: rank, score, key, caption and file."""
    lines = [f"{'':>3}  {'score':>7}  {'key':>10}  document"]
    for rank, (document, score) in enumerate(zip(documents, scores, strict=True), 1):
        caption = " ".join(str(document.get("caption") or "").split())
        what = shown(f"{caption[:60]}  {document.get('path', '')}".strip())  # no escape codes
        lines.append(f"{rank:>3}  {score:>7.4f}  {document['key']:>10}  {what}")
    return "\n".join(lines)


def write_contact_sheet(
    path: Path | str,
    title: str,
    documents: Sequence[Mapping[str, Any]],
    scores: Sequence[float],
) -> None:
    """Write one HTML page, whole or not at all.

    Args:
        path: Where to write the page.
        title: The query, as the page's title.
        documents: Metadata of each document; its picture is read from `path`.
        scores: One score per document.
    """
    cells = []
    for document, score in zip(documents, scores, strict=True):
        caption = html.escape(str(document.get("caption") or ""))
        cells.append(
            f"<figure>{_picture(document.get('path'))}<figcaption><b>{score:.4f}</b> "
            f"key {document['key']}<br>{caption}</figcaption></figure>"
        )
    page = (
        f"<!doctype html><!-- {MARK} --><meta charset='utf-8'>"
        f"<title>{html.escape(title)}</title><style>body{{font:14px sans-serif;margin:2em}}"
        "main{display:flex;flex-wrap:wrap;gap:1em}figure{width:224px;margin:0}"
        "figcaption{overflow-wrap:anywhere}img{max-width:100%}</style>"
        f"<h1>{html.escape(title)}</h1><main>{''.join(cells)}</main>\n"
    )
    with atomic_file(path) as file:
        file.write(page.encode(errors="replace"))


def _picture(path: str | None) -> str:
    if not path:
        return ""
    try:
        image = load_image(path)
    except ImageError:
        return f"<p>{html.escape(path)} cannot be shown</p>"
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return f"<img alt='' src='data:image/png;base64,{data}'>"
