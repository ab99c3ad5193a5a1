"""Reads the page's files."""

from __future__ import annotations

from importlib import resources

# Path of a request -> file beside this one, and what it is.
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript")
        for name in ("page", "answer", "status", "tensors")
    },
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def read_page() -> dict[str, tuple[bytes, str]]:
    """Content and media type, by the path of a request."""
    folder = resources.files(__package__)
    return {
        path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in FILES.items()
    }
