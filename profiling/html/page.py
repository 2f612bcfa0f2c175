"""The file: styles, script and data in one, under a policy that forbids it any network."""

from html import escape
from pathlib import Path

import msgspec

from profiling.html.model import Page

_HERE = Path(__file__).parent
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def render(page: Page) -> str:
    """Return the page as one HTML document."""
    # Inside <script> only "</" and "<!--" would end or change the data: no "<" stays in it.
    data = msgspec.json.encode(page).decode().replace("<", "\\u003c")
    style = (_HERE / "page.css").read_text()
    script = (_HERE / "page.js").read_text()
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
<noscript><p class="warning">The charts need JavaScript. The same figures as text:
python -m profiling report.</p></noscript>
<footer><ul>{notes}</ul></footer>
<div id="tip" role="status" hidden></div>
<script id="data" type="application/json">{data}</script>
<script>
{script}</script>
</body>
</html>
"""
