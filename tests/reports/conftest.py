"""A parser of our own pages, for the tests of both reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID = {'meta', 'img', 'br', 'link', 'input', 'rect', 'path', 'circle'}


@dataclass
class Page:
    """What a browser would make of a page."""

    source: str
    text: str = ''
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)

    def values(self, *names: str) -> list[str]:
        return [value for _, name, value in self.attributes if name in names]

    @property
    def targets(self) -> list[str]:
        """Everything that the page loads or links to."""
        return self.values('href', 'src', 'data', 'action', 'srcset', 'poster')

    @property
    def ids(self) -> list[str]:
        return self.values('id')


class PageParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page('')
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.tags.append(tag)
        self.page.attributes += [(tag, name, value or '') for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.tags.append(tag)
        self.page.attributes += [(tag, name, value or '') for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open[-1] != tag:
            self.page.unbalanced.append(tag)
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ('style', 'script'):
            self.page.text += data


@pytest.fixture
def read_page() -> Callable[[Path], Page]:
    def read(path: Path) -> Page:
        parser = PageParser()
        parser.page.source = path.read_text(encoding='utf-8')
        parser.feed(parser.page.source)
        parser.close()
        parser.page.unbalanced += parser.open
        return parser.page

    return read
