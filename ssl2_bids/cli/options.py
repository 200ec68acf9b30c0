"""From the command line (and a former run's TOML) to settings, with all light checks."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Collection
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from ssl2_bids.bids import dataset
from ssl2_bids.bids.database import in_dataset
from ssl2_bids.cli import limits
from ssl2_bids.cli.configuration import read_config
from ssl2_bids.cli.parser import build_parser, check_level
from ssl2_bids.cli.values import absolute, is_list, strip_prefix
from ssl2_bids.cli.values import datasets as given_datasets
from ssl2_bids.cli.work_folder import usual_work_dir
from ssl2_bids.errors import NoInputError, UsageError
from ssl2_bids.files import check_folder, each_once, read_text, reading
from ssl2_bids.settings import (
    LEVELS,
    UNTRAINED,
    RunSettings,
    foreign_options,
    option_of,
)

REPLACING = ('boilerplate_only', 'dry_run', 'reports_only')  # another task than the processing
LABELS = {  # options that take labels or a file with labels, and the prefix of these
    'participant_label': 'sub',
    'exclude_participant_label': 'sub',
    'session_label': 'ses',
    'holdout_label': 'sub',
}
MEMORY_SHARE = 0.9  # of the memory of the job; the rest is for other processes of it
MAX_THREADS = 8  # of one segmentation; more stall each other on windows of 96^3


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; a ``--config-file`` stands below it and above the defaults.

    Raises
    ------
    UsageError : wrong options or values.
    """
    if '' in argv or any(one.startswith('--') and one.endswith('=') for one in argv):
        raise UsageError(
            'an argument is empty',
            advice='Is a variable of the shell not set? "." is this folder.',
        )
    arguments = build_parser().parse_args(argv)
    given = _names_given(argv)
    arguments.given, arguments.notes = given, []
    if arguments.config_file:
        former = read_config(arguments.config_file, arguments.analysis_level)
        arguments.notes += [former.left_out] if former.left_out else []
        for name, value in former.values.items():
            if name not in given:
                setattr(arguments, name, value)
    return arguments


def _names_given(argv: list[str]) -> set[str]:
    """Names of the options that stand on the command line itself."""
    parser = build_parser()
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return set(vars(parser.parse_args(argv)))


