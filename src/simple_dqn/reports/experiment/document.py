"""A report as a list of blocks, written as HTML in one file without network, or as Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from simple_dqn.reports.experiment.figures import Panel, page_colours, svg
from simple_dqn.reports.html import page

_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")


class Heading(NamedTuple):
    """The title of a section."""

    text: str


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Items(NamedTuple):
    """A list."""

    texts: Sequence[str]


class Code(NamedTuple):
    """A command."""

    text: str


class Table(NamedTuple):
    """Rows of cells. The first `headers` cells of a row say what it is about."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    headers: int = 1


class Figures(NamedTuple):
    """Panels side by side."""

    panels: Sequence[Panel]


class Films(NamedTuple):
    """Films side by side: title, caption, MP4 file, link from the report's folder."""

    films: Sequence[tuple[str, str, bytes, str]]


Block = Heading | Text | Items | Code | Table | Figures | Films


def html(title: str, blocks: Sequence[Block]) -> str:
    """Return the page."""
    number = 0
    parts = []
    for block in blocks:
        if isinstance(block, Figures):
            figures = "".join(_figure(panel, number + i) for i, panel in enumerate(block.panels))
            number += len(block.panels)
            parts.append(f'<div class="figures">\n{figures}</div>\n')
        else:
            parts.append(_html_of(block))
    body = f"<h1>{escape(title)}</h1>\n{''.join(parts)}"
    return page(escape(title), "media-src data:; style-src 'unsafe-inline'", f"{_colours()}{_STYLE}", body)


def _colours() -> str:
    """Return the variables of the figures' colours."""
    light, dark = (
        "".join(f" --{name}: {colour};" for colour, name in names.items()) for names in page_colours().values()
    )
    return f"""
:root {{ color-scheme: light dark;{light} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{{dark} }} }}
"""


def _html_of(block: Heading | Text | Items | Code | Table | Films) -> str:
    if isinstance(block, Heading):
        return f"<h2>{escape(block.text)}</h2>\n"
    if isinstance(block, Text):
        return f"<p>{escape(block.text)}</p>\n"
    if isinstance(block, Code):
        return f"<pre><code>{escape(block.text)}</code></pre>\n"
    if isinstance(block, Items):
        return "<ul>\n" + "".join(f"<li>{escape(text)}</li>\n" for text in block.texts) + "</ul>\n"
    if isinstance(block, Films):
        return f'<div class="figures">\n{"".join(_film(*film) for film in block.films)}</div>\n'
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in block.columns)
    rows = "".join(f"<tr>{_cells(row, block)}</tr>\n" for row in block.rows)
    return f"""<p class="caption">{escape(block.caption)}</p>
<div class="table" tabindex="0" role="group" aria-label="{escape(block.caption)}"><table>
<thead><tr>{columns}</tr></thead>
<tbody>
{rows}</tbody></table></div>
"""


def _cells(row: Sequence[str], table: Table) -> str:
    cells = []
    for i, (name, text) in enumerate(zip(table.columns, row, strict=True)):
        begin, end = ('th scope="row"', "th") if i < table.headers else (f'td data-column="{escape(name)}"', "td")
        cells.append(f"<{begin}>{escape(text)}</{end}>")
    return "".join(cells)


def _figure(panel: Panel, number: int) -> str:
    return f"""<figure role="group" aria-label="{escape(panel.alt)}">
{svg(panel, number)}
<figcaption>{escape(panel.caption)}</figcaption></figure>
"""


def _film(title: str, caption: str, film: bytes, link: str) -> str:
    data = base64.b64encode(film).decode()
    return f"""<figure><video controls loop muted playsinline preload="metadata" aria-label="{escape(title)}"
 src="data:video/mp4;base64,{data}"></video>
<figcaption>{escape(f"{title}: {caption}")}</figcaption></figure>
"""


def markdown(title: str, blocks: Sequence[Block], picture: str) -> str:
    """Return the report as Markdown. All figures are in one `picture`, which stands where the first would."""
    parts = [f"# {_plain(title)}"]
    shown = False
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {_plain(block.text)}")
        elif isinstance(block, Text):
            parts.append(_plain(block.text))
        elif isinstance(block, Code):
            parts.append(f"```sh\n{block.text}\n```")
        elif isinstance(block, Items):
            parts.append("\n".join(f"- {_plain(text)}" for text in block.texts))
        elif isinstance(block, Table):
            lines = [block.columns, ["---"] * len(block.columns), *block.rows]
            parts.append("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))
            parts.append(_plain(block.caption))
        elif isinstance(block, Films):
            parts += [f"[{_plain(name)}]({link}): {_plain(caption)}" for name, caption, _, link in block.films]
        else:
            parts += [] if shown else [f"![{_plain('; '.join(p.title for p in block.panels))}]({picture})"]
            shown = True
            parts += [f"**{_plain(panel.title)}.** {_plain(panel.caption)}" for panel in block.panels]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Return text without meaning to Markdown."""
    return re.sub(r"([\\`*<|]|(?<!\w)_|_(?!\w)|\](?=[(\[:]))", r"\\\1", text.replace("\n", " "))


def _cell(text: str) -> str:
    return text if text == "---" else _plain(text)
