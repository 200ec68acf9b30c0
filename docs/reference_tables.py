"""The parts of the reference that are made from the code, so that they cannot drift from it.

``python docs/reference_tables.py FOLDER`` writes them as Markdown; ``docs/conf.py`` calls it at
each build. Nothing but the Python standard library and ssl2_bids is needed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import ssl2_bids
from ssl2_bids import errors, settings, tables
from ssl2_bids.networks import cards

PROJECT = Path(__file__).resolve().parents[1]
RESOURCES = Path(inspect.getfile(ssl2_bids)).parent / 'resources'
FOLDERS = {
    'anat': 'Images and tables of a session',
    'longitudinal': 'Several sessions of a participant (`--longitudinal`)',
    'report': 'Reports of a participant',
    'group': 'Results of the group level',
    'model': 'An adapted model',
    'simulated': 'Simulated datasets',
}


def write(folder: Path) -> list[Path]:
    """Write all parts; a file that is the same already is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    files = {f'{name}.md': content for name, content in parts().items()}
    for name, content in (files | {'notebook.ipynb': notebook()}).items():
        path = folder / name
        if not path.is_file() or path.read_text() != content:
            path.write_text(content)
        written.append(path)
    return written


def parts() -> dict[str, str]:
    """All parts: name of the file without its suffix, and its Markdown."""
    parsers = {name: build_parser(name) for name in scripts()}
    return {
        **{name: command_line(parser) for name, parser in parsers.items()},
        'outputs': outputs(),
        'columns': columns(),
        'quality': quality(),
        'training-configuration': training_configuration(),
        'exit-codes': exit_codes(),
        'model-json': model_json(),
        'api': api(),
    }


# --- command lines


def scripts() -> dict[str, str]:
    """The commands that the package installs: name -> module and function."""
    return tomllib.loads((PROJECT / 'pyproject.toml').read_text())['project']['scripts']


def build_parser(script: str) -> argparse.ArgumentParser:
    """The parser of a command, from the module that the command starts in."""
    return importlib.import_module(scripts()[script].partition(':')[0]).build_parser()


def command_line(parser: argparse.ArgumentParser) -> str:
    """Every argument of a parser, and of the parsers of its commands."""
    text = ''.join(describe_parser(parser))
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                text += f'## {command.prog}\n\n' + ''.join(describe_parser(command))
    return text


