"""JSON Merge Patch."""

from __future__ import annotations

from typing import Any


def merge_patch(body: Any, patch: Any) -> Any:
    """``body`` after a JSON Merge Patch (RFC 7386): null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(body) if isinstance(body, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
