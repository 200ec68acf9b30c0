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
autodoc_typehints_description_target = 'documented_params'
autodoc_member_order = 'bysource'
napoleon_google_docstring = False
napoleon_use_ivar = True

html_theme = 'furo'
html_title = f'ssl2-bids {version}'
html_static_path = ['static']
html_css_files = ['site.css']
html_copy_source = False
html_show_sourcelink = False


def complete_sections(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Give the sections of short docstrings the form that numpydoc asks for.

    ``name : what it is`` becomes two lines, for the type stands in the signature; so does what is
    returned. Where an indented description stands below already, nothing changes.
    """
    if what == 'property' and lines:  # napoleon takes what stands before a colon for the type
        lines[0] = lines[0].replace(': ', ' – ')
    section, completed = '', []
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ''
        if re.fullmatch('-{3,}', following):
            section = line.strip()
        described = following.startswith(' ') and not _is_phrase(line.partition(' : ')[2] or line)
        found = re.fullmatch(r'([A-Za-z_][\w., *]*) : (.+)', line)
        if section in ('Parameters', 'Attributes', 'Raises') and found and not described:
            for each in found[1].split(', '):
                completed += [each, f'    {found[2]}']
        elif section == 'Returns' and re.match(r'\w', line) and line != section and not described:
            if completed[-1] == '-' * len(section):
                completed.append(str(getattr(obj, '__annotations__', {}).get('return', '')))
            completed.append(f'    {line}')
        else:
            completed.append(line)
    lines[:] = completed


def _is_phrase(text: str) -> bool:
    """Whether a text is a description, and no type such as ``ndarray of shape (I, J, K)``."""
    return len(text.split()) > 6


def setup(app: Sphinx) -> None:
    """Make the generated pages, and read the docstrings in their short form."""
    app.connect('builder-inited', lambda app: reference_tables.write(DOCS / 'reference/generated'))
    app.connect('autodoc-process-docstring', complete_sections, priority=400)
