"""The HTML page around sheets and pairs of faces: no scripts, nothing from outside its folder."""

from __future__ import annotations

import html


def render_page(title: str, body: str) -> bytes:
    """Return a page. title: plain text; body: HTML, escaped where it must be."""
    title = html.escape(title)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 2rem auto; max-width: 84rem; padding: 0 1rem; background: #181a1e; color: #e1e4e8;
  font: 1rem/1.5 system-ui, sans-serif }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1.2rem }}
figure {{ margin: 0 0 2rem }} .grid figure {{ margin: 0 }}
img {{ width: 100%; height: auto; border-radius: 6px }}
figcaption {{ overflow-wrap: anywhere }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
""".encode()
