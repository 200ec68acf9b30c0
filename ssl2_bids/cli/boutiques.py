"""The Boutiques descriptor of the App, made from its parser: what ``--bids-exec-spec`` prints.

Schema 0.5: Glatard et al. 2018, doi 10.1093/gigascience/giy016.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from ssl2_bids import __version__
from ssl2_bids.errors import exit_codes

EXECUTION_SPEC = '1.0.0'  # of BIDS Apps, whose arguments and exit codes these are
RESOURCES = {'cpu-cores': 4, 'ram': 8, 'walltime-estimate': 600}  # GB, s; of one participant
OUTPUTS = {
    # bosh looks them up without recursion: ** would be one folder
    'participant': ('results of a participant', '[OUTPUT_DIR]/sub-*/anat/*'),
    'session': ('results of a session', '[OUTPUT_DIR]/sub-*/ses-*/anat/*'),
    'pages': ('page of each participant', '[OUTPUT_DIR]/sub-*.html'),
    'group_table': ('lesions and volumes of the cohort', '[OUTPUT_DIR]/group_lesions.tsv'),
    'group_page': ('page of the cohort', '[OUTPUT_DIR]/group_report.html'),
    'adapted_model': ('model adapted to the site', '[OUTPUT_DIR]/models/*'),
}


class PrintDescriptor(argparse.Action):
    """Print the descriptor of the parser and end."""

    def __init__(self, option_strings: list[str], dest: str, **more: Any):
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **more)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print, and end with 0."""
        print(json.dumps(descriptor(parser), indent=2, ensure_ascii=False))
        parser.exit()


def descriptor(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The descriptor of a command line.

    Parameters
    ----------
    parser : whose arguments become inputs; each option goes by its first long name.
    """
    inputs = [_input(action) for action in _described(parser)]
    first, _, rest = (parser.description or '').partition('\n')
    return {
        'name': parser.prog,
        'description': ' '.join(f'{first} {rest}'.split()),
        'tool-version': __version__,
        'schema-version': '0.5',
        'command-line': ' '.join([parser.prog, *(one['value-key'] for one in inputs)]),
        'container-image': {'type': 'docker', 'image': f'{parser.prog}:{__version__}'},
        'inputs': inputs,
        'output-files': [
            {'id': name, 'name': text, 'path-template': template, 'optional': True}
            for name, (text, template) in OUTPUTS.items()
        ],
        'groups': list(_groups(parser)),
        'error-codes': [
            {'code': code, 'description': text} for code, text in exit_codes().items()
        ],
        'suggested-resources': RESOURCES,
        'tags': {'domain': ['neuroinformatics', 'bids-app', 'mri']},
        'custom': {'BIDSAppSpecVersion': EXECUTION_SPEC},
    }


def _described(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a run; not those that print something and end."""
    seen = {'help', 'version', 'bids_exec_spec'}
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and action.dest not in seen:
            seen.add(action.dest)  # --mem and --mem-gb are one setting
            yield action


def _groups(parser: argparse.ArgumentParser) -> Iterator[dict[str, Any]]:
    """The groups of the help, by the ids of their inputs."""
    described = {action.dest for action in _described(parser)}
    for group in parser._action_groups:
        title = group.title or ''
        members = dict.fromkeys(one.dest for one in group._group_actions if one.dest in described)
        if members:
            name = '_'.join(re.findall(r'\w+', title.lower()))
            yield {'id': name, 'name': title, 'members': list(members)}


def _input(action: argparse.Action) -> dict[str, Any]:
    text = ' '.join((action.help or '').replace('%%', '%').split())
    found: dict[str, Any] = {
        'id': action.dest,
        'name': action.dest.replace('_', ' '),
        'description': text,
        'type': _type(action),
        'optional': bool(action.option_strings),
        'value-key': f'[{action.dest.upper()}]',
    }
    if _read_as(action) is int:
        found['integer'] = True
    if action.option_strings:
        names = [name for name in action.option_strings if name.startswith('--')]
        found['command-line-flag'] = (names or list(action.option_strings))[0]
    choices = action.choices or re.findall(r'\w+', str(action.metavar or ''))
    if action.choices or (not action.option_strings and str(action.metavar).startswith('{')):
        found['value-choices'] = list(choices)
    if action.nargs in ('+', '*'):
        found['list'] = True
        found['min-list-entries'] = 1
    return found


def _type(action: argparse.Action) -> str:
    if action.nargs == 0:
        return 'Flag'
    if _read_as(action) in (int, float):
        return 'Number'
    # an output folder need not exist
    return 'File' if action.type is Path and action.dest == 'bids_dir' else 'String'


def _read_as(action: argparse.Action) -> Any:
    """What the values of an option become."""
    if action.type is None or isinstance(action.type, (type, str)):
        return action.type
    suffixed = action.dest == 'mem'  # 16G
    return str if suffixed else get_type_hints(action.type).get('return')