def describe_parser(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Markdown of one parser: usage, and its arguments by group."""
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=88)
    usage = parser.format_usage().removeprefix('usage: ')
    yield f'```text\n{usage.rstrip()}\n```\n\n```{{program}} {parser.prog}\n```\n\n'
    level = '###' if ' ' in parser.prog else '##'
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if is_shown(one)]
        if not actions:
            continue
        yield f'{level} {group_title(parser, group)}\n\n'
        if group.description:
            yield escape(' '.join(group.description.split())) + '\n\n'
        for action in actions:
            yield describe_action(parser, action)


def is_shown(action: argparse.Action) -> bool:
    """Whether ``--help`` has the argument."""
    commands = isinstance(action, argparse._SubParsersAction)
    return action.help != argparse.SUPPRESS and not commands


def group_title(parser: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> str:
    """The heading of a group; different for each command, as anchors are."""
    names = {'positional arguments': 'Arguments', 'options': 'Options'}
    title = names.get(group.title or '', (group.title or '').capitalize())
    command = parser.prog.partition(' ')[2]
    return f'{title} of {command}' if command else title


def describe_action(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """One argument as a directive that can be linked to."""
    # ``--a-b`` and ``--a_b`` are one option
    names = [name for name in action.option_strings if not re.match('--.*_', name)]
    formatter = argparse.HelpFormatter(parser.prog)
    if not names:
        signature = formatter._format_args(action, action.metavar or action.dest)
        if isinstance(action.metavar, str):
            signature = action.metavar
    else:
        short = [name for name in names if not name.startswith('--')]
        signature = ', '.join(short + [name for name in names if name.startswith('--')][:1])
        if action.nargs != 0:
            metavar = action.metavar or action.dest.upper()
            if action.choices:
                metavar = action.metavar or '{' + ','.join(map(str, action.choices)) + '}'
            signature += ' ' + formatter._format_args(action, str(metavar))
    text = escape((action.help or '').replace('%%', '%'))
    others = [f'`{n}`' for n in names if n.startswith('--')][1:]
    notes = f'Also {", ".join(others)}. ' if others else ''
    if parser.prog == 'ssl2-bids' and action.dest in levels():
        notes += f'{levels()[action.dest]} level only.'
    return f'````{{option}} {signature}\n{sentence(text)}\n\n{notes}\n````\n\n'


@cache
def levels() -> dict[str, str]:
    """The level of each option that only one level has, by its settings."""
    participant = dict.fromkeys(settings.foreign_options('group'), 'Participant')
    return participant | dict.fromkeys(settings.foreign_options('participant'), 'Group')


def escape(text: str) -> str:
    """Plain text as Markdown that shows it; options and file names in it as code."""
    text = re.sub(r'([\\`*_<>|\[\]])', r'\\\1', text)
    return re.sub(r'(?<![\w-])(--[a-z][a-z-]*)', r'`\1`', text)


# --- outputs


def outputs() -> str:
    """All files that are written, by section of ``outputs.toml``."""
    patterns = tomllib.loads((RESOURCES / 'outputs.toml').read_text())
    meanings = tomllib.loads((PROJECT / 'docs/reference/outputs.toml').read_text())
    if keys_of(patterns) != keys_of(meanings):
        differing = sorted(keys_of(patterns) ^ keys_of(meanings))
        raise ValueError(f'docs/reference/outputs.toml and outputs.toml differ in {differing}')
    if patterns.keys() != FOLDERS.keys():
        differing = sorted(patterns.keys() ^ FOLDERS.keys())
        raise ValueError(f'outputs.toml and FOLDERS differ in {differing}')
    text = ''
    for section, title in FOLDERS.items():
        text += f'## {title}\n\n'
        for key, pattern in patterns[section].items():
            text += f'{shown_pattern(pattern)}\n: {meanings[section][key]}\n\n'
    return text


def keys_of(tables: dict[str, dict[str, Any]]) -> set[str]:
    """``section.key`` of two levels of tables."""
    return {f'{section}.{key}' for section, table in tables.items() for key in table}


def shown_pattern(pattern: str) -> str:
    """A pattern as people read it: ``P`` for the participant and session, ``<x>`` for the rest."""
    pattern = pattern.replace('sub-{subject}[_ses-{session}]', 'P')
    pattern = pattern.replace('sub-{subject}[/ses-{session}]/', '')
    pattern = pattern.replace('{subject}', 'X').replace('[_{entities}]', '')
    pattern = pattern.replace('[_desc-{desc}]', '[_desc-<model>]')
    return '`' + re.sub(r'\{(\w+)\}', r'<\1>', pattern) + '`'


# --- columns of tables


def described_tables() -> dict[str, tuple[str, dict[str, dict[str, Any]]]]:
    """Each table that is written, by heading: its file and its columns."""
    from ssl2_bids.bids import columns
    from ssl2_bids.workflows.evaluation import scores

    patterns = tomllib.loads((RESOURCES / 'outputs.toml').read_text())

    def name(output: str) -> str:
        section, _, key = output.partition('.')
        return shown_pattern(re.sub(r'\.nii\.gz$', '.tsv', patterns[section][key]))

    compared, lesion_free = scores.table([])[1], scores.lesion_free_table([])[1]
    evaluated = '`FILE.tsv` of `ssl2 evaluate --output FILE.tsv`'
    people = columns.SIMULATED_PARTICIPANT_COLUMNS
    return {
        'Lesions of a session': (name('anat.instances'), columns.LESION_COLUMNS),
        'Volumes of a session': (name('anat.volumes'), columns.VOLUME_COLUMNS),
        'Lesions over time': (name('longitudinal.lesions'), columns.LONGITUDINAL_COLUMNS),
        'Compared sessions, for lesiontrack': (
            name('group.lesiontrack'),
            columns.MANIFEST_COLUMNS,
        ),
        'Lesions of a session among others': (
            name('longitudinal.instances'),
            columns.WITHIN_LESION_COLUMNS,
        ),
        'Changes of two sessions': (name('longitudinal.change'), columns.CHANGE_COLUMNS),
        'Cohort': (name('group.lesions'), columns.cohort_columns(['CONTRAST'])),
        'Scores of an adaptation': (name('group.performance'), columns.PERFORMANCE_COLUMNS),
        'Slices to label next': (name('group.annotate'), columns.ANNOTATE_COLUMNS),
        'Curves of an adaptation': (name('model.history'), columns.HISTORY_COLUMNS),
        'Folds of an adaptation': (name('model.splits'), columns.SPLIT_COLUMNS),
        'Evaluation': (evaluated, compared),
        'Comparison of models': ('`FILE_comparison.tsv` beside it', scores.COMPARISON_COLUMNS),
        'Evaluation of people without lesions': (f'{evaluated} `--lesion-free`', lesion_free),
        'Simulated lesions': (name('anat.instances'), columns.SIMULATED_LESION_COLUMNS),
        'Simulated tissues': (name('simulated.tissues'), columns.LABEL_COLUMNS),
        'Simulated participants': ('`participants.tsv`', people),
        'Resources of a run': ('`logs/*_resources.tsv`', columns.RESOURCE_COLUMNS),
    }


def columns() -> str:
    """The columns of all tables, with the descriptions that stand in the JSON beside each."""
    text = ''
    for heading, (file, described) in described_tables().items():
        text += f'## {heading}\n\n{file}\n\n| column | meaning | unit |\n| --- | --- | --- |\n'
        for column, entry in described.items():
            levels = [
                f'`{level}`: {meaning}' for level, meaning in entry.get('Levels', {}).items()
            ]
            meaning = '; '.join([escape(entry['Description']), *levels])
            text += f'| `{column}` | {meaning} | {entry.get("Units", "")} |\n'
        text += '\n'
    return text


# --- quality of images


def quality() -> str:
    """The metrics of an image: those of MRIQC, and our own."""
    from ssl2_bids.metrics.quality_names import METRICS

    text = ''
    for title, of_mriqc in (('Names and formulas of MRIQC', True), ('Other metrics', False)):
        text += f'## {title}\n\n| metric | meaning | unit |\n| --- | --- | --- |\n'
        for name, metric in METRICS.items():
            if metric.of_mriqc == of_mriqc:
                text += f'| `{name}` | {escape(metric.description)} | {metric.units} |\n'
        text += '\n'
    return text


# --- exit codes


def exit_codes() -> str:
    """Exit codes with their meaning, from the exceptions and the signals."""
    rows = ''.join(f'| {code} | {text} |\n' for code, text in errors.exit_codes().items())
    return f'| code | meaning |\n| --- | --- |\n{rows}'


# --- model.json


def model_json() -> str:
    """The keys of ``model.json``: what is needed, from the check; what they mean, from Card."""
    meanings = documented_attributes(cards.Card)
    needed = {key: wanted for key, (_, _, wanted) in cards.CARD_KEYS.items()}
    text = 'Required keys:\n\n| key | value | meaning |\n| --- | --- | --- |\n'
    for key, wanted in needed.items():
        meaning = meanings[snake_case(key)]
        text += f'| `{key}` | {sentence(escape(wanted))} | {sentence(meaning)} |\n'
    optional = [
        field.name
        for field in dataclasses.fields(cards.Card)
        if camel_case(field.name) not in needed and field.name not in ('folder', 'content')
    ]
    text += '\nOptional keys:\n\n| key | meaning |\n| --- | --- |\n'
    for name in optional:
        text += f'| `{camel_case(name)}` | {sentence(meanings[name])} |\n'
    text += f'| `Output` | `{cards.LESION}`, or `{cards.IMAGE}` of a network without lesions. |\n'
    example = json.loads((RESOURCES / 'weights/fast-3t/model.json').read_text())
    known = {*needed, *map(camel_case, optional), 'Output'}
    others = ', '.join(f'`{key}`' for key in example if key not in known)
    return text + f'\nOther keys describe the origin of the model (in `fast-3t`: {others}).\n'


# --- training configuration


def training_configuration() -> str:
    """The keys of a training configuration: meanings from the docstrings, and defaults."""
    from ssl2_bids.training.pretraining.config import Config

    default = Config()
    plain: list[str] = []
    sections: dict[type, list[str]] = {}
    for field in dataclasses.fields(Config):
        value = getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            sections.setdefault(type(value), []).append(field.name)
        elif field.name != 'network':
            plain.append(field.name)
    text = f'## Before the sections\n\n{key_table({"": default}, plain)}\n'
    text += f'## `[network]`\n\n{network_section(default.network)}\n'
    for kind, names in sections.items():
        first_line = (inspect.getdoc(kind) or '').partition('\n')[0]
        text += f'## {" and ".join(f"`[{name}]`" for name in names)}\n\n{sentence(first_line)}\n\n'
        text += key_table({name: getattr(default, name) for name in names}) + '\n'
    return text


def key_table(defaults: dict[str, Any], names: list[str] | None = None) -> str:
    """The keys of one table of TOML, or of several of one kind.

    Parameters
    ----------
    defaults : name of the table -> the dataclass with the defaults.
    names : the keys; None for all of them.
    """
    text = '| key | meaning | default | unit |\n| --- | --- | --- | --- |\n'
    return text + ''.join(key_rows(defaults, names))


def key_rows(defaults: dict[str, Any], names: list[str] | None = None) -> Iterator[str]:
    """A row for each key; those of a field beside the others stand in its place."""
    kind = type(next(iter(defaults.values())))
    meanings = documented_attributes(kind)
    for field in dataclasses.fields(kind):
        values = {table: getattr(one, field.name) for table, one in defaults.items()}
        if field.metadata == tables.BESIDE:
            yield from key_rows(values)
        elif names is None or field.name in names:
            found = re.fullmatch(r'(.*?)(?: \[(.+)\])?\.?', meanings[field.name])
            assert found
            shown = {table: toml_value(value) for table, value in values.items()}
            default = next(iter(shown.values()))
            if len(set(shown.values())) > 1:
                default = ', '.join(f'{value} (`{table}`)' for table, value in shown.items())
            unit = found[2] or ''
            yield f'| `{field.name}` | {sentence(found[1])} | {default} | {unit} |\n'


def toml_value(value: Any) -> str:
    """A default as TOML has it, as code; nothing for None, which TOML does not have."""
    return '' if value is None else f'`{json.dumps(tables.to_table(value))}`'


def network_section(default: dict[str, Any]) -> str:
    """The types of networks and their keys."""
    from ssl2_bids.networks.registry import NETWORKS
    from ssl2_bids.training.pretraining.config import Config

    text = sentence(documented_attributes(Config)['network'])
    pairs = ', '.join(f'`{key} = {json.dumps(value)}`' for key, value in default.items())
    text += f' Without the section: {pairs}.\n\n'
    text += '| type | keys | optional keys |\n| --- | --- | --- |\n'
    for name, network in NETWORKS.items():
        groups: tuple[list[str], list[str]] = ([], [])
        for key in network.parameters:
            groups[key not in network.required].append(f'`{key}`')
        text += f'| `{name}` | {" | ".join(", ".join(group) for group in groups)} |\n'
    return text


def sentence(text: str) -> str:
    """A phrase of a docstring as Markdown, with a capital at its start."""
    return (text[:1].upper() + text[1:]).replace('``', '`')


def documented_attributes(kind: type) -> dict[str, str]:
    """Name -> meaning, from the section Attributes of a docstring."""
    _, _, section = (inspect.getdoc(kind) or '').partition('Attributes\n----------\n')
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.partition('\n\n')[0].splitlines():
        if line.startswith(' '):
            for name in names:
                found[name] = f'{found[name]} {line.strip()}'.strip()
        else:
            listed, _, meaning = line.partition(' : ')
            names = [name.strip() for name in listed.split(',')]
            found |= dict.fromkeys(names, meaning)
    return found


def snake_case(key: str) -> str:
    """``VoxelSize`` -> ``voxel_size``."""
    return re.sub('(?<!^)(?=[A-Z])', '_', key).lower()


def camel_case(name: str) -> str:
    """``voxel_size`` -> ``VoxelSize``."""
    return ''.join(word.capitalize() for word in name.split('_'))


# --- notebook


def notebook() -> str:
    """The tutorial on the Python interface as a Jupyter notebook, without outputs."""
    page = (PROJECT / 'docs/tutorials/notebook.md').read_text()
    page = re.sub(r' This page as a notebook: \S+ <\S+>`\.', '', page)
    cells = []
    for number, text in enumerate(re.split(r'```pycon\n(.*?)```\n', page, flags=re.DOTALL)):
        if number % 2:
            lines = re.findall(r'^(?:>>>|\.\.\.) ?(.*)$', text, re.MULTILINE)
            cell = {'cell_type': 'code', 'execution_count': None, 'outputs': []}
        else:
            lines = re.sub(r'\]\((?!https?:)[^)]*\)', ']', text).strip().splitlines()
            cell = {'cell_type': 'markdown'}
        source = '\n'.join(lines)
        cells.append(cell | {'id': f'cell-{number}', 'metadata': {}, 'source': source})
    kernel = {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}
    content = {'cells': [one for one in cells if one['source']], 'nbformat': 4}
    content |= {'nbformat_minor': 5, 'metadata': {'kernelspec': kernel}}
    return json.dumps(content, indent=1) + '\n'


# --- API


def api() -> str:
    """The public names, ``ssl2_bids.__all__``, in their order."""
    names = getattr(ssl2_bids, '__all__', ())
    if not names:
        return 'This version has no public names: all modules are private and may change.\n'
    text = ''
    for name in names:
        thing = getattr(ssl2_bids, name)
        if name.startswith('__') or inspect.ismodule(thing):
            continue
        if inspect.isclass(thing):
            directive, options = 'autoclass', '   :members:\n'
        else:
            directive = 'autofunction' if callable(thing) else 'autodata'
            options = ''
        text += (
            f'## {name}\n\n```{{eval-rst}}\n.. {directive}:: ssl2_bids.{name}\n{options}```\n\n'
        )
    return text


if __name__ == '__main__':
    for path in write(Path(sys.argv[1])):
        print(path)
