"""How Sphinx builds the documentation: ``tools/docs``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

import reference_tables  # noqa: E402

from ssl2_bids import __version__  # noqa: E402

project = 'ssl2-bids'
author = copyright = 'The ssl2-bids developers'
version = release = __version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
source_suffix = {'.md': 'markdown'}
exclude_patterns = ['build', 'reference/generated']
highlight_language = 'none'
smartquotes = False  # options have two hyphens, and quotation marks are typed by users

myst_enable_extensions = ['colon_fence', 'deflist']
myst_heading_anchors = 4

autodoc_typehints = 'description'
autodoc_member_order = 'bysource'
napoleon_google_docstring = False

html_theme = 'furo'
html_title = f'ssl2-bids {version}'
html_static_path = ['static']
html_css_files = ['site.css']
html_copy_source = False
html_show_sourcelink = False


def complete_parameters(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Turn ``name : what it is`` of short docstrings into the two lines that numpydoc asks for.

    Where a description stands below already, what follows the colon is a type, and stays.
    """
    section = ''
    for number in reversed(range(len(lines))):
        heading = next(
            (lines[n - 1] for n in range(number, 0, -1) if re.fullmatch('-{3,}', lines[n])), ''
        )
        section = heading.strip()
        line = lines[number]
        following = lines[number + 1] if number + 1 < len(lines) else ''
        if section not in ('Parameters', 'Attributes', 'Raises'):
            continue
        found = re.fullmatch(r'([A-Za-z_][\w, *]*) : (.+)', line)
        if found and not following.startswith(' '):
            lines[number : number + 1] = [found[1], f'    {found[2]}']
        elif found and section != 'Raises' and _is_sentence(found[2]):
            lines[number : number + 1] = [found[1], f'    {found[2]}']


def _is_sentence(text: str) -> bool:
    """Whether a text that goes on in the next line is a description and no type."""
    return len(text.split()) > 6


def setup(app: Sphinx) -> None:
    """Make the generated pages, and read the docstrings in their short form."""
    app.connect('builder-inited', lambda app: reference_tables.write(DOCS / 'reference/generated'))
    app.connect('autodoc-process-docstring', complete_parameters, priority=400)
