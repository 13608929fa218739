"""The frame of HTML pages that need no network. Their security policy also forbids it."""

from __future__ import annotations


def page(title: str, sources: str, style: str, body: str) -> str:
    """Return a page.

    Args:
        title: as HTML.
        sources: what the page may use besides its own text, as in a Content-Security-Policy.
        style: CSS.
        body: HTML.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; {sources}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}</body>
</html>
"""
