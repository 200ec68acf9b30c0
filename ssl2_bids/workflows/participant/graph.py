"""The participant workflow as a nipype graph: one branch for each session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ssl2_bids.bids.dataset import branch_name
from ssl2_bids.bids.given_datasets import program_of
from ssl2_bids.bids.scan import Scan
from ssl2_bids.bids.template_spaces import Template
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant import brain_nodes, nodes, sloppy
from ssl2_bids.workflows.participant.distortion import distorted_contrasts, measure_distortion
from ssl2_bids.workflows.participant.engine.task import make_node
from ssl2_bids.workflows.participant.finish import finish
from ssl2_bids.workflows.participant.make_plan import map_settings
from ssl2_bids.workflows.participant.plan import (
    Plan,
    field_strength,
    imaging_frequency,
    is_stripped,
    needs_correction,
)
from ssl2_bids.workflows.participant.quality import measure_quality
from ssl2_bids.workflows.participant.templates import by_template

from nipype import Merge, Node, Workflow  # isort: skip  after task.py has settled nipype's ways

NAME = 'participant'
LAST = 'finish'  # the stage that writes the results of a session
LIBRARIES = 0.5  # GB of a worker
# bytes for each voxel at the peak, measured at 25 and 64 million voxels; N4 30, registration 38
OF_STAGE = 40
OF_IMAGE, OF_ECHO, OF_MP2RAGE, OF_TRANSMIT = 16, 33, 40, 90


def build_workflow(
    plans: list[Plan], settings: ParticipantSettings, *, device: str, command: str
) -> Workflow:
    """One workflow for all sessions; a failure in one branch does not touch the others."""
    workflow = Workflow(NAME, base_dir=str(settings.work_dir))
    for plan in plans:
        _add_session(workflow, plan, device, command)
    return workflow


def branch_folder(plan: Plan, work_dir: Path) -> Path:
    """Where the nodes of a session keep their files."""
    return work_dir / NAME / branch_name(plan.session.name)


def _add_session(workflow: Workflow, plan: Plan, device: str, command: str) -> None:
    branch = Workflow(branch_name(plan.session.name))
    reference = plan.session.reference
    contrasts = [reference, *(c for c in plan.session.scans if c != reference)]
    prepared = {c: _prepare(plan, c) for c in contrasts}
    brains = {c: _find_brain(plan, c) for c in contrasts}
    corrected = {c: _correct(plan, c) for c in contrasts}
    for c in contrasts:
        branch.connect(prepared[c], 'image', brains[c], 'image')
        branch.connect(prepared[c], 'brain_source', brains[c], 'source')
        branch.connect(prepared[c], 'image', corrected[c], 'image')
        branch.connect(brains[c], 'mask', corrected[c], 'mask')
    registered = {c: _register(plan, c) for c in contrasts[1:]}
    for c, node in registered.items():
        branch.connect(corrected[reference], 'image', node, 'fixed')
        branch.connect(brains[reference], 'mask', node, 'fixed_mask')
        branch.connect(corrected[c], 'image', node, 'moving')
        branch.connect(brains[c], 'mask', node, 'moving_mask')
    matrices = [(node, 'matrix') for node in registered.values()]
    expected = _expect_brain(plan)
    branch.connect(corrected[reference], 'image', expected, 'image')
    branch.connect(brains[reference], 'mask', expected, 'mask')
    joint = _join_brains(plan, contrasts)
    branch.connect(corrected[reference], 'image', joint, 'image')
    branch.connect(expected, 'expected', joint, 'expected')
    _gather(branch, joint, 'masks', [(brains[c], 'mask') for c in contrasts])
    _gather(branch, joint, 'matrices', matrices)
    template = _find_template(plan)
    branch.connect(corrected[reference], 'image', template, 'image')
    branch.connect(joint, 'mask', template, 'mask')
    branch.connect(joint, 'template_start', template, 'start')
    distorted = {c: _measure_distortion(plan, c) for c in distorted_contrasts(plan)}
    for c, node in distorted.items():
        branch.connect(corrected[reference], 'image', node, 'fixed')
        branch.connect(registered[c], 'resampled', node, 'resampled')
        branch.connect(joint, 'mask', node, 'brain_mask')
    measured = {c: _measure_quality(plan, c, is_distorted=c in distorted) for c in contrasts}
    for c, node in measured.items():
        branch.connect(prepared[c], 'image', node, 'acquired')
        branch.connect(prepared[c], 'maps', node, 'maps')
        branch.connect(corrected[c], 'image', node, 'corrected')
        branch.connect(brains[c], 'facts', node, 'brain_facts')
        branch.connect(joint, 'mask', node, 'brain_mask')
        branch.connect(joint, 'facts', node, 'joint_facts')
        branch.connect(template, 'matrix', node, 'template_matrix')
        branch.connect(template, 'facts', node, 'template_facts')
        if c in registered:
            branch.connect(registered[c], 'matrix', node, 'matrix')
            branch.connect(registered[c], 'facts', node, 'register_facts')
        if c in distorted:
            branch.connect(distorted[c], 'facts', node, 'distortion_facts')
    images = [(corrected[c], 'image') for c in contrasts]
    channels = [c for c in contrasts if plan.session.scans[c].channel]
    segment = _segment(plan, channels, device)
    _gather(branch, segment, 'images', [(corrected[c], 'image') for c in channels])
    _gather(branch, segment, 'matrices', [(registered[c], 'matrix') for c in channels[1:]])
    branch.connect(joint, 'mask', segment, 'mask')
    lesions = _find_lesions(plan)
    branch.connect(segment, 'probability', lesions, 'probability')
    branch.connect(template, 'matrix', lesions, 'matrix')
    branch.connect(corrected[reference], 'image', lesions, 'image')
    branch.connect(joint, 'mask', lesions, 'mask')
    templates = {
        label: _register_template(plan, t) for label, t in by_template(plan.templates).items()
    }
    for label, node in templates.items():
        branch.connect(corrected[reference], 'image', node, 'image')
        branch.connect(joint, 'mask', node, 'mask')
        branch.connect(template, 'matrix', node, 'start')
        if label not in plan.transforms:
            branch.connect(lesions, 'instances', node, 'instances')
    last = _finish(plan, contrasts, list(templates), command)
    _gather(branch, last, 'deformations', [(n, 'deformation') for n in templates.values()])
    _gather(branch, last, 'warped', [(n, 'warped') for n in templates.values()])
    _gather(branch, last, 'prepared', [(prepared[c], 'image') for c in contrasts])
    _gather(branch, last, 'maps', [(prepared[c], 'maps') for c in contrasts])
    _gather(branch, last, 'corrected', images)
    _gather(branch, last, 'resampled', [(n, 'resampled') for n in registered.values()])
    _gather(branch, last, 'matrices', matrices)
    _gather(branch, last, 'distortions', [(n, 'distortion') for n in distorted.values()])
    sources = [prepared[c] for c in contrasts] + [brains[c] for c in contrasts]
    sources += [*registered.values(), joint, segment, template, lesions, *templates.values()]
    sources += [*distorted.values(), *measured.values()]
    _gather(branch, last, 'quality', [(node, 'quality') for node in measured.values()])
    _gather(branch, last, 'facts', [(node, 'facts') for node in sources])
    for node, output, name in (
        (joint, 'mask', 'brain_mask'),
        (segment, 'probability', 'probability'),
        (segment, 'uncertainty', 'uncertainty'),
        (lesions, 'instances', 'instances'),
        (lesions, 'table', 'table'),
        (template, 'matrix', 'template_matrix'),
    ):
        branch.connect(node, output, last, name)
    workflow.add_nodes([branch])


def _gather(branch: Workflow, target: Node, name: str, parts: list[tuple[Node, str]]) -> None:
    """Give ``target`` the list of the parts, in order, as its input ``name``."""
    if not parts:
        setattr(target.inputs, name, [])
        return
    node = Node(Merge(len(parts)), f'{target.name}_{name}', run_without_submitting=True)
    for number, (source, output) in enumerate(parts, start=1):
        branch.connect(source, output, node, f'in{number}')
    branch.connect(node, 'out', target, name)


def _memory(plan: Plan, *contrasts: str, least: float = 1.0) -> float:
    """GB that a stage on images of these contrasts needs at its peak."""
    voxels = max(plan.session.scans[contrast].voxels for contrast in contrasts)
    return max(least, LIBRARIES + OF_STAGE * voxels / 1e9)


def _memory_of_reading(scan: Scan) -> float:
    """GB that the images of a scan need until they are one."""
    bytes_each = OF_IMAGE if len(scan.paths) < 2 else OF_ECHO * len(scan.paths)
    if scan.has_inversions:
        needs_field = scan.is_computed or scan.maps.get('T1map') == 'B1corr'
        bytes_each = OF_TRANSMIT if needs_field else OF_MP2RAGE
    return max(1.0, LIBRARIES + bytes_each * scan.voxels / 1e9)


def _prepare(plan: Plan, contrast: str) -> Node:
    scan, sources = plan.session.scans[contrast], plan.sources[contrast]
    roles = ['image'] * len(scan.paths) + [companion.role for companion in scan.companions]
    lines = [
        f'{role} {digest} {name}' for role, (name, digest) in zip(roles, sources, strict=True)
    ]
    lines.append(json.dumps(map_settings(scan), sort_keys=True))
    return make_node(
        f'prepare_{contrast}',
        nodes.prepare,
        {'scan': scan, 'digests': [digest for _, digest in sources]}
        | sloppy.settings_of('prepare', plan.settings),
        outputs=['image', 'brain_source', 'maps', 'facts'],
        memory_gb=_memory_of_reading(scan),
        identity='\n'.join([contrast, *lines]),
        unhashed=('scan', 'digests'),
    )


def _find_brain(plan: Plan, contrast: str) -> Node:
    inputs = {
        'contrast': contrast,
        'mode': plan.settings.skull_strip,
        'stripped': is_stripped(plan, contrast),
        'threads': 1,
        'given': str(_given(plan, contrast) or ''),
        **sloppy.settings_of('find_brain', plan.settings),
    }
    return make_node(
        f'brain_{contrast}',
        brain_nodes.find_brain,
        inputs,
        outputs=['mask', 'facts'],
        memory_gb=_memory(plan, contrast, least=2.0),
        identity=plan.brain_mask_sha256 if inputs['given'] else '',
        unhashed=('given',),
    )


def _given(plan: Plan, contrast: str) -> Path | None:
    """The brain mask that was given on the grid of a contrast."""
    mask = plan.brain_mask
    return mask.path if mask and mask.contrast == contrast else None


def _correct(plan: Plan, contrast: str) -> Node:
    return make_node(
        f'inhomogeneity_{contrast}',
        nodes.correct_inhomogeneity,
        {
            'contrast': contrast,
            'field_strength': field_strength(plan, contrast),
            'corrected': plan.session.scans[contrast].corrected,
        }
        | sloppy.settings_of('correct_inhomogeneity', plan.settings),
        outputs=['image'],
        memory_gb=_memory(plan, contrast),
    )


def _register(plan: Plan, contrast: str) -> Node:
    return make_node(
        f'register_{contrast}',
        nodes.register,
        {'contrast': contrast, 'seed': plan.settings.random_seed}
        | sloppy.settings_of('register', plan.settings),
        outputs=['matrix', 'resampled', 'facts'],
        memory_gb=_memory(plan, plan.session.reference, contrast),
    )


def _expect_brain(plan: Plan) -> Node:
    inputs = {'contrast': plan.session.reference, 'seed': plan.settings.random_seed}
    return make_node(
        'expected_brain',
        brain_nodes.expect_brain,
        {**inputs, 'raw': _raw(plan, plan.session.reference)},
        outputs=['expected'],
        memory_gb=_memory(plan, plan.session.reference),
        unhashed=('raw',),
    )


def _raw(plan: Plan, contrast: str) -> str:
    """The file of an image, for errors."""
    return str(plan.session.scans[contrast].paths[0])


def _join_brains(plan: Plan, contrasts: list[str]) -> Node:
    inputs = {
        'contrasts': contrasts,
        'given': plan.brain_mask.contrast if plan.brain_mask else '',
    }
    outputs = ['mask', 'template_start', 'facts']
    memory = _memory(plan, *plan.session.scans)
    node = brain_nodes.join_brains
    return make_node('join_brains', node, inputs, outputs=outputs, memory_gb=memory)


def _measure_distortion(plan: Plan, contrast: str) -> Node:
    inputs = {'contrast': contrast, 'seed': plan.settings.random_seed}
    outputs = ['distortion', 'facts']
    memory = _memory(plan, plan.session.reference)
    name = f'distortion_{contrast}'
    return make_node(name, measure_distortion, inputs, outputs=outputs, memory_gb=memory)


def _measure_quality(plan: Plan, contrast: str, *, is_distorted: bool) -> Node:
    inputs = {
        'contrast': contrast,
        'field_strength': field_strength(plan, contrast),
        'frequency': imaging_frequency(plan, contrast),
        'is_corrected': needs_correction(plan, contrast),
    }
    if contrast == plan.session.reference:
        inputs |= {'matrix': '', 'register_facts': ''}
    if not is_distorted:
        inputs['distortion_facts'] = ''
    outputs = ['quality', 'facts']
    memory = _memory(plan, plan.session.reference, contrast)
    name = f'quality_{contrast}'
    return make_node(name, measure_quality, inputs, outputs=outputs, memory_gb=memory)


def _find_template(plan: Plan) -> Node:
    inputs = {'contrast': plan.session.reference, 'seed': plan.settings.random_seed}
    inputs |= sloppy.settings_of('find_template', plan.settings)
    memory = _memory(plan, plan.session.reference)
    outputs = ['matrix', 'facts']
    return make_node('template', nodes.find_template, inputs, outputs=outputs, memory_gb=memory)


def _register_template(plan: Plan, template: Template) -> Node:
    name = f'template_{template.space.label.replace("+", "_")}'
    outputs = ['deformation', 'warped', 'facts']
    memory = _memory(plan, plan.session.reference, least=2.0)
    identity = [str(template.space), template.digests]
    if given := plan.transforms.get(template.space.label):
        program = program_of(plan.settings.derivatives[given.dataset])
        return make_node(
            name,
            nodes.take_template_transform,
            {'template': template, 'given': given, 'program': program},
            outputs=outputs,
            identity=json.dumps([*identity, given.digests]),
            unhashed=('template', 'given'),
            memory_gb=memory,
        )
    inputs = {
        'contrast': plan.session.reference,
        'template': template,
        'seed': plan.settings.random_seed,
    }
    return make_node(
        name,
        nodes.register_template,
        inputs,
        outputs=outputs,
        identity=json.dumps(identity),
        unhashed=('template',),
        memory_gb=memory,
    )


def _segment(plan: Plan, contrasts: list[str], device: str) -> Node:
    settings, on_gpu = plan.settings, device != 'cpu'
    inputs: dict[str, Any] = {
        'contrasts': contrasts,
        'model': str(plan.card.folder),
        'device': device,
        'threads': settings.omp_nthreads,
        'overlap': settings.overlap,
        'tta': settings.tta,
        'uncertainty': settings.uncertainty,
        'low_memory': settings.low_mem,
        'raw': [_raw(plan, contrast) for contrast in contrasts],
        **sloppy.settings_of('segment', settings),
    }
    return make_node(
        'segment',
        nodes.segment,
        inputs,
        outputs=['probability', 'uncertainty', 'facts'],
        threads=1 if on_gpu else settings.omp_nthreads,
        memory_gb=_memory(plan, *contrasts, least=3.0),
        gpu=on_gpu,
        identity=json.dumps(plan.card.identity, sort_keys=True),
        unhashed=('raw',),
    )


def _find_lesions(plan: Plan) -> Node:
    inputs = {
        'threshold': plan.settings.threshold,
        'minimum_volume': plan.settings.min_lesion_volume,
    }
    outputs = ['instances', 'table', 'facts']
    memory = _memory(plan, plan.session.reference)
    return make_node('lesions', nodes.find_lesions, inputs, outputs=outputs, memory_gb=memory)


def _finish(plan: Plan, contrasts: list[str], templates: list[str], command: str) -> Node:
    inputs = {
        'plan': plan,
        'command': command,
        'contrasts': contrasts,
        'templates': templates,
    }
    memory = _memory(plan, *contrasts, least=2.0)
    return make_node(LAST, finish, inputs, outputs=['marker'], memory_gb=memory, always=True)
