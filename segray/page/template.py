"""Templates of pages: HTML with places for what is drawn, and with its own style and script."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from string import Template

from segray.page.markup import Element, to_html


def fill_page(package: str, name: str, parts: Mapping[str, Iterable[Element]]) -> bytes:
    """Return a page with these parts in their places, as UTF-8.

    Only its own style and script may take effect. The style begins with that of all pages.

    Args:
        package: the package that has the template.
        name: the name of its file.
        parts: the elements by the names of their places.
    """
    page = files(package).joinpath(name).read_text("utf-8")
    common = files("segray.page").joinpath("page.css").read_text("utf-8")
    page = page.replace("<style>\n", f"<style>\n{common}", 1)
    hashes = {}
    for tag in ("style", "script"):
        content = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = hashlib.sha256(content.encode()).digest()
        hashes[f"{tag}_hash"] = f"sha256-{base64.b64encode(digest).decode()}"
    drawn = {place: to_html(*elements) for place, elements in parts.items()}
    return Template(page).substitute(drawn, **hashes).encode("utf-8", "replace")
