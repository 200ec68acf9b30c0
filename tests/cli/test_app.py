"""The answer of the command line to a person's mistakes, and what it imports for that."""

from __future__ import annotations

import errno
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssl2_bids.bids.given_datasets import check_datasets
from ssl2_bids.cli import options, values
from ssl2_bids.cli.app import main
from ssl2_bids.cli.parser import build_parser
from ssl2_bids.cli.terminal import Terminal
from ssl2_bids.errors import ENDING, SOME_FAILED, SUCCESS, NoInputError, Ssl2Error, UsageError
from ssl2_bids.locks import LOCK
from ssl2_bids.networks.weights import BUNDLED
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.adaptation.plan import asked_for
from ssl2_bids.workflows.participant.outcomes import Outcome

RUN = Path(__file__).resolve().parents[2] / 'run.py'


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(
        [
            'sub-01/anat/sub-01_T1w.nii.gz',
            'sub-01/anat/sub-01_FLAIR.nii.gz',
            'sub-02/anat/sub-02_T2w.nii.gz',
        ]
    )


def run(*words: object) -> int:
    return main([str(w) for w in words])


MISTAKES = [
    (['{data}/nope', '{out}', 'participant'], 66, 'no such folder'),
    (['{data}/sub-01', '{out}', 'participant'], 16, 'dataset_description.json'),
    (['{data}', '{out}', 'everything'], 17, 'participant, group'),
    (['{data}', '{out}', 'participant', '--participant-label', '03'], 18, 'There are: 0'),
    (['{data}', '{out}', 'participant', '--session-label', 'x'], 18, 'no sessions'),
    (['{data}', '{out}', 'participant', '--brain-mask', '{file}'], 66, 'a file is not a folder'),
    (
        ['{data}', '{out}', 'participant', '--bids-filter-file', '{filter}'],
        18,
        "acquisition = 'b'",
    ),
    (['{data}', '{data}', 'participant'], 64, 'the dataset itself'),
    (['{data}', '{data}/out', 'participant'], 64, 'inside the dataset'),
    (['{data}', '{out}', 'participant', '-w', '{data}/work'], 64, 'work folder'),
    (['{data}', '{out}', 'participant', '--threshold', '2'], 64, 'between 0 and 1'),
    (['{data}', '{out}', 'participant', '--part', '01'], 64, 'unrecognized'),
    (['{data}', '{out}', 'participant', '-d', 'fmriprep={data}/nope'], 66, 'no such folder'),
    (['{data}', '{out}', 'participant', '-d', 'x={data}/sub-01'], 66, 'no sub-* folder'),
    (['{data}', '{out}', 'participant', '-d', 'x={data}'], 64, 'is the dataset itself'),
    (['{data}', '{out}', 'participant', '-d', 'raw={data}'], 64, 'is reserved'),
    (['{data}', '{out}', 'participant', '-d', 'a b={data}'], 64, 'not a name'),
    (['{data}', '{out}', 'participant', '-d', 'fmriprep='], 64, 'names no folder'),
    (['{data}', '{out}', 'participant', '--work-dir='], 64, 'an argument is empty'),
    (['{data}', '{out}', 'participant', '-d', 'x={data}', 'x=/'], 64, 'another dataset "x"'),
    (['{data}', '{out}', 'participant', '-d', 'labels={data}'], 64, 'at participant level'),
    (['{data}', '{out}', 'group', '-d', 'labels={data}/nope'], 66, 'folder of labels'),
    (
        ['{data}', '{out}', 'participant', '--bids-database-dir', '{data}/index'],
        64,
        'inside the dataset',
    ),
    (
        ['{data}', '{out}', 'participant', '--dry-run', '--bids-database-dir', '{data}/sub-01'],
        64,
        'inside the dataset',
    ),
    (['{data}', '{out}', 'group', '--bids-database-dir', '/x'], 64, 'at group level'),
    (['{data}', '{out}', 'participant', '--output-spaces', 'moon'], 69, 'moon'),
    (['{data}', '{out}', 'participant', '--model', 'nope'], 69, 'nope'),
    (['{data}', '{out}', 'participant', '--device', 'cuda'], 69, '--device cpu'),
    (['{data}', '{out}', 'participant', '--participant-label', '02', '--dry-run'], 66, ''),
    (['{data}', '{out}', 'group'], 66, 'participant'),
    (['{data}', '{out}', 'group', '--tta'], 64, '--tta'),
    (['{data}', '{out}', 'group', '--strategy', 'twins'], 64, 'twin, or none'),
    (['{data}', '{out}', 'group', '--boilerplate-only'], 64, 'at group level'),
    (['{data}', '{out}', 'participant', '--boilerplate-only', '--dry-run'], 64, 'exclude'),
    (['{data}', '{out}', 'participant', '--boilerplate-only', '--reports-only'], 64, 'exclude'),
    (['{data}', '{out}', 'participant', '--dry-run', '--reports-only'], 64, 'exclude'),
    (['{data}', '{out}', 'participant', '--labels', '{data}'], 64, '--labels does not apply'),
    (
        ['{data}', '{out}', 'group', '--rung', 'recalibrated', '--steps', '20'],
        64,
        '--steps does not apply with --rung recalibrated',
    ),
    (
        ['{data}', '{out}', 'group', '--rung', 'recalibrated', '--strategy', 'fixmatch'],
        64,
        '--strategy fixmatch does not apply with --rung recalibrated',
    ),
    (['{data}', '{out}', 'participant', '--folds', '3'], 64, 'at participant level'),
    (['{data}', '{out}', 'group', '--labels', '{out}/nope'], 66, 'no such folder of labels'),
    (['{data}', '{out}', 'group', '--folds', '1'], 64, 'slices'),
    (['{data}', '{out}', 'group', '--label', 'my_site'], 64, 'letters and digits'),
    (['{data}', '{out}', 'group', '--max-time', '0'], 64, 'not a finite number above 0'),
    (['{data}', '{out}', 'group', '--empty-labels', 'maybe'], 64, 'negative'),
    (['{data}', '{out}', 'group', '--strategy', 'none', '--steps', '5'], 64, '--strategy none'),
    (['{data}', '', 'participant'], 64, 'an argument is empty'),
    (['{data}', '{out}', 'participant', '-w', '{out}'], 64, 'among the results'),
    (['{data}', '{out}', 'participant', '-w', '{out}/sub-01'], 64, 'among the results'),
    (['{data}', '{out}', 'participant', '--participant-label', '{empty}'], 18, 'has no label'),
    (['{data}', '{file}', 'participant'], 73, 'this is a file'),
    (['{data}', '{other}', 'participant'], 73, 'another tool'),
    (
        ['{data}', '{out}', 'participant', '--reference', 'flair', '--contrasts', 't1w'],
        64,
        '--reference flair is not among --contrasts t1w',
    ),
    (
        ['{data}', '{out}', 'participant', '--require', 't1w', 'flair', '--contrasts', 't1w'],
        64,
        '--require flair is not among --contrasts t1w',
    ),
    (['{data}', '{out}', 'participant', '--config-file', '{file}'], 64, 'configuration'),
    (['{data}'], 64, 'required'),
    ([], 64, 'usage'),
]


