"""What a name of a file inside something may be."""

from __future__ import annotations

import re
from collections.abc import Collection

_DRIVE = re.compile(r"[A-Za-z]:")


def leaves_folder(name: str) -> bool:
    """Whether unpacking under this name could write outside the folder that is unpacked into."""
    parts = name.replace("\\", "/").split("/")
    outside = ".." in parts or name.startswith(("/", "\\", "~"))
    return outside or _DRIVE.match(name) is not None or "\0" in name


def link_leaves(name: str, target: str, links: Collection[str]) -> bool:
    """Whether a link of this name leads out of the folder, or through another link.

    Args:
        links: the names of links that were met before.
    """
    if leaves_folder(target.replace("../", "")) or "\\" in target or not target:
        return True
    parts: list[str] = []
    for part in (*name.split("/")[:-1], *target.split("/")):
        if part == ".." and not parts:
            return True
        if "/".join(parts) in links:  # what lies behind another link is not known
            return True
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return False


def is_through(name: str, links: Collection[str]) -> bool:
    """Whether a folder in this name is one of the links."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return any("/".join(parts[:count]) in links for count in range(1, len(parts)))


def is_remote(name: str) -> bool:
    """Whether the name is an address of the network, or a file's whole path as an address."""
    return re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]{1,30}://", name) is not None


def reaches_out(name: str) -> bool:
    """Whether opening a file of this name leaves the model's own folder."""
    return leaves_folder(name) or is_remote(name)
