"""The versions of a store's schema: files of this package, in the order of their numbers."""

from __future__ import annotations

from importlib import resources


def schema_versions(store: str) -> list[str]:
    """Return the scripts of one kind of store, as their files begin: "sqlite", "postgres"."""
    room = resources.files("relproxy.store") / "schema"
    files = sorted(
        (f for f in room.iterdir() if f.name.startswith(f"{store}-")), key=lambda f: f.name
    )
    return [file.read_text(encoding="utf-8") for file in files]
