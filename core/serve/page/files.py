"""Reads the page's files."""

from __future__ import annotations

from importlib import resources

# Path of a request -> file beside this one, and what it is.
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def read_page() -> dict[str, tuple[bytes, str]]:
    """Content and media type, by the path of a request."""
    folder = resources.files(__package__)
    return {
        path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in _FILES.items()
    }
