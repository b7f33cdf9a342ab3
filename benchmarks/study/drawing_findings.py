"""Findings on drawing: guidance, candidates and their samplers, documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from study.drawn import Reference, drawn, right_things
from study.findings import Claim, Curves, Finding, differences
from study.subjects import Study, said

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
CANDIDATES = (1, 2, 4, 8, 16, 32)
DOCUMENTS = (0, 1, 2)
DISTANCE = "Frechet distance of CLIP features, x 1000"
THING = "right thing, share"


def guidance(study: Study, seed: int) -> Curves:
    """Draw with each scale, by two sizes."""
    reference = Reference.of(study)
    found: dict[str, dict[str, dict[str, float]]] = {"distance": {}, "clip": {}, "thing": {}}
    for size in ("large", "middle"):
        subject = study.subject(size, seed)
        rows: dict[str, dict[float, float]] = {name: {} for name in found}
        for scale in SCALES:
            made = drawn(study, subject, seed, guidance_scale=scale, what=f"{size} at {scale:g}")
            rows["distance"][scale] = reference.distance(made.vectors[:, 0])
            rows["clip"][scale] = float(100 * made.scores[:, 0].mean())
            rows["thing"][scale] = right_things(study, subject, made.pixels[:, 0])["thing_top1"]
        for name, values in rows.items():
            found[name][size] = said(values)
    return found


def guidance_claims(seeds: Sequence[Curves]) -> list[Claim]:
    """A scale above 1 is nearer to real pictures and to captions, for both sizes."""
    claims = []
    for size in ("large", "middle"):
        claims += [
            Claim(
                text=f"{size}: distance at scale 1 less that at 2",
                values=differences(seeds, "distance", (size, "2"), (size, "1"), -1),
            ),
            Claim(
                text=f"{size}: CLIP score at 3 less that at 1",
                values=differences(seeds, "clip", (size, "3"), (size, "1")),
            ),
        ]
    claims.append(
        Claim(
            text="large: distance at 6 less that at 2",
            values=differences(seeds, "distance", ("large", "6"), ("large", "2")),
        )
    )
    return claims


def candidates(study: Study, seed: int) -> Curves:
    """Draw 32 candidates by each sampler, and take the best of the first 1, 2, 4, ..."""
    subject, reference = study.subject("large", seed), Reference.of(study)
    rows = study.rows[: max(1, len(study.rows) // 2)]
    own = replace(subject.parts.habits.samplers[0], guidance_scale=2.0)
    kinds = {
        "temperature": replace(own, sampler="top-p", top_p=1.0),
        "top-p": replace(own, sampler="top-p", top_p=0.9),
        "CD-K": replace(own, sampler="cd-k"),
    }
    most = max(CANDIDATES)
    pools = {}
    for name, sampler in kinds.items():
        made = drawn(
            study, subject, seed, rows=rows, candidates=most, samplers=[sampler], what=name
        )
        pools[name] = made.scores, made.vectors
    half = [np.arange(most // 2)] * 2
    pools["half top-p, half CD-K"] = tuple(
        np.stack([pools["top-p"][i][:, half[0]], pools["CD-K"][i][:, half[1]]], 2).reshape(
            len(rows), most, *pools["top-p"][i].shape[2:]
        )
        for i in (0, 1)
    )
    found: dict[str, dict[str, dict[str, float]]] = {"distance": {}, "clip": {}}
    for name, (scores, vectors) in pools.items():
        best = {count: scores[:, :count].argmax(1) for count in CANDIDATES}
        place = np.arange(len(rows))
        found["distance"][name] = said(
            {count: reference.distance(vectors[place, mine]) for count, mine in best.items()}
        )
        found["clip"][name] = said(
            {count: float(100 * scores[place, mine].mean()) for count, mine in best.items()}
        )
    return found


def candidate_claims(seeds: Sequence[Curves]) -> list[Claim]:
    """Half of each keeps improving, and is better than either alone."""
    half = "half top-p, half CD-K"
    return [
        Claim(
            text="distance of half and half at 8 candidates less that at 32",
            values=differences(seeds, "distance", (half, "32"), (half, "8"), -1),
        ),
        *(
            Claim(
                text=f"distance of {other} less that of half and half, at 32 candidates",
                values=differences(seeds, "distance", (half, "32"), (other, "32"), -1),
            )
            for other in ("top-p", "CD-K")
        ),
    ]


def documents(study: Study, seed: int) -> Curves:
    """Draw with 0, 1 and 2 documents, by decoders trained with and without."""
    reference = Reference.of(study)
    found: dict[str, dict[str, dict[str, float]]] = {"distance": {}, "thing": {}}
    for name, variant in (("trained with", "large"), ("trained without", "without documents")):
        subject = study.subject(variant, seed)
        distance, thing = {}, {}
        for count in DOCUMENTS:
            made = drawn(study, subject, seed, documents=count, what=f"{name}, {count}")
            distance[count] = reference.distance(made.vectors[:, 0])
            thing[count] = right_things(study, subject, made.pixels[:, 0])["thing_top1"]
        found["distance"][name], found["thing"][name] = said(distance), said(thing)
    return found


def document_claims(seeds: Sequence[Curves]) -> list[Claim]:
    """Documents at inference pay where training had them."""
    return [
        Claim(
            text="trained with: distance without a document less that with one",
            values=differences(seeds, "distance", ("trained with", "1"), ("trained with", "0"), -1),
        ),
        Claim(
            text="trained with: right things with one document less without",
            values=differences(seeds, "thing", ("trained with", "1"), ("trained with", "0")),
        ),
        Claim(
            text="right things of trained with and one document, less trained without and none",
            values=differences(seeds, "thing", ("trained with", "1"), ("trained without", "0")),
        ),
    ]


FINDINGS = [
    Finding(
        number=1,
        title="Guidance scale",
        paper="FID falls and rises again over the guidance scale, CLIP score rises; the best scale "
        "is the same for all sizes, about 3 (figure 4, left).",
        here="Pictures of unseen combinations, one candidate, by two sizes.",
        axes={
            "distance": f"guidance scale | {DISTANCE}",
            "clip": "guidance scale | CLIP score",
            "thing": f"guidance scale | {THING}",
        },
        measure=guidance,
        claims=guidance_claims,
    ),
    Finding(
        number=2,
        title="Samplers and candidates",
        paper="Re-ranked by CLIP, candidates of top-p alone and of CD-K alone stagnate; half of "
        "each keeps improving up to 32 (figure 4, right).",
        here="1 to 32 candidates of unseen combinations at guidance scale 2, the best by CLIP.",
        axes={
            "distance": f"candidates | {DISTANCE}",
            "clip": "candidates | CLIP score of the best",
        },
        measure=candidates,
        claims=candidate_claims,
    ),
    Finding(
        number=3,
        title="Retrieved documents",
        paper="With retrieval in training, FID falls from 10.82 to 5.78 to 4.88 with 0, 1 and 2 "
        "retrieved documents (7B, table 1).",
        here="Decoders trained with and without documents for equal steps, one candidate.",
        axes={"distance": f"documents | {DISTANCE}", "thing": f"documents | {THING}"},
        measure=documents,
        claims=document_claims,
    ),
]
