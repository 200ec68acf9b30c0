"""What every node leaves in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl2_bids.files import write_json


def here(name: str) -> str:
    """The path of a file in the folder of the node that runs."""
    return str(Path.cwd() / name)


def write_facts(step: str, warnings: list[str], methods: list[str], **more: Any) -> str:
    """Write ``facts.json`` in the folder of the node that runs; its path."""
    write_json(
        'facts.json', {'step': step, 'warnings': list(warnings), 'methods': methods, **more}
    )
    return here('facts.json')