def options_record(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of a run as TOML can hold them: without those that are not set.

    Paths are absolute, so that the record means the same in every folder.
    """
    own = ('given', 'notes', 'resources')
    values = {k: v for k, v in vars(arguments).items() if k not in own and v is not None}
    if arguments.derivatives:
        named = given_datasets(arguments.derivatives)
        values['derivatives'] = [f'{name}={path}' for name, path in named.items()]
    if arguments.model and '/' in str(path := _place_of_model(arguments)):
        values['model'] = path
    for name, prefix in LABELS.items():
        if values.get(name) and os.path.isfile(values[name][0]):
            bids_dir = absolute(arguments.bids_dir)
            of_ses = prefix == 'ses'
            known = _sessions(bids_dir) if of_ses else dataset.participant_labels(bids_dir)
            if is_list(values[name], prefix, known):
                values[name] = [str(absolute(Path(values[name][0])))]
    return {k: _as_text(v) for k, v in sorted(values.items())}


def _place_of_model(arguments: argparse.Namespace) -> str:
    """The name of a bundled or adapted model, or the path of another one."""
    from ssl2_bids.networks.weights import bundled_models

    name = arguments.model
    adapted = absolute(arguments.output_dir) / 'models' / name
    if name in bundled_models() or adapted.is_dir() or not os.path.isdir(name):
        return str(name)
    return str(absolute(Path(name)))


def _as_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_text(one) for one in value]
    return str(absolute(value)) if isinstance(value, Path) else value


def settings_for(level: str, arguments: argparse.Namespace) -> RunSettings:
    """Check what can be checked quickly and make the settings of a level.

    Raises
    ------
    Ssl2Error : one of its kinds for each mistake of docs/reference/exit-codes.md.
    """
    kind = LEVELS[check_level(level)]
    bids_dir, output_dir = absolute(arguments.bids_dir), absolute(arguments.output_dir)
    dataset.check_dataset(bids_dir, thorough=not arguments.skip_bids_validation)
    work_dir = absolute(arguments.work_dir or usual_work_dir(bids_dir, output_dir))
    dataset.check_output(bids_dir, output_dir, work_dir, probe=not arguments.dry_run)
    known = dataset.participant_labels(bids_dir)
    participants = strip_prefix(arguments.participant_label, 'sub', known)
    excluded = strip_prefix(arguments.exclude_participant_label, 'sub', known) or ()
    dataset.select_participants(bids_dir, participants, excluded)
    _refuse(arguments, foreign_options(level) & arguments.given, f'at {level} level')
    _check_alone(arguments)
    _check_contrasts(arguments)
    derivatives = given_datasets(arguments.derivatives)
    labels = derivatives.pop('labels', None)
    if labels and level != 'group':
        raise UsageError(f'-d labels={labels} does not apply at {level} level')
    if derivatives:
        from ssl2_bids.bids.given_datasets import check_datasets  # imports numpy

        check_datasets(derivatives, bids_dir, output_dir)
    nprocs, memory_gb = _resources(arguments)
    made: dict[str, Any] = {
        'bids_dir': bids_dir,
        'output_dir': output_dir,
        'work_dir': work_dir,
        'participants': participants,
        'excluded': excluded,
        'sessions': strip_prefix(
            arguments.session_label, 'ses', _sessions(bids_dir) if arguments.session_label else ()
        ),
        'filters': dataset.read_filters(arguments.bids_filter_file)
        if arguments.bids_filter_file
        else {},
        'derivatives': derivatives,
        'check_dataset': not arguments.skip_bids_validation,
        'nprocs': nprocs,
        'omp_nthreads': arguments.omp_nthreads or min(nprocs, MAX_THREADS),
        'memory_gb': memory_gb,
    }
    if level == 'group':
        made |= _of_adaptation(arguments, labels, derivatives, known)
    else:
        made['plugin'] = _read_plugin(arguments.use_plugin) if arguments.use_plugin else None
        made['brain_mask'] = _folder_of_masks(arguments.brain_mask)
        made['calibrate_from'] = _folders_of_labels(arguments)
        made['bids_database_dir'] = _database_folder(arguments.bids_database_dir, bids_dir)
    return kind(**_direct_values(kind, arguments) | made)


def _resources(arguments: argparse.Namespace) -> tuple[int, float]:
    """Cores and GB of memory: those asked for, else the limits of the job; stated in the log.

    More than the job has is taken as asked for, with a note on the terminal.
    """
    cores, memory = limits.cores(), limits.memory()
    nprocs = arguments.nprocs or cores.value
    memory_gb = arguments.mem or round(MEMORY_SHARE * memory.value / 1e9, 2)
    if nprocs > cores.value:
        arguments.notes.append(
            f'--nprocs {nprocs} is more than this job has: {cores.value} ({cores.source})'
        )
    if memory_gb > memory.value / 1e9:
        arguments.notes.append(
            f'--mem {memory_gb:g} is more than this job has: '
            f'{memory.value / 1e9:.1f} GB ({memory.source})'
        )
    if (threads := arguments.omp_nthreads or 0) > nprocs:
        arguments.notes.append(
            f'--omp-nthreads {threads} is more than the {nprocs} cores of this run (--nprocs): '
            'threads that share a core wait for each other'
        )
    sources = (
        '--nprocs' if arguments.nprocs else cores.source,
        '--mem' if arguments.mem else f'{MEMORY_SHARE:.0%} of: {memory.source}',
    )
    arguments.resources = f'cores: {nprocs} ({sources[0]}); memory: {memory_gb} GB ({sources[1]})'
    return nprocs, memory_gb


def _direct_values(kind: type[RunSettings], arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that are the value of an option; one that was not given keeps its default."""
    given = {
        setting.name: getattr(arguments, option_of(setting))
        for setting in fields(kind)
        if hasattr(arguments, option_of(setting))
    }
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }


def _of_adaptation(
    arguments: argparse.Namespace,
    more: Path | None,
    derivatives: dict[str, Path],
    known: Collection[str],
) -> dict[str, Any]:
    """The settings of an adaptation that are not the value of an option.

    Parameters
    ----------
    more : a folder of labels beside those of ``--labels``.
    derivatives : other datasets; those that have manual masks are folders of labels too.
    known : labels of the participants.

    Raises
    ------
    UsageError : they contradict one another.
    NoInputError : a folder of labels does not exist.
    """
    labels = _existing_folders([*(arguments.labels or ()), *([more] if more else [])])
    if arguments.strategy == 'none':
        of_adaptation = foreign_options('participant') - {'strategy'}
        _refuse(arguments, of_adaptation & arguments.given, 'with --strategy none')
        if more:
            raise UsageError(f'-d labels={more} does not apply with --strategy none')
    else:
        labels += [folder for folder in derivatives.values() if _has_labels(folder)]
        if arguments.strategy is not None:
            from ssl2_bids.training import strategies

            strategies.find(arguments.strategy)
    if arguments.rung in UNTRAINED:
        where = f'with --rung {arguments.rung}'
        _refuse(arguments, {'steps', 'max_time'} & _set_options(arguments), where)
        if 'strategy' in arguments.given and arguments.strategy != 'twin':
            raise UsageError(
                f'--strategy {arguments.strategy} does not apply {where}, which has no training',
                advice='Leave it out; only --strategy twin applies.',
            )
    if arguments.twin_heads and arguments.strategy != 'twin':
        raise UsageError(
            '--twin-heads is for --strategy twin',
            advice='Give both, or leave --twin-heads out.',
        )
    return {
        'labels': each_once(labels),
        'twin_heads': _existing_folders([arguments.twin_heads])[0]
        if arguments.twin_heads
        else None,
        'holdout': strip_prefix(arguments.holdout_label, 'sub', known) or (),
        'resegment': not arguments.no_resegment,
    }