@pytest.mark.parametrize(('words', 'code', 'text'), MISTAKES)
def test_mistakes(dataset, tmp_path, capsys, words, code, text):
    other = tmp_path / 'other'
    other.mkdir()
    description = {'Name': 'x', 'BIDSVersion': '1.9.0', 'GeneratedBy': [{'Name': 'fMRIPrep'}]}
    (other / 'dataset_description.json').write_text(json.dumps(description))
    (tmp_path / 'file').write_text('text')
    (tmp_path / 'empty').write_text('\n')
    both = {'t1w': {'acquisition': 'b'}, 'flair': {'acquisition': 'b'}}
    (tmp_path / 'filter.json').write_text(json.dumps(both))
    places = {
        'data': dataset,
        'out': tmp_path / 'out',
        'other': other,
        'file': tmp_path / 'file',
        'empty': tmp_path / 'empty',
        'filter': tmp_path / 'filter.json',
    }
    assert run(*(w.format(**places) for w in words)) == code
    shown = capsys.readouterr()
    assert text in shown.err + shown.out
    assert 'Traceback' not in shown.err


def test_dry_run_prints_files_and_writes_nothing(dataset, tmp_path, capsys):
    out = tmp_path / 'out'
    assert run(dataset, out, 'participant', '--dry-run') == 0
    shown = capsys.readouterr().out
    assert 'use    FLAIR (reference): sub-01/anat/sub-01_FLAIR.nii.gz' in shown
    assert 'write  sub-01/anat/sub-01_space-FLAIR_label-L_mask.nii.gz' in shown
    assert 'sub-02\n  nothing to do' in shown
    assert not out.exists()


def test_output_below_derivatives_is_allowed(dataset, capsys):
    out = dataset / 'derivatives' / 'ssl2-bids'
    assert run(dataset, out, 'participant', '--dry-run') == 0


