"""Templates of TemplateFlow as output spaces: their names, and their files on this machine.

Files are looked up with TemplateFlow's client. Nothing is downloaded, and nothing is written into
``TEMPLATEFLOW_HOME``: the client fills an empty folder when it is imported, so it is imported only
where the template's folder exists.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ssl2_bids.bids.absent import how_to_get, is_absent
from ssl2_bids.contrasts import SUFFIXES
from ssl2_bids.errors import UnavailableError, UsageError
from ssl2_bids.files import pointer_of
from ssl2_bids.settings import ATLAS_SPACE

if TYPE_CHECKING:
    from templateflow.client import TemplateFlowClient

HOME = 'TEMPLATEFLOW_HOME'
ARCHIVE = 'https://templateflow.s3.amazonaws.com'
MODIFIER = re.compile(r'(res|cohort)-0*(\d+)')
MASK_SUFFIX = '_desc-brain_mask.nii.gz'
EXTENSIONS = ['.nii.gz', '.nii']


@dataclass(frozen=True)
class TemplateSpace:
    """A template of TemplateFlow as an output space: ``NAME[:cohort-Y][:res-X]``.

    Attributes
    ----------
    resolution : the number behind ``res-``; None where none was asked: that of ``res-1``, or of
        the one file of a template without resolutions.
    """

    name: str
    cohort: int | None = None
    resolution: int | None = None

    @property
    def label(self) -> str:
        """The template as ``from-`` and ``to-`` of a transform name it."""
        return self.name if self.cohort is None else f'{self.name}+{self.cohort}'

    @property
    def entities(self) -> dict[str, str | None]:
        """For names of outputs."""
        numbers = {'cohort': self.cohort, 'resolution': self.resolution}
        return {'space': self.name} | {k: str(n) if n else None for k, n in numbers.items()}

    def __str__(self) -> str:
        cohort = '' if self.cohort is None else f':cohort-{self.cohort}'
        return self.name + cohort + ('' if self.resolution is None else f':res-{self.resolution}')


@dataclass(frozen=True)
class Template:
    """The files of a template space on this machine.

    Attributes
    ----------
    image, mask : T1w image and brain mask.
    uri : address of the image in TemplateFlow's archive, or BIDS URI in a dataset of ``-d``: there
        it is the image of a participant on the grid of the template.
    digests : SHA-256 of image and mask; empty where nothing is compared with a former run.
    """

    space: TemplateSpace
    image: Path
    mask: Path
    uri: str
    digests: tuple[str, str] = ('', '')


def parse_space(text: str) -> TemplateSpace:
    """A template space from ``NAME[:res-X][:cohort-Y]``, in any order of the modifiers.

    Raises
    ------
    UsageError : an unknown or repeated modifier.
    """
    name, *modifiers = text.split(':')
    numbers: dict[str, int] = {}
    for modifier in modifiers:
        match = MODIFIER.fullmatch(modifier)
        if not match or not int(match[2]) or match[1] in numbers:
            raise UsageError(
                f'the output space "{text}" has an unknown modifier',
                advice='A template is written NAME[:cohort-Y][:res-X], with numbers.',
            )
        numbers[match[1]] = int(match[2])
    return TemplateSpace(name, numbers.get('cohort'), numbers.get('res'))


def templateflow_home() -> Path:
    """The folder of TemplateFlow's client."""
    from platformdirs import user_cache_dir  # as the client does

    return Path(os.environ.get(HOME) or user_cache_dir('templateflow')).absolute()


def find_templates(spaces: list[TemplateSpace]) -> list[Template]:
    """The files of template spaces.

    Raises
    ------
    UsageError : a template has cohorts, and none was named.
    UnavailableError : files are missing; the message has the command that gets them.
    """
    home = templateflow_home()
    client: TemplateFlowClient | None = None
    found = []
    for space in spaces:
        folder = home / f'tpl-{space.name}'
        if not re.fullmatch('[0-9A-Za-z]+', space.name) or not folder.is_dir():
            raise missing_templates([space])
        if client is None:
            from templateflow.client import TemplateFlowClient

            client = TemplateFlowClient(root=home, use_datalad=False, autoupdate=False)
        found.append(_find_template(client, space, home))
    return found


