"""The Python of this clone for tools: the one of ``.venv``, with all that a tool imports."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

VENV = Path(__file__).resolve().parents[1] / '.venv'
PYTHON = VENV / 'bin' / 'python'


def use_own_python(*needed: str) -> None:
    """Run the tool with the Python of ``.venv``, where there is one.

    Parameters
    ----------
    needed : packages that the tool imports; where one is missing, the tool ends with what to do.
    """
    if PYTHON.is_file() and Path(sys.prefix) != VENV:
        os.execv(PYTHON, [str(PYTHON), *sys.argv])  # noqa: S606
    for name in needed:
        if importlib.util.find_spec(name) is None:
            sys.exit(f'{sys.argv[0]}: {name} is missing. Run tools/environment test first.')
