"""The files of a session while one of each contrast is chosen, and the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssl2_bids import sidecar_values
from ssl2_bids.bids import image_names, mp2rage_parts, preference
from ssl2_bids.bids.absent import ABSENT, absent_content, is_absent
from ssl2_bids.bids.filters import LONG_NAMES, SUFFIXES_OF, matches
from ssl2_bids.bids.given_datasets import GivenFileError
from ssl2_bids.bids.headers import Header, read_header
from ssl2_bids.bids.mp2rage_parts import Roles
from ssl2_bids.bids.scan import Companion, Scan
from ssl2_bids.bids.sidecars import kept_metadata
from ssl2_bids.errors import DataError, DeniedError, ReadError, Ssl2Error
from ssl2_bids.files import pointer_of
from ssl2_bids.voxel_grid import same_grid

SHORT_NAMES = {'acquisition': 'acq', 'ceagent': 'ce', 'reconstruction': 'rec', 'run': 'run'}
OF_THE_FIELD = ('MagneticFieldStrength', 'ImagingFrequency')
COMPLEX_PARTS = ('phase', 'real', 'imag')


@dataclass(frozen=True)
class Choice:
    """All that was decided for one session.

    Attributes
    ----------
    dropped : pairs of file and reason.
    warnings : remarks for the report.
    problems : of the files that cannot be used at all.
    final_problems : of those in whose place no other file is taken: files of ``-d``, and files
        that the disk did not give or that may not be read.
    absent : images of contrasts that would be used, and sidecars, whose content is absent.
    broken : files whose headers cannot be read, and why.
    """

    picked: tuple[Scan, ...]
    dropped: tuple[tuple[Path, str], ...]
    warnings: tuple[str, ...]
    problems: tuple[DataError, ...] = ()
    final_problems: tuple[Ssl2Error, ...] = ()
    absent: tuple[Path, ...] = ()
    broken: Mapping[Path, str] = field(default_factory=dict)


@dataclass
class Choosing:
    """The files of a session while the choice is made."""

    files: list[dict[str, Any]]
    filters: dict[str, dict[str, Any]]
    unusable: dict[Path, str]
    picks: dict[str, Scan] = field(default_factory=dict)
    dropped: dict[Path, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    headers: dict[Path, Header] = field(default_factory=dict)
    problems: list[DataError] = field(default_factory=list)
    final_problems: list[Ssl2Error] = field(default_factory=list)
    absent: set[Path] = field(default_factory=set)
    broken: dict[Path, str] = field(default_factory=dict)

    def choice(self) -> Choice:
        """What was decided; a file that is used for one contrast was not dropped for another."""
        used = {path for pick in self.picks.values() for path in pick.sources}
        dropped = sorted((p, why) for p, why in self.dropped.items() if p not in used)
        warnings = tuple(dict.fromkeys(self.warnings))
        return Choice(
            tuple(self.picks.values()),
            tuple(dropped),
            warnings,
            tuple(self.problems),
            tuple(self.final_problems),
            tuple(sorted(self.absent)),
            self.broken,
        )

    def drop(self, files: Sequence[dict[str, Any]], reason: str) -> None:
        """Leave files out; the first reason stands."""
        for file in files:
            self.dropped.setdefault(file['path'], reason)

    def candidates(self, key: str) -> list[dict[str, Any]]:
        """The files that may be taken for a contrast, by their names."""
        found = []
        for file in self.files:
            if file.get('dataset') or not self._is_meant(file, key):
                continue
            if not matches(file, key, {'suffix': file['suffix'], **self.filters.get(key, {})}):
                self.drop([file], 'left out by the filter file')
            elif reason := self._name_against(file, key):
                self.drop([file], reason)
                if reason == ABSENT:
                    self.absent.add(file['path'])
            else:
                found.append(file)
        return found

    def given(self, suffix: str, *, needed: bool = True) -> list[dict[str, Any]]:
        """The files of a suffix from the datasets of ``-d``; no filter narrows them.

        One that cannot be used is a problem of the session: another image in its place would
        give results on another grid than those of other sessions.

        Parameters
        ----------
        needed : whether the image itself is used; else it is read only where its dataset has a
            brain mask, which lies on its grid.
        """
        files = [f for f in self.files if f.get('dataset') and f['suffix'] == suffix]
        for file in files[:1]:
            if not (needed or file['mask']):
                break
            path = file['path']
            try:
                if is_absent(path) or pointer_of(path):
                    self.absent.add(path)
                    raise absent_content(path, file['root'])
                if path in self.unusable:
                    raise DataError(self.unusable[path], path=path)
                self.headers[path] = read_header(path)
            except (ReadError, DeniedError) as error:
                self.final_problems.append(error)
                return []
            except DataError as error:
                advice = f'{error.advice} Without -d {file["dataset"]} it is not needed.'.strip()
                problem = GivenFileError(error.message, path=path, advice=advice)
                self.final_problems.append(problem)
                return []
        self.drop(files[1:], 'another dataset or image of -d has priority')
        return files[:1]

    def pick_given(self, suffix: str, file: dict[str, Any], *, channel: bool = True) -> Scan:
        """A file of a dataset of ``-d`` as the image of a contrast, in place of raw ones.

        Metadata that it does not have are those that all raw images of the suffix agree on.
        """
        raw = [f for f in self.files if f['suffix'] == suffix and not f.get('dataset')]
        self.drop(raw, f'{file["path"].name} of {file["dataset"]} is used')
        for problem in (p for f in raw for p in f.get('sidecar_problems', ())):
            if is_absent(Path(problem.path)):
                self.absent.add(Path(problem.path))
        known = [kept_metadata(f['metadata']) for f in raw]
        common = {
            key: value
            for key, value in (known[0] if known else {}).items()
            if all(key in other and other[key] == value for other in known)
        }
        return replace(
            self.scan(suffix, file),
            metadata=common | file['metadata'],
            dataset=file['dataset'],
            within=file['within'],
            shared=file['shared'],
            corrected=file.get('desc') == 'preproc',
            channel=channel,
        )

    def _is_meant(self, file: dict[str, Any], key: str) -> bool:
        """Whether a file stands for a contrast, before any filter narrows it."""
        if file.get('datatype', 'anat') != 'anat':
            return False
        pattern = self.filters.get(key, {})
        if 'suffix' in pattern:
            return file['suffix'] in SUFFIXES_OF[key] or matches(file, key, pattern)
        if key == 'unit1' and file['suffix'] != 'UNIT1':
            if not image_names.is_uniform(file):
                return False
            # a T1w is the uniform image of MP2RAGE only beside its inversions
            return file['suffix'] != 'T1w' or bool(self.inversions(file).inversions)
        return file['suffix'] in SUFFIXES_OF[key]

    def _name_against(self, file: dict[str, Any], key: str) -> str:
        """Why a file of the right suffix is not taken, from its name; empty if it may be."""
        if not file['path'].exists():
            return ABSENT
        if file.get('part') in COMPLEX_PARTS:
            return f'part-{file["part"]} is not used'
        if 'chunk' in file:
            return 'chunks are not supported'
        # a filter for the entity in the name shows that the user knows the image
        asked = {LONG_NAMES.get(name, name) for name in self.filters.get(key, {})}
        recipe = preference.recipe(key, file)
        kind = image_names.what_else(file)
        if kind and not asked & {*image_names.FREE_TEXT, 'inv', 'suffix'}:
            return f'{kind} by its name; to use it: {recipe}'
        if not image_names.is_native(file) and 'space' not in asked:
            return f'in the space {file["space"]}, not its own; to use it: {recipe}'
        return ''

    def usable(self, files: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those whose headers are sound; the others are left out with a warning."""
        found = []
        for file in files:
            path = file['path']
            try:
                if path in self.unusable:
                    raise DataError(self.unusable[path], path=path)
                if path not in self.headers:
                    self.headers[path] = read_header(path)
            except (ReadError, DeniedError) as error:
                self.drop([file], error.message)
                self.final_problems.append(error)
            except DataError as error:
                self.drop([file], f'cannot be used: {error.message}')
                self.broken[path] = error.message
                self.problems.append(error)
                if pointer_of(path):
                    self.absent.add(path)
                self.warnings.append(f'{path.name} was left out: {error.message}')
            else:
                found.append(file)
        return found

    def without_contrast_agent(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those without contrast agent, if there are such."""
        plain = [f for f in found if 'ceagent' not in f]
        if not plain:
            name = found[0]['path'].name
            self.warnings.append(f'{name}: used although acquired with contrast agent')
            return found
        self.drop([f for f in found if 'ceagent' in f], 'with contrast agent')
        return plain

    def pick_first(
        self,
        key: str,
        found: Sequence[dict[str, Any]],
        others: Sequence[tuple[dict[str, Any], str]] = (),
    ) -> Scan:
        """The first by the stated rule; a line has its name, the reason and how to use another.

        Parameters
        ----------
        others : further files of the contrast that were left out before, with the reason.
        """
        suffix = SUFFIXES_OF[key][0]
        first, *rest = preference.in_order(found, self.headers)
        reasons = [(f, preference.why(first, f, self.headers)) for f in rest]
        for file, why in reasons:
            self.drop([file], f'{first["path"].name} has priority: {why}')
        if suffix == 'T1w' and image_names.is_uniform(first):
            self.warnings.append(
                f'{first["path"].name} is used as a T1w image; if it is the uniform image of '
                'MP2RAGE: '
                f'{preference.recipe("unit1", first)}'
            )
        self.warn_of_several(key, first, [*reasons, *others])
        return self.scan(suffix, first)

    def warn_of_several(
        self, key: str, first: dict[str, Any], others: Sequence[tuple[dict[str, Any], str]]
    ) -> None:
        """A warning on the images of a contrast that are not used, and how to use one of them.

        Parameters
        ----------
        first : the image that is used.
        others : the others, with the reason.
        """
        if others:
            names = ', '.join(f['path'].name for f, _ in others[:4])
            names += f' and {len(others) - 4} more' if others[4:] else ''
            why = ', '.join(dict.fromkeys(reason for _, reason in others))
            self.warnings.append(
                f'several {SUFFIXES_OF[key][0]}: used {first["path"].name} ({why}), left out '
                f'{names}; to use another: {preference.recipe(key, others[0][0], first)}'
            )

    def scan(self, suffix: str, file: dict[str, Any], companions: Roles | None = None) -> Scan:
        """A file that is taken, with its companions; what is odd about them becomes a warning."""
        entities = {short: file[long] for long, short in SHORT_NAMES.items() if long in file}
        for used in (file, *(other for _, other in companions or ())):
            if apart := self.headers[used['path']].forms_apart:
                self.warnings.append(
                    f'{used["path"].name}: sform and qform differ by {apart:.1f} mm; the sform '
                    'is used'
                )
            for problem in used.get('sidecar_problems', ()):
                if isinstance(problem, ReadError):
                    self.final_problems.append(problem)
                    continue
                path = Path(problem.path)
                self.warnings.append(
                    f'{path.name} was left out: {problem.message}; its information '
                    f'on {used["path"].name} is missing. {problem.advice}'
                )
                if is_absent(path) and not used.get('dataset'):
                    self.absent.add(path)
        self._note_values(file)
        return Scan(
            suffix,
            (file['path'],),
            entities,
            file['metadata'],
            tuple(Companion(role, f['path'], f['metadata']) for role, f in companions or ()),
            self.headers[file['path']].spacing,
            voxels=math.prod(self.headers[file['path']].shape),
        )

    def _note_values(self, file: dict[str, Any]) -> None:
        """Warn of a field that cannot be meant: its key is not used."""
        for text in sidecar_values.faults(file['metadata'], *OF_THE_FIELD):
            self.warnings.append(f'{file["path"].name}: {text}; the key is not used')

    def on_grid(self, file: dict[str, Any], other: dict[str, Any], name: str) -> bool:
        """Whether a file lies on the grid of another; else it is left out with a warning."""
        if same_grid(self.headers[file['path']], self.headers[other['path']]):
            return True
        self.drop([file], f'not on the grid of {name}')
        self.warnings.append(
            f'{file["path"].name} was left out: it is not on the grid of {other["path"].name}'
        )
        return False

    def mp2rage_files(self) -> tuple[list[dict[str, Any]], bool]:
        """The files that may be parts of an MP2RAGE, and whether a filter asks for them."""
        pattern = self.filters.get('mp2rage')
        files = [
            f
            for f in self.files
            if f['path'].exists() and (pattern is None or matches(f, 'mp2rage', pattern))
        ]
        return files, pattern is not None

    def note_absent_parts(self) -> None:
        """Leave out what belongs to an MP2RAGE and whose content is absent."""
        own = [f for f in self.files if not f.get('dataset')]
        if not any(image_names.is_uniform(f) or mp2rage_parts.is_inversion(f) for f in own):
            return
        related = ('T1map', 'TB1map', 'TB1SRGE')
        parts = [f for f in own if f['suffix'] in related or mp2rage_parts.is_inversion(f)]
        lost = [f for f in parts if is_absent(f['path'])]
        self.drop(lost, ABSENT)
        self.absent |= {f['path'] for f in lost}

    def inversions(self, uniform: dict[str, Any]) -> mp2rage_parts.Parts:
        """The inversion images that belong to a uniform image, by their names."""
        files, asked = self.mp2rage_files()
        return mp2rage_parts.inversions_of(uniform, files, asked=asked)