def _find_template(client: TemplateFlowClient, space: TemplateSpace, home: Path) -> Template:
    images = _present(client, space, suffix='T1w', desc=None)
    cohorts = _labels(images, 'cohort')
    if cohorts and space.cohort is None:
        raise UsageError(
            f'the template {space.name} has several cohorts',
            advice=f'Name one: {", ".join(f"{space.name}:cohort-{c}" for c in cohorts)}.',
        )
    if space.resolution is None:  # the usual grid, or the one there is
        number = 1 if _labels(images, 'res') else None
        images = [path for path in images if _number(path, 'res') == number]
    else:
        number = space.resolution
    masks = [
        path
        for path in _present(client, space, suffix='mask', desc='brain')
        if _number(path, 'res') == number
    ]
    if not images or not masks:
        raise missing_templates([space])
    uri = f'{ARCHIVE}/{images[0].relative_to(home).as_posix()}'
    return Template(space, images[0], masks[0], uri)


def _present(
    client: TemplateFlowClient, space: TemplateSpace, *, suffix: str, desc: str | None
) -> list[Path]:
    """The files of a template that have content, first those without further entities.

    The client lists empty files for what it could download.
    """
    asked = {'cohort': space.cohort, 'resolution': space.resolution}
    paths = client.ls(
        space.name,
        suffix=suffix,
        desc=desc,
        extension=EXTENSIONS,
        **{key: number for key, number in asked.items() if number is not None},
    )
    there = [path for path in paths if path.is_file() and path.stat().st_size]
    return sorted(there, key=lambda path: (path.name.count('_'), path.name))


def _number(path: Path, entity: str) -> int | None:
    match = re.search(rf'_{entity}-0*(\d+)_', path.name)
    return int(match[1]) if match else None


def _labels(paths: list[Path], entity: str) -> list[int]:
    """All numbers of an entity, sorted."""
    return sorted({n for path in paths if (n := _number(path, entity)) is not None})


def missing_templates(spaces: Sequence[TemplateSpace]) -> UnavailableError:
    """The error of template spaces that are not on this machine, and what to do about each.

    One command gets those that TemplateFlow has; names that it does not know come with names
    that are like them, and cohorts or resolutions that it has not with those that it has.
    """
    home, offered = templateflow_home(), offered_spaces()
    unknown = [space for space in spaces if space.name not in offered]
    wrong = [space for space in spaces if _is_wrong(space, offered.get(space.name, set()))]
    bare = [space for space in spaces if space not in (*unknown, *wrong) and _is_bare(space)]
    rest = [space for space in spaces if space not in (*unknown, *wrong, *bare)]
    message = f'the output space "{spaces[0]}" is not available'
    message += ''.join(f', nor is "{space}"' for space in spaces[1:])
    if rest:
        them = 'them' if rest[1:] else 'it' if len(spaces) == 1 else f'"{rest[0]}"'
        message += f': {HOME} ({home}) has no T1w image and brain mask of {them}'
    advice = [_like(space, offered) for space in unknown]
    for space in wrong:
        names = sorted(str(TemplateSpace(space.name, *one)) for one in offered[space.name])
        advice.append(f'TemplateFlow has {space.name} as {", ".join(names)}.')
    for space in bare:
        advice.append(
            f'TemplateFlow has no T1w image with a brain mask of {space}, which results need.'
        )
    advice.append(f'Other output spaces: {", ".join(("anat", *SUFFIXES, ATLAS_SPACE))}.')
    linked = [path for space in rest for path in _absent_files(space, home)]
    if linked:
        advice.append(how_to_get(home, linked))
    elif rest:
        advice.append(
            'Nothing is downloaded in a run; on a machine with a network, get the '
            f'template{"s" if rest[1:] else ""} with: {command_that_gets(rest, home)}'
        )
    return UnavailableError(message, advice=' '.join(advice))