@pytest.mark.parametrize('words', [['--help'], ['--version'], ['a', 'b', 'nonsense']])
def test_light_answers_import_nothing_heavy(words):
    script = (
        'import sys\nfrom ssl2_bids.cli.app import main\n'
        'try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n'
        'heavy = {"torch", "numpy", "nibabel", "nipype", "bids", "monai"} & set(sys.modules)\n'
        'sys.exit(f"imported {heavy}" if heavy else 0)\n'
    )
    done = subprocess.run([sys.executable, '-c', script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_both_spellings_of_an_option_are_one():
    parser = build_parser()
    for spelling in ('--participant-label', '--participant_label', '--participant_labels'):
        arguments = parser.parse_args(['a', 'b', 'participant', spelling, '01', '02'])
        assert arguments.participant_label == ['01', '02']


def test_memory_in_the_wrong_unit_is_refused():
    with pytest.raises(UsageError, match='"8" is 8 MB'):
        build_parser().parse_args(['a', 'b', 'participant', '--mem', '8'])
    assert build_parser().parse_args(['a', 'b', 'participant', '--mem-gb', '8']).mem == 8


@pytest.mark.parametrize('content', [None, '/annex/objects/MD5E-s1--1.json\n'])
def test_an_output_folder_whose_description_has_no_content_is_not_taken(
    dataset, tmp_path, capsys, content
):
    description = tmp_path / 'out' / 'dataset_description.json'
    description.parent.mkdir()
    if content is None:
        description.symlink_to('.git/annex/objects/x')
    else:
        description.write_text(content)
    assert run(dataset, tmp_path / 'out', 'participant', '--dry-run') == 73
    assert '"datalad get dataset_description.json"' in capsys.readouterr().err
    assert description.is_symlink() == (content is None)


@pytest.mark.parametrize(
    ('words', 'gigabytes'),
    [
        (['--mem', '8000'], 8.0),
        (['--mem-mb', '500'], 0.5),
        (['--mem-gb', '8'], 8.0),
        (['--mem', '16G'], 16.0),
        (['--mem_gb', '512M'], 0.512),
    ],
)
def test_memory_follows_its_alias(words, gigabytes):
    assert build_parser().parse_args(['a', 'b', 'group', *words]).mem == pytest.approx(gigabytes)


def test_options_of_an_adaptation_become_settings(dataset, tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    words = ['group', '--labels', tmp_path / 'a', tmp_path / 'b', '--label', 'mysite', '--folds']
    words += ['slices', '--steps', '7', '--max-time', '90', '--holdout-label', 'sub-01']
    words += ['--empty-labels', 'negative', '--accept', 'always', '--no-resegment']
    words += ['--model', 'm', '--device', 'cpu', '--random-seed', '3', '--strategy', 'bcp']
    arguments = options.parse([str(w) for w in (dataset, tmp_path / 'out', *words)])
    made = options.settings_for('group', arguments)
    assert made.labels == (tmp_path / 'a', tmp_path / 'b')
    assert (made.label, made.folds, made.steps, made.max_minutes) == ('mysite', 'slices', 7, 90)
    assert (made.holdout, made.empty_labels, made.accept) == (('01',), 'negative', 'always')
    assert (made.resegment, made.model, made.device) == (False, 'm', 'cpu')
    assert (made.random_seed, made.strategy) == (3, 'bcp')


def test_a_former_adaptation_can_be_run_again_from_its_file(dataset, tmp_path):
    import tomli_w

    (tmp_path / 'labels').mkdir()
    words = [dataset, tmp_path / 'out', 'group', '--labels', tmp_path / 'labels', '--folds', '3']
    former = options.options_record(options.parse([str(w) for w in words]))
    (tmp_path / 'former.toml').write_text(tomli_w.dumps({'options': former}))
    again = [dataset, tmp_path / 'out', 'group', '--config-file', tmp_path / 'former.toml']
    made = options.settings_for('group', options.parse([str(w) for w in again]))
    assert (made.labels, made.folds) == ((tmp_path / 'labels',), 3)


def test_a_record_means_the_same_in_every_folder(dataset, tmp_path, monkeypatch):
    import tomli_w

    (tmp_path / 'masks').mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'people.txt').write_text('01\n')
    shutil.copytree(BUNDLED / 'fast-3t', tmp_path / 'mine')
    words = [str(dataset), 'out', 'participant', '--brain-mask', 'masks', '-w', 'work']
    words += ['--participant-label', 'people.txt', '--model', 'mine']
    former = options.options_record(options.parse(words))
    (tmp_path / 'former.toml').write_text(tomli_w.dumps({'options': former}))
    monkeypatch.chdir('/')
    again = [str(dataset), str(tmp_path / 'out'), 'participant']
    made = options.settings_for(
        'participant', options.parse([*again, '--config-file', str(tmp_path / 'former.toml')])
    )
    assert (made.brain_mask, made.work_dir) == (tmp_path / 'masks', tmp_path / 'work')
    assert (made.participants, made.model) == (('01',), str(tmp_path / 'mine'))


@pytest.mark.parametrize('option', ['participant', 'exclude-participant', 'session', 'holdout'])
def test_a_record_has_a_label_and_no_file_of_its_name(make_dataset, tmp_path, monkeypatch, option):
    data = make_dataset(['sub-01/ses-01/anat/sub-01_ses-01_FLAIR.nii.gz'])
    monkeypatch.chdir(tmp_path)
    (tmp_path / '01').write_text('02\n')
    level = 'group' if option == 'holdout' else 'participant'
    words = [str(data), 'out', level, f'--{option}-label']
    name = f'{option.replace("-", "_")}_label'
    assert options.options_record(options.parse([*words, '01']))[name] == ['01']
    (tmp_path / 'list').write_text('01\n')
    record = options.options_record(options.parse([*words, 'list']))
    assert record[name] == [str(tmp_path / 'list')]


def test_options_that_take_several_words_can_be_repeated(dataset, tmp_path):
    words = [str(dataset), str(tmp_path / 'out'), 'participant']
    for option in ('--contrasts', '--require'):
        given = options.parse([*words, option, 't1w', option, 'flair'])
        assert getattr(given, option[2:]) == ['t1w', 'flair']


def test_sessions_of_the_dataset_are_taken_as_they_are(make_dataset, tmp_path, monkeypatch):
    names = ('2020-01-01', 'pre')
    dataset = make_dataset([f'sub-01/ses-{s}/anat/sub-01_ses-{s}_FLAIR.nii.gz' for s in names])
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'pre').write_text('another')
    for name in names:
        words = [dataset, tmp_path / 'out', 'participant', '--session-label', name]
        made = options.settings_for('participant', options.parse([str(w) for w in words]))
        assert made.sessions == (name,)


def test_labels_from_a_file(dataset, tmp_path, capsys):
    listed = tmp_path / 'people.txt'
    listed.write_text('sub-01\n')
    assert (
        run(dataset, tmp_path / 'out', 'participant', '--dry-run', '--participant-label', listed)
        == 0
    )
    assert 'sub-02' not in capsys.readouterr().out


@pytest.mark.parametrize('word', ['sub-01/', '01/', 'sub-01'])
def test_a_slash_that_the_shell_has_completed_is_no_part_of_a_label(
    dataset, tmp_path, capsys, word
):
    (tmp_path / 'people.txt').write_text(f'{word}\n')
    for given in (word, tmp_path / 'people.txt'):
        words = (dataset, tmp_path / 'out', 'participant', '--dry-run', '--participant-label')
        assert run(*words, given) == 0
        shown = capsys.readouterr().out
        assert 'sub-01' in shown
        assert 'sub-02' not in shown
    made = options.settings_for(
        'group',
        options.parse(
            [str(w) for w in (dataset, tmp_path / 'out', 'group', '--holdout-label', word,
                              '--exclude-participant-label', 'sub-02/')]
        ),
    )  # fmt: skip
    assert (made.holdout, made.excluded) == (('01',), ('02',))


@pytest.mark.parametrize(
    ('option', 'code'),
    [
        ('--bids-filter-file', 66),
        ('--use-plugin', 66),
        ('--participant-label', 66),
        ('--exclude-participant-label', 66),
        ('--session-label', 66),
        ('--model', 69),
    ],
)
def test_a_file_of_an_option_that_may_not_be_read(
    dataset, tmp_path, capsys, monkeypatch, option, code
):
    path = Path(shutil.copytree(BUNDLED / 'fast-3t', tmp_path / 'model')) / 'model.json'
    read = Path.read_bytes

    def refuse(self):  # the tests may run as root
        if self == path:
            raise PermissionError(errno.EACCES, 'Permission denied', str(self))
        return read(self)

    monkeypatch.setattr(Path, 'read_bytes', refuse)
    given = path.parent if option == '--model' else path
    assert run(dataset, tmp_path / 'out', 'participant', '--dry-run', option, given) == code
    text = capsys.readouterr().err
    assert f'{path}: ' in text
    assert 'cannot be read' in text
    assert 'Check the permissions' in text


def test_a_file_named_as_a_participant_is_not_read(dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / '01').touch()  # as "--participant-label 01 >01" makes it
    assert (
        run(dataset, tmp_path / 'out', 'participant', '--dry-run', '--participant-label=01') == 0
    )
    assert 'sub-02' not in capsys.readouterr().out


def test_labels_that_bids_does_not_permit_can_be_named(dataset, tmp_path, capsys):
    (dataset / 'sub-02').rename(dataset / 'sub-A_B')
    words = (dataset, tmp_path / 'out', 'participant', '--dry-run', '--participant-label')
    assert run(*words, 'A_B', '01') == 0
    assert 'sub-A_B' in capsys.readouterr().out
    assert run(*words, 'A_C') == 64
    (tmp_path / 'people.txt').write_text('sub-A_B 01\n')
    assert run(*words, tmp_path / 'people.txt') == 0


def test_filters_of_labels_reach_the_adaptation(dataset, tmp_path):
    filters = {'labels': {'desc': 'rater2'}}
    (tmp_path / 'filter.json').write_text(json.dumps(filters))
    words = [dataset, tmp_path / 'out', 'group', '--bids-filter-file', tmp_path / 'filter.json']
    settings = options.settings_for('group', options.parse([str(w) for w in words]))
    assert settings.filters == filters
    assert asked_for(settings)
    plain = options.settings_for('group', options.parse([str(w) for w in words[:3]]))
    assert not asked_for(plain)


def test_configuration_of_a_former_run_stands_below_the_command_line(dataset, tmp_path):
    from ssl2_bids.cli import options

    config = tmp_path / 'run.toml'
    config.write_text('[options]\nthreshold = 0.3\ntta = true\nbids_dir = "/elsewhere"\n')
    words = [str(dataset), str(tmp_path / 'out'), 'participant', '--config-file', str(config)]
    settings = options.settings_for('participant', options.parse([*words, '--threshold', '0.4']))
    assert (settings.threshold, settings.tta) == (0.4, True)
    assert settings.bids_dir == dataset


def test_every_option_has_help():
    for action in build_parser()._actions:
        assert action.help, action.option_strings


def test_defaults_are_those_of_the_settings():
    given = vars(build_parser().parse_args(['data', 'out', 'participant']))
    own = {'bids_dir', 'output_dir', 'analysis_level'}
    assert {k: v for k, v in given.items() if k not in own and v} == {}


def test_the_help_names_every_exit_code():
    text = build_parser().format_help().partition('exit codes:')[2]
    named = {int(number) for number in re.findall(r'\b\d+\b', text)}
    kinds = [Ssl2Error, *Ssl2Error.__subclasses__()]
    signals = {128 + number for number in ENDING}
    assert named == {SUCCESS, SOME_FAILED, *(kind.exit_code for kind in kinds), *signals}


@pytest.mark.parametrize('fault', ['missing', 'damaged'])
@pytest.mark.parametrize('more', [[], ['--dry-run']], ids=['run', 'dry run'])
def test_weights_are_checked_before_any_image(dataset, tmp_path, capsys, fault, more):
    model = Path(shutil.copytree(BUNDLED / 'fast-3t', tmp_path / 'model'))
    weights = model / 'weights.safetensors'
    content = bytearray(weights.read_bytes())
    weights.unlink()
    if fault == 'damaged':
        content[-1] ^= 1
        weights.write_bytes(content)
    assert run(dataset, tmp_path / 'out', 'participant', '--model', model, *more) == 69
    shown = capsys.readouterr().err
    assert f'{weights}: ' in shown
    assert ('SHA-256' if fault == 'damaged' else 'cannot be read') in shown
    assert not list((tmp_path / 'out').rglob('*.nii.gz'))


def test_a_model_that_marks_nothing_is_refused_in_a_dry_run(dataset, tmp_path, capsys):
    model = Path(shutil.copytree(BUNDLED / 'fast-3t', tmp_path / 'model'))
    card = json.loads((model / 'model.json').read_text())
    (model / 'model.json').write_text(json.dumps(card | {'Output': 'image'}))
    words = [dataset, tmp_path / 'out', 'participant', '--model', model]
    assert run(*words, '--dry-run') == run(*words) == 69
    assert 'not to mark lesions' in capsys.readouterr().err


def test_a_signal_that_nohup_ignores_stays_ignored(dataset, tmp_path):
    former = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(dataset, tmp_path / 'out', 'participant', '--dry-run') == SUCCESS
        heard = {number: signal.getsignal(number) for number in ENDING}
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    assert heard.pop(signal.SIGHUP) == signal.SIG_IGN
    assert all(map(callable, heard.values()))


def test_a_fault_of_ours_is_called_one(dataset, tmp_path, capsys, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError('nobody thought of this')

    monkeypatch.setattr('ssl2_bids.cli.options.settings_for', broken)
    assert run(dataset, tmp_path / 'out', 'participant') == 70
    shown = capsys.readouterr().err
    assert 'ZeroDivisionError: nobody thought of this' in shown
    assert '--debug' in shown
    assert 'Traceback' not in shown
    assert run(dataset, tmp_path / 'out', 'participant', '--debug') == 70
    assert 'Traceback' in capsys.readouterr().err
    words = (tmp_path / 'none', tmp_path / 'out', 'participant')
    assert run(*words, '--debug') == run(*words) != 1


WRONG_VALUES = [
    ('threshold = 7', 'not between 0 and 1'),
    ('threshold = true', 'not a number'),
    ('skull_strip = "banana"', 'force'),
    ('min_lesion_volume = -1', 'not a finite number from 0 on'),
    ('contrasts = ["t1w", "t3w"]', 'flair'),
    ('contrasts = "t3w"', 'flair'),
    ('nprocs = 0', 'above 0'),
    ('random_seed = 1.5', 'whole number'),
    ('device = "gpu"', 'cuda:N'),
    ('mem = "much"', 'amount of memory'),
    ('tta = "yes"', 'true or false'),
    ('verbose = true', 'whole number'),
    ('reference = ["t1w"]', 'one value'),
    ('threshold = {a = 1}', 'one value'),
    ('folds = "five"', 'slices'),  # of the other level, and wrong all the same
    ('thresold = 0.5', 'unknown option "thresold"'),
    ('bids_dir = "x"\n[more]', None),
]


@pytest.mark.parametrize(('line', 'allowed'), WRONG_VALUES)
def test_values_of_a_settings_file_are_checked_as_those_of_the_command_line(
    dataset, tmp_path, capsys, line, allowed
):
    config = tmp_path / 'run.toml'
    config.write_text(f'[options]\n{line}\n')
    words = (dataset, tmp_path / 'out', 'participant', '--dry-run', '--config-file', config)
    code = run(*words)
    shown = capsys.readouterr().err
    if allowed is None:
        assert code == 0
        return
    assert code == 64
    assert str(config) in shown
    assert line.split(' = ')[0] in shown
    assert allowed in shown


def test_every_option_of_a_run_is_read_back_as_it_was(dataset, tmp_path):
    import tomli_w

    words = [dataset, tmp_path / 'out', 'participant', '--threshold', '0.4', '--mem', '9000']
    words += ['--contrasts', 'flair', 't1w', '--participant-label', '01', '-vv', '--tta']
    words += ['--output-spaces', 'FLAIR', '--field-strength', '7', '-w', tmp_path / 'work']
    first = options.parse([str(w) for w in words])
    (tmp_path / 'former.toml').write_text(
        tomli_w.dumps({'options': options.options_record(first)})
    )
    again = [*words[:3], '--config-file', tmp_path / 'former.toml']
    second = options.parse([str(w) for w in again])
    assert second.notes == []
    assert options.settings_for('participant', second) == options.settings_for(
        'participant', first
    )


@pytest.mark.parametrize(
    ('line', 'words', 'fault'),
    [
        ('threshold = 0.3', ['participant', '--calibrate-from', '{data}'], '--threshold'),
        ('steps = 20', ['group', '--rung', 'recalibrated'], '--steps'),
    ],
)
def test_what_excludes_an_option_does_so_from_a_file_too(
    dataset, tmp_path, capsys, line, words, fault
):
    config = tmp_path / 'run.toml'
    config.write_text(f'[options]\n{line}\n')
    words = [dataset, tmp_path / 'out', *(w.format(data=dataset) for w in words)]
    assert run(*words, '--config-file', config) == 64
    shown = capsys.readouterr().err
    assert f'{fault} does not apply' in shown
    assert 'in the configuration file' in shown


def test_a_path_that_no_file_can_have_is_named(dataset, tmp_path, capsys):
    for one, other in (('a', 'b'), ('b', 'a')):
        (tmp_path / one).symlink_to(tmp_path / other)
    long = 'x' * 300
    for words, part in (
        ((dataset, tmp_path / long, 'participant'), 'File name too long'),
        ((tmp_path / long, tmp_path / 'out', 'participant'), 'File name too long'),
        ((dataset, tmp_path / 'a', 'participant'), 'symbolic links'),
        ((dataset, tmp_path / 'out', 'participant', '-w', tmp_path / 'a' / 'w'), 'symbolic links'),
    ):
        assert run(*words) == 64
        assert part in capsys.readouterr().err
    assert run(dataset, tmp_path / 'out', 'participant', '--model', long) == 69
    assert f"no model '{long}'" in capsys.readouterr().err
    # unprinted: pytest's processes cannot hand half of a surrogate pair to one another
    with pytest.raises(UsageError, match='not in UTF-8'):
        values.absolute(tmp_path / 'd\udce9')


def test_more_cores_or_memory_than_the_job_has_are_taken_with_a_note(dataset, tmp_path, capsys):
    words = [dataset, tmp_path / 'out', 'participant', '--dry-run', '-w', tmp_path / 'work']
    assert run(*words, '--nprocs', '1', '--mem', '1000') == 0
    assert 'than this job has' not in capsys.readouterr().out
    assert run(*words, '--nprocs', '9999', '--mem', '9000G') == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if 'than this job has' in x]
    assert [x.split(' is more than this job has: ')[0] for x in lines] == [
        '--nprocs 9999',
        '--mem 9000',
    ]
    assert run(*words, '--nprocs', '2', '--omp-nthreads', '64') == 0
    assert '--omp-nthreads 64 is more than the 2 cores' in capsys.readouterr().out


def test_options_of_the_other_level_in_a_settings_file_are_named(dataset, tmp_path, capsys):
    config = tmp_path / 'run.toml'
    config.write_text('[options]\nfolds = 3\naccept = "auto"\nlabel = "x"\nthreshold = 0.4\n')
    words = (dataset, tmp_path / 'out', 'participant', '--dry-run', '--config-file', config)
    assert run(*words) == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if str(config) in x]
    assert lines == [f'{config}: without effect at participant level and ignored: folds, label']


