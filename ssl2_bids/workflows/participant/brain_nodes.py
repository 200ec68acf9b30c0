"""The nodes of brain masks: of each contrast, and of the session."""

from __future__ import annotations

import numpy as np

from ssl2_bids.errors import about
from ssl2_bids.files import write_json
from ssl2_bids.steps import brain as brain_step
from ssl2_bids.steps import preprocess
from ssl2_bids.volume import read, reorient, thin, write
from ssl2_bids.workflows.participant.engine.task import read_json
from ssl2_bids.workflows.participant.node_files import here, write_facts


def find_brain(
    image: str,
    source: str,
    contrast: str,
    mode: str,
    stripped: bool | None,
    threads: int,
    given: str,
    working_voxel: float = 0.0,
) -> dict[str, str]:
    """The brain mask of one image; ``mode`` is auto, skip or force.

    Parameters
    ----------
    source : the image in which the brain is looked for instead; empty for none.
    given : the mask of the user on the same grid; empty for none.
    working_voxel : mm; what the image was thinned to, as the given mask is here.

    Raises
    ------
    DataError : there is no brain, or the given mask is empty.
    """
    volume = read(image, contrast=contrast)
    if given:
        with about(given):
            of_user = reorient(read(given))
            if working_voxel:
                of_user = thin(of_user, working_voxel)
            mask, brain_only, warnings = preprocess.given_mask(
                volume, of_user, mode=mode, stripped=stripped
            )
        write(mask, 'mask.nii', dtype=np.uint8)
        methods = [brain_step.GIVEN]
        facts = write_facts(
            'find_brain', warnings, methods, contrast=contrast, brain_only=brain_only
        )
        return {'mask': here('mask.nii'), 'facts': facts}
    mask, brain_only, doubts, in_source = preprocess.brain_mask(
        volume,
        mode=mode,
        stripped=stripped,
        source=read(source, contrast='INV2') if source else None,
        threads=threads,
    )
    write(mask, 'mask.nii', dtype=np.uint8)
    methods = brain_step.methods(brain_only, contrast, in_inv2=in_source)
    facts = write_facts(  # the doubts become flags of the image
        'find_brain', [], methods, contrast=contrast, brain_only=brain_only, doubts=doubts
    )
    return {'mask': here('mask.nii'), 'facts': facts}


def expect_brain(image: str, mask: str, contrast: str, seed: int, raw: str) -> dict[str, str]:
    """The template's brain in the reference, by its intensities, as JSON.

    ``raw`` is the file of the reference, which errors name.
    """
    from ssl2_bids.steps import expected_brain

    with about(raw):
        found = expected_brain.expect_brain(
            read(image, contrast=contrast), read(mask, dtype=np.uint8), seed=seed
        )
    content = {'matrix': found.matrix.tolist(), 'score': found.score, 'turned': found.turned}
    write_json('expected.json', content)
    return {'expected': here('expected.json')}


def join_brains(
    image: str,
    contrasts: list[str],
    masks: list[str],
    matrices: list[str],
    expected: str,
    given: str,
) -> dict[str, str]:
    """The brain mask of the session, from those of its contrasts, and the reasons to doubt it.

    ``masks`` are in the order of ``contrasts``, the reference first; ``matrices`` belong to the
    others; ``image`` is the reference; ``expected`` is of :func:`expect_brain`; the mask of the
    contrast ``given`` is the user's, and alone counts.
    """
    from ssl2_bids.steps import brain_check, brain_vote, expected_brain

    reference = read(image, contrast=contrasts[0])
    fit = read_json(expected)
    found = brain_vote.vote(
        reference,
        {c: read(path, dtype=np.uint8) for c, path in zip(contrasts, masks, strict=True)},
        {c: np.load(path) for c, path in zip(contrasts[1:], matrices, strict=True)},
        expected=expected_brain.expected_in(
            reference, np.array(fit['matrix']), fit['score'], fit['turned']
        ),
        given=given,
    )
    write(found.mask, 'mask.nii', dtype=np.uint8)
    warnings = [flag.text for flag in found.flags]
    if any(flag.code not in brain_check.OF_IMAGE for flag in found.flags):
        warnings.append(brain_check.ADVICE)
    voters = [given] if given else [c for c in contrasts if c not in found.without_vote]
    facts = write_facts(
        'join_brains',
        warnings,
        [brain_vote.methods(voters)],
        flags=[flag.as_json() for flag in found.flags],
        without_vote=found.without_vote,
        agreement=found.agreement,
        coverage=found.coverage,
        voters=voters,
    )
    if found.expected.is_reliable:
        np.save('template.npy', found.expected.matrix)
    start = here('template.npy') if found.expected.is_reliable else ''
    return {'mask': here('mask.nii'), 'template_start': start, 'facts': facts}