def _absent_files(space: TemplateSpace, home: Path) -> list[Path]:
    """T1w images and brain masks of a template that the folder knows, without their content."""

    numbers = (None, space.resolution or 1)
    return [
        path
        for path in sorted((home / f'tpl-{space.name}').rglob('*.nii.gz'))
        if path.name.endswith(('_T1w.nii.gz', '_desc-brain_mask.nii.gz'))
        and _number(path, 'cohort') == space.cohort
        and _number(path, 'res') in numbers
        and (is_absent(path) or pointer_of(path))
    ]


def offered_spaces(
    suffix: str = '_T1w.nii.gz',
) -> dict[str, set[tuple[int | None, int | None]]]:
    """Cohort and resolution of each T1w in TemplateFlow's archive, by template.

    The list comes with the client. Templates that are only in the folder of this machine have an
    empty set: nothing is known of their archive.

    Parameters
    ----------
    suffix : end of the file names, for the brain masks :data:`MASK_SUFFIX`.
    """
    package = find_spec('templateflow')
    assert package is not None
    assert package.origin is not None
    skeleton = Path(package.origin).parent / 'conf' / 'templateflow-skel.zip'
    found: dict[str, set[tuple[int | None, int | None]]] = {}
    with zipfile.ZipFile(skeleton) as archive:
        for name in archive.namelist():
            path = Path(name)
            numbers = found.setdefault(path.parts[0].removeprefix('tpl-'), set())
            if path.name.endswith(suffix) and '_desc-' not in path.name.removesuffix(suffix):
                numbers.add((_number(path, 'cohort'), _number(path, 'res')))
    for folder in templateflow_home().glob('tpl-*'):
        found.setdefault(folder.name.removeprefix('tpl-'), set())
    return found


def _is_bare(space: TemplateSpace) -> bool:
    """Whether TemplateFlow's archive has the template, but no T1w image and mask of this grid."""
    if not offered_spaces('')[space.name]:
        return False  # it is only on this machine: nothing is known of an archive
    kinds = (offered_spaces(), offered_spaces(MASK_SUFFIX))
    usual = (None, 1) if space.resolution is None else (space.resolution,)
    return not all(any((space.cohort, n) in found[space.name] for n in usual) for found in kinds)


def _is_wrong(space: TemplateSpace, offered: set[tuple[int | None, int | None]]) -> bool:
    """Whether TemplateFlow has the template, and not this cohort or resolution."""
    usual = {None, 1} if space.resolution is None else {space.resolution}
    return bool(offered) and not any((space.cohort, number) in offered for number in usual)


def _like(space: TemplateSpace, offered: Iterable[str]) -> str:
    """What may be meant by a name that TemplateFlow does not know."""
    names = {name.lower(): name for name in (*SUFFIXES, *offered)}
    meant = sorted(names[m] for m in get_close_matches(space.name.lower(), names, cutoff=0.7))
    text = f'TemplateFlow {client_version()} knows no template {space.name}.'
    return f'{text} Did you mean {" or ".join(meant)}?' if meant else text


def command_that_gets(spaces: Sequence[TemplateSpace], home: Path) -> str:
    """The command that downloads template spaces into TemplateFlow's folder.

    It is Python: ``templateflow get`` finds nothing for a resolution (client 25.1). The first
    call adds the names of what can be downloaded to a folder that has only some files.
    """
    code = [
        'from templateflow import api, conf',
        'conf.update(local=True, overwrite=False, silent=True)',
    ]
    offered = offered_spaces()
    for space in spaces:
        chosen = '' if space.cohort is None else f'cohort={space.cohort}, '
        if space.resolution or (space.cohort, None) not in offered.get(space.name, set()):
            chosen += f'resolution={space.resolution or 1}, '
        for kind in ("suffix='T1w', desc=None", "suffix='mask', desc='brain'"):
            code.append(f"api.get('{space.name}', {chosen}{kind}, raise_empty=True)")
    return f'{HOME}={home} python -c "{"; ".join(code)}"'


def client_version() -> str:
    """Version of TemplateFlow's client."""
    from importlib.metadata import version

    return version('templateflow')
