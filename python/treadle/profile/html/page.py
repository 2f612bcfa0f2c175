"""The file: styles, scripts and data in one, under a policy that forbids it any network."""

from html import escape
from pathlib import Path

import msgspec

from treadle.profile.html.model import Flames, Page

_HERE = Path(__file__).parent
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def render(page: Page) -> str:
    """Return the page as one HTML document."""
    # Inside <script> only "</" and "<!--" would end or change the data: no "<" stays in it.
    data = msgspec.json.encode(page).decode().replace("<", "\\u003c")
    style = (_HERE / "page.css").read_text()
    scripts = "".join(
        f"<script>\n{(_HERE / name).read_text()}</script>\n" for name in _scripts(page)
    )
    unscripted = escape(f"The charts need JavaScript. {page.without_script}".rstrip())
    facts = "".join(f"<p>{escape(line)}</p>" for line in page.facts)
    warnings = "".join(f'<p class="warning">{escape(line)}</p>' for line in page.warnings)
    notes = "".join(f"<li>{escape(line)}</li>" for line in page.notes)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(page.title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<div class="top"><h1>{escape(page.title)}</h1><button id="theme" type="button">Dark</button></div>
<div class="facts">{facts}</div>{warnings}
</header>
<main id="sections"></main>
<noscript><p class="warning">{unscripted}</p></noscript>
<footer><ul>{notes}</ul></footer>
<div id="tip" role="status" hidden></div>
<script id="data" type="application/json">{data}</script>
{scripts}</body>
</html>
"""


def _scripts(page: Page) -> list[str]:
    names = ["tools.js", "charts.js", "tables.js"]
    if any(isinstance(section, Flames) for section in page.sections):
        names.append("flames.js")
    return [*names, "page.js"]