def _sessions(bids_dir: Path) -> set[str]:
    """The labels of all sessions."""
    people = dataset.participant_labels(bids_dir)
    return {s for one in people for s in dataset.session_labels(bids_dir, one) if s is not None}


def _existing_folders(paths: list[Path] | None) -> list[Path]:
    folders = [absolute(path) for path in paths or ()]
    for folder in folders:
        check_folder(folder, 'folder of labels')
    return folders


def _folders_of_labels(arguments: argparse.Namespace) -> tuple[Path, ...]:
    """The folders of ``--calibrate-from``, which excludes what would make it useless."""
    folders = each_once(_existing_folders(arguments.calibrate_from))
    if folders:
        useless = {'threshold', 'sloppy', 'reports_only', 'boilerplate_only'}
        _refuse(arguments, useless & _set_options(arguments), 'with --calibrate-from')
    return folders


def _database_folder(path: Path | None, bids_dir: Path) -> Path | None:
    if path is None:
        return None
    folder = absolute(path)
    inside = folder.resolve().is_relative_to(bids_dir.resolve())
    if inside and not (folder / 'layout_index.sqlite').is_file():  # nothing is written there
        raise in_dataset(path)
    return folder


def _has_labels(folder: Path) -> bool:
    from ssl2_bids.bids.labels import look_for_labels

    with suppress(NoInputError):  # results of this App
        return bool(look_for_labels(folder).labels)
    return False


def _folder_of_masks(path: Path | None) -> Path | None:
    if path is None:
        return None
    folder = absolute(path)
    check_folder(folder, 'folder of brain masks')
    return folder


def _set_options(arguments: argparse.Namespace) -> set[str]:
    """Names of the options that are set, on the command line or by a configuration file."""
    return {name for name, value in vars(arguments).items() if value not in (None, False)}


def _refuse(arguments: argparse.Namespace, names: set[str], where: str) -> None:
    """No option is accepted that does nothing."""
    for name in sorted(names):
        option = '--' + name.replace('_', '-')
        source = '' if name in arguments.given else ' (it is in the configuration file)'
        raise UsageError(f'{option} does not apply {where}{source}', advice='Leave it out.')


def _check_alone(arguments: argparse.Namespace) -> None:
    """Of the options that replace the processing, one at a time."""
    given = [name for name in REPLACING if getattr(arguments, name)]
    if given[1:]:
        one, other = (f'--{name.replace("_", "-")}' for name in given[:2])
        raise UsageError(f'{one} and {other} exclude each other', advice='Leave one of them out.')


def _check_contrasts(arguments: argparse.Namespace) -> None:
    """No contrast is asked for that ``--contrasts`` leaves out."""
    reference = [arguments.reference] if arguments.reference else []
    for option, keys in (('--reference', reference), ('--require', arguments.require or ())):
        for key in keys if arguments.contrasts else ():
            if key not in arguments.contrasts:
                raise UsageError(
                    f'{option} {key} is not among --contrasts {" ".join(arguments.contrasts)}',
                    advice='Add it to --contrasts, or leave one of both options out.',
                )


def _read_plugin(path: Path) -> dict[str, Any]:
    import yaml

    try:
        with reading(path):
            if not path.is_file():
                raise NoInputError('no such plugin file', path=path)
            content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f'not readable YAML ({error})', path=path) from None
    if not isinstance(content, dict) or 'plugin' not in content:
        raise UsageError(
            'a plugin file needs the key "plugin"',
            advice='For example "plugin: SLURM" and "plugin_args: {sbatch_args: ...}".',
            path=path,
        )
    given = content.get('plugin_args') or {}
    if not isinstance(given, dict):
        raise UsageError('"plugin_args" is not an object with keys', path=path)
    if not isinstance(given.get('n_procs', 1), int) or given.get('n_procs', 1) < 1:
        raise UsageError('"n_procs" is not a whole number above 0', path=path)
    template = str(given.get('template', ''))
    if template and '\n' not in template and not os.path.isfile(template):
        raise NoInputError(f'no such template of a batch script: {template}', path=path)
    return {key: content[key] for key in ('plugin', 'plugin_args') if key in content}


def shown_command(argv: list[str], settings: RunSettings) -> str:
    """The command line with the user's folders named: reports are mailed around."""
    words = []
    for word in argv:
        path = os.path.abspath(os.path.expanduser(word))
        for name, folder in (
            ('<BIDS_DIR>', settings.bids_dir),
            ('<OUTPUT_DIR>', settings.output_dir),
            ('<WORK_DIR>', settings.work_dir),
        ):
            if path == str(folder):
                word = name
        for name, folder in settings.derivatives.items():
            given = os.path.abspath(os.path.expanduser(word.removeprefix(f'{name}=')))
            if given == str(folder):
                word = f'{name}=<{name}>'
        words.append(word if word.endswith('>') else shlex.quote(word))
    return ' '.join(['ssl2-bids', *words])