def test_a_plugin_that_nipype_lacks(dataset, tmp_path, capsys):
    (tmp_path / 'plugin.yml').write_text('plugin: Nope\n')
    words = (dataset, tmp_path / 'out', 'participant', '-w', tmp_path / 'work')
    assert run(*words, '--use-plugin', tmp_path / 'plugin.yml') == 69
    assert 'no plugin "Nope"' in capsys.readouterr().err


def test_why_a_whole_run_ended_is_shown(dataset, tmp_path, capsys, monkeypatch):
    """A cluster's plugin on a machine without its commands: no node ever runs."""
    monkeypatch.setenv('PATH', str(tmp_path))
    (tmp_path / 'plugin.yml').write_text('plugin: SLURM\n')
    words = (dataset, tmp_path / 'out', 'participant', '-w', tmp_path / 'work')
    more = ('--contrasts', 'flair', '--participant-label', '01', '--device', 'cpu')
    assert run(*words, *more, '--use-plugin', tmp_path / 'plugin.yml') == 1
    shown = capsys.readouterr().err
    assert 'No command "sbatch" found' in shown
    assert 'stopped' not in shown
    page = (tmp_path / 'out' / 'sub-01.html').read_text()
    assert 'sbatch' in page


def test_a_closed_pipe_for_our_lines_is_no_fault(make_dataset, tmp_path):
    root = make_dataset([f'sub-{n:03d}/anat/sub-{n:03d}_T1w.nii.gz' for n in range(150)])
    line = shlex.join([sys.executable, str(RUN), str(root), str(tmp_path / 'out'), 'participant'])
    done = subprocess.run(
        ['bash', '-c', f'{line} --dry-run | head -2; exit ${{PIPESTATUS[0]}}'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGPIPE
    assert 'internal error' not in done.stderr


def test_the_log_of_a_refused_run_has_the_reason(dataset, tmp_path, capsys):
    words = [str(dataset), str(tmp_path / 'out'), 'group', '-w', str(tmp_path / 'work')]
    assert main(words) == 66
    (log,) = (tmp_path / 'out' / 'logs').glob('*.log')
    last = log.read_text().splitlines()[-1]
    assert last.endswith('(exit code 66)')
    assert 'no results of the participant level' in last


def test_the_table_of_resources_has_a_row_for_each_stage(tmp_path):
    settings = ParticipantSettings(
        tmp_path, tmp_path / 'out', tmp_path / 'work', resource_monitor=True
    )
    stage = {
        'Node': 'brain',
        'Seconds': 1.5,
        'CpuSeconds': 2.5,
        'PeakMemoryMB': 300,
        'GpuMemoryMB': 0,
    }
    with Terminal(settings) as terminal:
        terminal.conclude(0, [Outcome('sub-01', 'done', resources=[stage])])
    (table,) = (tmp_path / 'out/logs').glob('*_resources.tsv')
    assert table.read_text().splitlines() == [
        'session\tstage\tseconds\tcpu_seconds\tpeak_memory_MB\tgpu_memory_MB',
        'sub-01\tbrain\t1.5\t2.5\t300\t0',
    ]


def test_datasets_are_named_by_their_word_or_their_folder(tmp_path):
    words = ['fmriprep=/a/25.2', '/b/smriprep/', str(tmp_path / 'odd=name')]
    with pytest.raises(UsageError, match='"odd=name" is not a name'):
        values.datasets(words)
    assert values.datasets(words[:2]) == {
        'fmriprep': Path('/a/25.2'),
        'smriprep': Path('/b/smriprep'),
    }


def test_the_folder_of_a_legacy_layout_is_named(dataset, tmp_path):
    (tmp_path / 'outputs/fmriprep/sub-01/anat').mkdir(parents=True)
    with pytest.raises(NoInputError, match='has no sub') as caught:
        check_datasets({'x': tmp_path / 'outputs'}, dataset, tmp_path / 'out')
    assert caught.value.advice == f'Give {tmp_path / "outputs/fmriprep"}.'


def test_labels_of_datasets_are_folders_of_labels_at_group_level(dataset, tmp_path):
    drawn = tmp_path / 'drawn'
    (drawn / 'sub-01/anat').mkdir(parents=True)
    (drawn / 'sub-01/anat/sub-01_label-L_mask.nii.gz').touch()
    plain = tmp_path / 'plain'
    (plain / 'sub-01/anat').mkdir(parents=True)
    words = ['-d', f'labels={drawn}', f'more={drawn}', f'fmriprep={plain}']
    arguments = options.parse([str(dataset), str(tmp_path / 'out'), 'group', *words])
    settings = options.settings_for('group', arguments)
    assert settings.labels == (drawn,)  # else its masks would count as those of two raters
    assert settings.derivatives == {'more': drawn, 'fmriprep': plain}
    (tmp_path / 'link').symlink_to(drawn)
    given = ['--labels', str(tmp_path / 'link'), str(drawn / '.'), '-d', f'man={drawn}']
    arguments = options.parse([str(dataset), str(tmp_path / 'out'), 'group', *given])
    assert options.settings_for('group', arguments).labels == (tmp_path / 'link',)
    given = ['--calibrate-from', str(drawn), str(tmp_path / 'link')]
    arguments = options.parse([str(dataset), str(tmp_path / 'out'), 'participant', *given])
    assert options.settings_for('participant', arguments).calibrate_from == (drawn,)
    arguments = options.parse([str(dataset), str(tmp_path / 'out'), 'group', *words[:2],
                               '--strategy', 'none'])  # fmt: skip
    with pytest.raises(UsageError, match='does not apply with --strategy none'):
        options.settings_for('group', arguments)


def test_the_shown_command_names_the_folders_of_datasets(dataset, tmp_path):
    folder = tmp_path / 'fmriprep'
    (folder / 'sub-01').mkdir(parents=True)
    for word in (f'fmriprep={folder}', str(folder)):
        argv = [str(dataset), str(tmp_path / 'out'), 'participant', '-d', word]
        settings = options.settings_for('participant', options.parse(argv))
        shown = options.shown_command(argv, settings)
        assert shown == 'ssl2-bids <BIDS_DIR> <OUTPUT_DIR> participant -d fmriprep=<fmriprep>'


@pytest.mark.parametrize(
    ('labels', 'left'),
    [((), []), (('01',), ['sub_010', 'sub_02', 'sub_02_ses_1']), (('02', '010'), ['sub_01'])],
)
def test_clean_workdir_spares_participants_of_other_jobs(tmp_path, labels, left):
    from ssl2_bids.cli.work_folder import clean
    from ssl2_bids.settings import ParticipantSettings

    for name in ('sub_01', 'sub_010', 'sub_02', 'sub_02_ses_1'):
        (tmp_path / 'work' / 'participant' / name / 'prepare_T1w').mkdir(parents=True)
    (tmp_path / 'work' / LOCK).touch()
    clean(ParticipantSettings(tmp_path, tmp_path, tmp_path / 'work', participants=labels or None))
    assert sorted(p.name for p in (tmp_path / 'work').glob('participant/*')) == left


def test_clean_workdir_finds_the_folders_of_any_label(tmp_path):
    from ssl2_bids.bids.dataset import branch_name
    from ssl2_bids.cli.work_folder import clean
    from ssl2_bids.settings import ParticipantSettings

    labels = ('pat-01', 'pat.02', '1+2')
    for label in (*labels, 'other'):
        folder = branch_name(f'sub-{label}_ses-1')
        (tmp_path / 'work' / 'participant' / folder).mkdir(parents=True)
    (tmp_path / 'work' / LOCK).touch()
    clean(ParticipantSettings(tmp_path, tmp_path, tmp_path / 'work', participants=labels))
    left = [p.name for p in (tmp_path / 'work').glob('participant/*')]
    assert left == ['sub_other_ses_1']


def test_clean_workdir_spares_a_folder_where_no_run_has_worked(tmp_path):
    from ssl2_bids.cli.work_folder import clean

    mine = [tmp_path / 'work' / name / 'notes.txt' for name in ('participant', 'crash', 'sub_01')]
    for path in mine:
        path.parent.mkdir(parents=True)
        path.write_text('of the user')
    settings = ParticipantSettings(tmp_path, tmp_path, tmp_path / 'work')
    clean(settings)
    (tmp_path / 'work' / LOCK).touch()
    (tmp_path / 'work' / 'participant' / 'sub_01').mkdir()
    clean(settings)
    assert all(path.is_file() for path in mine)
    assert not (tmp_path / 'work' / 'participant' / 'sub_01').exists()


@pytest.mark.parametrize(
    ('text', 'code', 'part'),
    [
        ('plugin: SLURM\nplugin_args: 3\n', 64, 'plugin_args'),
        ('plugin: MultiProc\nplugin_args: {n_procs: 0}\n', 64, 'n_procs'),
        ('plugin: SLURM\nplugin_args: {template: /nope/x.sh}\n', 66, '/nope/x.sh'),
        ('plugin: 2024-13-45\n', 64, 'not readable YAML'),
        ('plugin: SLURM\nx: 0x_\n', 64, 'not readable YAML'),
        ('plugin: ' + '[' * 3000 + '\n', 64, 'not readable YAML'),
    ],
)
def test_faults_of_a_plugin_file_are_named(dataset, tmp_path, capsys, text, code, part):
    (tmp_path / 'plugin.yml').write_text(text)
    words = (dataset, tmp_path / 'out', 'participant', '--use-plugin', tmp_path / 'plugin.yml')
    assert run(*words) == code
    assert part in capsys.readouterr().err


@pytest.mark.parametrize(('level', 'name'), [('participant', 'logs'), ('group', 'logs')])
def test_a_file_in_the_way_of_a_folder(dataset, tmp_path, capsys, level, name):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / name).write_text('mine')
    assert run(dataset, tmp_path / 'out', level, '-w', tmp_path / 'work') == 73
    assert 'Move away' in capsys.readouterr().err
    assert (tmp_path / 'out' / name).read_text() == 'mine'


@pytest.mark.parametrize('there', [True, False])
def test_the_lock_file_of_another_user_needs_no_touch(
    dataset, tmp_path, capsys, monkeypatch, there
):
    touch, lock = Path.touch, tmp_path / 'work' / LOCK

    def refuse(self, *arguments, **options):  # the tests may run as root
        if self == lock:
            raise PermissionError(errno.EACCES, 'Permission denied', str(self))
        touch(self, *arguments, **options)

    lock.parent.mkdir()
    if there:
        lock.touch()
    monkeypatch.setattr(Path, 'touch', refuse)
    words = (dataset, tmp_path / 'out', 'participant', '-w', lock.parent, '--boilerplate-only')
    assert run(*words) == (0 if there else 73)
    text = f'{lock}: cannot be written (Permission denied)'
    assert (text in capsys.readouterr().err) != there
