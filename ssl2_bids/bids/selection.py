"""Which file of a session is taken for each contrast, and why the others are not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssl2_bids.bids import image_names, mp2rage_parts, preference
from ssl2_bids.bids.filters import LONG_NAMES, SUFFIXES_OF, matches
from ssl2_bids.bids.headers import Header, read_header
from ssl2_bids.bids.inheritance import LINK_WITHOUT_CONTENT
from ssl2_bids.bids.mp2rage_parts import Roles
from ssl2_bids.bids.scan import Companion, Scan
from ssl2_bids.contrasts import KEYS, SIMILAR
from ssl2_bids.errors import DataError
from ssl2_bids.volume import same_grid

SHORT_NAMES = {'acquisition': 'acq', 'ceagent': 'ce', 'reconstruction': 'rec', 'run': 'run'}
MAX_ECHO = 0.060  # s; later echoes hold little signal at 7T
COMPLEX_PARTS = ('phase', 'real', 'imag')
OF_ONE_INVERSION = ('InversionTime', 'FlipAngle')  # keys that UNIT1 does not share with INV2


@dataclass(frozen=True)
class Choice:
    """All that was decided for one session.

    Attributes
    ----------
    dropped : pairs of file and reason.
    warnings : remarks for the report.
    problems : of the files that cannot be used at all.
    """

    picked: tuple[Scan, ...]
    dropped: tuple[tuple[Path, str], ...]
    warnings: tuple[str, ...]
    problems: tuple[DataError, ...] = ()


def choose(
    files: list[dict[str, Any]],
    filters: dict[str, dict[str, Any]],
    *,
    accepted: tuple[str, ...],
    wanted: tuple[str, ...] | None,
    unusable: Mapping[Path, str] | None = None,
) -> Choice:
    """Take one image per contrast (docs/how-to/choose-images.md); headers are read.

    An image that cannot be used is left out: the next one is taken, or the contrast is missing.

    Parameters
    ----------
    files : entities, ``path`` and ``metadata`` of each image of the session.
    filters : entity patterns by contrast key.
    accepted : suffixes that the model takes.
    wanted : contrast keys that the user narrows to, or None.
    unusable : files whose voxels were found to be unusable before, and why.
    """
    choosing = _Choosing(files, filters, dict(unusable or {}))
    for key in KEYS:
        found = choosing.candidates(key)
        if not found and not (key == 'unit1' and choosing.complex_pairs()):
            continue
        suffix = SUFFIXES_OF[key][0]
        reason = _why_not(key, suffix, accepted, wanted, choosing.picks)
        if reason:
            choosing.drop(found, reason)
            continue
        found = choosing.usable(found)
        if not found:
            if key == 'unit1' and (computed := choosing.pick_computed()):
                choosing.picks[suffix] = computed
            continue
        found = choosing.without_contrast_agent(found)
        if key == 'unit1':
            pick = choosing.pick_unit1(found)
        elif key == 't2starw':
            pick = choosing.pick_t2starw(found)
        else:
            pick = choosing.pick_first(key, found)
        choosing.picks[suffix] = pick
    choosing.explain_the_rest()
    return choosing.choice()


def _why_not(
    key: str,
    suffix: str,
    accepted: tuple[str, ...],
    wanted: tuple[str, ...] | None,
    picks: dict[str, Scan],
) -> str:
    if wanted is not None and key not in wanted:
        return 'not among --contrasts'
    if suffix not in accepted and SIMILAR.get(suffix) not in accepted:
        return f'the model does not take {suffix}'
    for taken in picks:
        if SIMILAR.get(taken) == suffix:
            return f'{taken} is the {suffix}-like image'
    return ''


@dataclass
class _Choosing:
    """The files of a session while the choice is made."""

    files: list[dict[str, Any]]
    filters: dict[str, dict[str, Any]]
    unusable: dict[Path, str]
    picks: dict[str, Scan] = field(default_factory=dict)
    dropped: dict[Path, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    headers: dict[Path, Header] = field(default_factory=dict)
    problems: list[DataError] = field(default_factory=list)

    def choice(self) -> Choice:
        """What was decided; a file that is used for one contrast was not dropped for another."""
        used = {path for pick in self.picks.values() for path in pick.sources}
        dropped = sorted((p, why) for p, why in self.dropped.items() if p not in used)
        warnings = tuple(dict.fromkeys(self.warnings))
        return Choice(tuple(self.picks.values()), tuple(dropped), warnings, tuple(self.problems))

    def drop(self, files: Sequence[dict[str, Any]], reason: str) -> None:
        """Leave files out; the first reason stands."""
        for file in files:
            self.dropped.setdefault(file['path'], reason)

    def candidates(self, key: str) -> list[dict[str, Any]]:
        """The files that may be taken for a contrast, by their names."""
        found = []
        for file in self.files:
            if not self._is_meant(file, key):
                continue
            if not matches(file, key, {'suffix': file['suffix'], **self.filters.get(key, {})}):
                self.drop([file], 'left out by the filter file')
            elif reason := self._name_against(file, key):
                self.drop([file], reason)
            else:
                found.append(file)
        return found

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
            return file['suffix'] != 'T1w' or bool(self._inversions(file).inversions)
        return file['suffix'] in SUFFIXES_OF[key]

    def _name_against(self, file: dict[str, Any], key: str) -> str:
        """Why a file of the right suffix is not taken, from its name; empty if it may be."""
        if not file['path'].exists():
            return LINK_WITHOUT_CONTENT
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
            except DataError as error:
                self.drop([file], f'cannot be used: {error.message}')
                self.problems.append(error)
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

    def pick_first(self, key: str, found: Sequence[dict[str, Any]]) -> Scan:
        """The first by the stated rule; a line has its name, the reason and how to use another."""
        suffix = SUFFIXES_OF[key][0]
        first, *rest = preference.in_order(found, self.headers)
        reasons = {f['path']: preference.why(first, f, self.headers) for f in rest}
        for file in rest:
            reason = f'{first["path"].name} has priority: {reasons[file["path"]]}'
            self.drop([file], reason)
        if suffix == 'T1w' and image_names.is_uniform(first):
            self.warnings.append(
                f'{first["path"].name} is used as a T1w image; if it is the uniform image of '
                'MP2RAGE: '
                f'{preference.recipe("unit1", first)}'
            )
        if rest:
            names = ', '.join(f['path'].name for f in rest[:4])
            names += f' and {len(rest) - 4} more' if rest[4:] else ''
            why = ', '.join(dict.fromkeys(reasons.values()))
            self.warnings.append(
                f'several {suffix}: used {first["path"].name} ({why}), left out {names}; to use '
                f'another: {preference.recipe(key, rest[0], first)}'
            )
        return self._pick(suffix, first)

    def _pick(self, suffix: str, file: dict[str, Any], companions: Roles | None = None) -> Scan:
        entities = {short: file[long] for long, short in SHORT_NAMES.items() if long in file}
        for used in (file, *(other for _, other in companions or ())):
            if apart := self.headers[used['path']].forms_apart:
                self.warnings.append(
                    f'{used["path"].name}: sform and qform differ by {apart:.1f} mm; the sform '
                    'is used'
                )
            for problem in used.get('sidecar_problems', ()):
                self.warnings.append(
                    f'{Path(problem.path).name} was left out: {problem.message}; its information '
                    f'on {used["path"].name} is missing'
                )
        return Scan(
            suffix,
            (file['path'],),
            entities,
            file['metadata'],
            tuple(Companion(role, f['path'], f['metadata']) for role, f in companions or ()),
            self.headers[file['path']].spacing,
        )

    def pick_unit1(self, found: list[dict[str, Any]]) -> Scan:
        """The un-denoised UNIT1 with its two inversions, else a denoised one, else the first."""
        plain = [f for f in found if not image_names.is_denoised(f)]
        denoised = [f for f in found if f not in plain]
        for file in preference.in_order(plain, self.headers):
            pair = self._usable_pair(file)
            if pair:
                rest = [f for f in found if f is not file]
                self.drop(rest, 'UNIT1 with INV1 and INV2 is denoised by ssl2-bids')
                roles = [('INV1', pair[0]), ('INV2', pair[1])]
                return self._pick('UNIT1', file, [*roles, *self._for_t1(pair, file)])
        if not denoised:
            why = self._inversions(preference.in_order(plain, self.headers)[0]).reason
            self.warnings.append(
                'UNIT1 without INV1 and INV2'
                + (f' ({why})' if why else '')
                + ': its background noise cannot be removed by the robust combination'
            )
        elif plain:
            self.drop(plain, 'the denoised UNIT1 is used')
        return self.pick_first('unit1', denoised or plain)

    def complex_pairs(self) -> list[Roles]:
        """The MP2RAGE images from which UNIT1 can be computed; see there."""
        return mp2rage_parts.complex_pairs(self._mp2rage_files()[0])

    def pick_computed(self) -> Scan | None:
        """UNIT1 computed from the magnitudes and phases of an MP2RAGE, if all can be used."""
        for pair in self.complex_pairs():
            files = [file for _, file in pair]
            if len(self.usable(files)) < len(files):
                continue
            (_, second), *others = pair
            # the sidecar of a phase may be shorter than that of its magnitude
            role, phase = others[-1]
            known = {**second['metadata'], **phase['metadata']}
            others[-1] = (role, {**phase, 'metadata': known})
            if not all(self._on_grid(file, second, 'INV2') for _, file in others):
                continue
            others += self._for_t1((files[1], second), second)
            pick = self._pick('UNIT1', second, others)
            metadata = {k: v for k, v in pick.metadata.items() if k not in OF_ONE_INVERSION}
            return replace(pick, metadata=metadata)
        return None

    def _for_t1(self, pair: Sequence[dict[str, Any]], uniform: dict[str, Any]) -> Roles:
        """What helps to map T1 beside the inversions: a B1+ map, or the T1 map of the scanner."""
        from ssl2_bids.steps import t1_mapping  # only where there is an MP2RAGE

        sidecars = [file['metadata'] for file in pair]
        if t1_mapping.protocol_of(*sidecars):
            found = mp2rage_parts.transmit_maps([f for f in self.files if f['path'].exists()])
            return found if len(self.usable([f for _, f in found])) == len(found) else []
        if any('InversionTime' in one for one in sidecars):
            missing = t1_mapping.missing_keys(*sidecars)
            why = (
                f'{", ".join(missing)} missing' if missing else 'its times contradict one another'
            )
            self.warnings.append(f'no T1 map can be computed from the MP2RAGE: {why}')
        maps = [f for f in self.files if f['suffix'] == 'T1map' and f['path'].exists()]
        maps = [f for f in self.usable(maps) if self._on_grid(f, uniform, 'UNIT1')]
        return [('T1map', maps[0])] if maps else []

    def _on_grid(self, file: dict[str, Any], other: dict[str, Any], name: str) -> bool:
        """Whether a file lies on the grid of another; else it is left out with a warning."""
        if same_grid(self.headers[file['path']], self.headers[other['path']]):
            return True
        self.drop([file], f'not on the grid of {name}')
        self.warnings.append(
            f'{file["path"].name} was left out: it is not on the grid of {other["path"].name}'
        )
        return False

    def _mp2rage_files(self) -> tuple[list[dict[str, Any]], bool]:
        """The files that may be parts of an MP2RAGE, and whether a filter asks for them."""
        pattern = self.filters.get('mp2rage')
        files = [
            f
            for f in self.files
            if f['path'].exists() and (pattern is None or matches(f, 'mp2rage', pattern))
        ]
        return files, pattern is not None

    def _inversions(self, uniform: dict[str, Any]) -> mp2rage_parts.Parts:
        files, asked = self._mp2rage_files()
        return mp2rage_parts.inversions_of(uniform, files, asked=asked)

    def _usable_pair(self, uniform: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """INV1 and INV2 of a uniform image, if both can be used and lie on its grid."""
        pair = self._inversions(uniform).inversions
        if len(self.usable(pair)) < len(pair):
            return ()
        return pair if all(self._on_grid(file, uniform, 'UNIT1') for file in pair) else ()

    def pick_t2starw(self, found: list[dict[str, Any]]) -> Scan:
        """A single T2starw, else the echoes of a T2starw, else those of a MEGRE."""
        single = [f for f in found if f['suffix'] == 'T2starw' and 'echo' not in f]
        if single:
            self.drop([f for f in found if f not in single], 'a single T2starw is used')
            return self.pick_first('t2starw', single)
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
        for file in found:
            names = [file.get(name) or '' for name in preference.ENTITIES if name != 'echo']
            groups[(file['suffix'], *names)].append(file)
        firsts = [min(group, key=_echo) for group in groups.values()]
        firsts.sort(key=lambda f: f['suffix'] != 'T2starw')
        first = preference.in_order(
            [f for f in firsts if f['suffix'] == firsts[0]['suffix']], self.headers
        )[0]
        group = next(group for group in groups.values() if first in group)
        self.drop([f for f in found if f not in group], 'another group of echoes is used')
        return self._pick_echoes(sorted(group, key=_echo))

    def _pick_echoes(self, group: list[dict[str, Any]]) -> Scan:
        times = [f['metadata'].get('EchoTime') for f in group]
        known = all(isinstance(t, int | float) for t in times)
        early = [
            f for f, t in zip(group, times, strict=True) if not known or float(t) <= MAX_ECHO
        ] or group
        self.drop([f for f in group if f not in early], 'echo after 60 ms')
        grid = self.headers[early[0]['path']]
        together = [f for f in early if same_grid(self.headers[f['path']], grid)]
        for file in early:
            if file not in together:
                self.drop([file], 'not on the grid of the first echo')
                name = file['path'].name
                self.warnings.append(f'{name} was left out: not on the grid of the first echo')
        pick = self._pick('T2starw', together[0])
        seconds = [f['metadata'].get('EchoTime') for f in together]
        return replace(
            pick,
            paths=tuple(f['path'] for f in together),
            echo_times=tuple(map(float, seconds)) if known else (),
        )

    def explain_the_rest(self) -> None:
        """Record why images of an MP2RAGE are not used."""
        left = [f for f in self.files if f['path'] not in self.dropped]
        inversions = [f for f in left if mp2rage_parts.is_inversion(f)]
        if 'UNIT1' in self.picks:
            self.drop(inversions, 'not needed for the noise removal of UNIT1')
        elif inversions and not any(image_names.is_uniform(f) for f in self.files):
            reason = mp2rage_parts.AMBIGUOUS
            self.drop(inversions, reason)
            names = ', '.join(f['path'].name for f in inversions if not image_names.is_phase(f))
            self.warnings.append(f'MP2RAGE without UNIT1 ({names}): {reason}')
        self.drop(inversions, 'its UNIT1 is not used')
        for file in left:
            if file['suffix'] in mp2rage_parts.RELATED:
                self.drop([file], mp2rage_parts.RELATED[file['suffix']])
            elif file['suffix'] in ('UNI', 'MP2RAGE', 'MPRAGE', 'MP2RAGEUNI'):
                key = 't1w' if file['suffix'] == 'MPRAGE' else 'unit1'
                recipe = preference.recipe(key, file)
                self.drop([file], f'not a BIDS name; to use it: {recipe}')


def _echo(file: dict[str, Any]) -> int:
    return int(file.get('echo') or 0)
