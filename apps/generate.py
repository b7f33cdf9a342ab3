"""Draw, caption and redraw pictures with a trained run.

    python apps/generate.py --prompt "red apple" --candidates 8
    python apps/generate.py --caption picture.png
    python apps/generate.py --infill picture.png --mask 16,16,48,48 --prompt "a red hat"

Writes a PNG with all candidates, the one that CLIP likes best first. --infill without --prompt
describes the picture first. Guidance and CD-K are for --prompt alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from drawing import (  # noqa: E402
    documents,
    fitting,
    image_prompts,
    picture_block,
    pixels_of_codes,
    pixels_of_ids,
    retrieve,
)
from PIL.Image import Image  # noqa: E402
from pipeline import Run  # noqa: E402
from pretrain import open_run  # noqa: E402
from progress import bar  # noqa: E402
from report import sheet  # noqa: E402

from cm3_decoding import (  # noqa: E402
    CodeBlock,
    Forced,
    SamplingConfig,
    TextUntil,
    candidate_pool,
)
from cm3_imagetok import load_image, square, to_tensor  # noqa: E402
from cm3_retrieval import inference_context  # noqa: E402

CAPTION_LENGTH = 48
"""Most tokens of a caption."""


def command_line() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"), help="folder of a run")
    parser.add_argument("--prompt", help="caption of the picture to draw or redraw")
    parser.add_argument("--caption", type=Path, metavar="FILE", help="picture to describe")
    parser.add_argument("--infill", type=Path, metavar="FILE", help="picture to redraw a part of")
    parser.add_argument("--mask", metavar="x0,y0,x1,y1", help="part to redraw, pixels of FILE")
    parser.add_argument("--retrieve", type=int, choices=(0, 1, 2), help="documents to retrieve")
    parser.add_argument("--guidance-scale", type=float, help="default: the best of the run's sweep")
    parser.add_argument(
        "--sampler",
        choices=("top-p", "cd-k", "mixed"),
        help="mixed: half of each; default: as the run's recipe has them",
    )
    parser.add_argument("--temperature", type=float, help="divides the logits")
    parser.add_argument("--top-p", type=float, help="share of the probability that is drawn from")
    parser.add_argument("--cd-alpha", type=float, help="plausibility threshold of CD-K")
    parser.add_argument("--cd-k", type=int, help="k of CD-K")
    parser.add_argument("--candidates", type=int, default=8, help="how many to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the first candidate")
    parser.add_argument("--out", type=Path, help="PNG to write")
    return parser


def sampling(run: Run, options: argparse.Namespace) -> list[SamplingConfig]:
    """The sampling configurations that candidates take in turn."""
    config = run.recipe.evaluation.sampling
    report = run.recipe.folder / "report.json"
    if report.is_file():
        scale = json.loads(report.read_text("utf-8"))["samples"]["guidance_scale"]
        config = replace(config, guidance_scale=scale)
    given = {
        name: getattr(options, name)
        for name in ("guidance_scale", "temperature", "top_p", "cd_alpha", "cd_k")
        if getattr(options, name) is not None
    }
    config = replace(config, **given)
    kinds = run.recipe.evaluation.samplers
    if options.sampler is not None:
        kinds = ("top-p", "cd-k") if options.sampler == "mixed" else (options.sampler,)
    return [replace(config, sampler=kind) for kind in kinds]


def draw(run: Run, options: argparse.Namespace) -> None:
    """Draw candidates for a prompt."""
    found = retrieve(run, options.prompt, context_size(run, options))
    bare = len(run.layout.image_prompt(run.tokenizer.encode(options.prompt)))
    context = fitting(run, found, bare, run.grid[0] * run.grid[1])
    (prompt,), (unconditional,) = image_prompts(run, [options.prompt], [context])
    wanted = run.encoder.encode_texts([options.prompt])[0]

    def clip_score(candidates: Sequence[torch.Tensor]) -> torch.Tensor:
        pixels = pixels_of_ids(run, torch.stack(list(candidates)))
        return torch.from_numpy(run.encoder.encode_images(list(pixels)).dot(wanted))

    with bar("drawing", unit="step") as progress:
        ids, scores = candidate_pool(
            run.model,
            prompt,
            constraint=picture_block(run),
            configs=sampling(run, options),
            seeds=range(options.seed, options.seed + options.candidates),
            scorer=clip_score,
            unconditional=unconditional,
            progress=progress,
        )
    say_context(run, context)
    pixels = pixels_of_ids(run, torch.stack(ids))
    shown = [pixels_of_codes(run, run.shards.codes(key)[None])[0] for key in context]
    titles = [*["retrieved"] * len(context), *(f"CLIP {score:.2f}" for score in scores.tolist())]
    save(options, options.prompt, [*shown, *pixels], titles)


def describe(run: Run, options: argparse.Namespace, image: Image) -> list[tuple[str, float]]:
    """Captions of a picture and their CLIP scores, the best first."""
    pixels, codes = picture(run, image)
    vector = run.encoder.encode_images([pixels])[0]
    count = context_size(run, options)
    strategy = run.recipe.retrieval.strategy
    found = inference_context(run.bank, {"image": vector}, strategy, count) if count else []
    context = fitting(run, found[::-1], len(run.layout.caption_prompt(codes)), CAPTION_LENGTH)
    prompt = torch.from_numpy(run.layout.caption_prompt(codes, documents(run, context)))
    words = run.vocabulary
    structural = {words.pad_id, words.break_id, words.infill_id, *words.mask_ids}
    text = TextUntil(
        start=0,
        stop=words.text_size,
        stop_ids=(words.eos_id,),
        max_new_tokens=CAPTION_LENGTH,
        forbidden=tuple(sorted(structural)),
    )

    def captions(candidates: Sequence[torch.Tensor]) -> list[str]:
        # "#3" marks another view of a training picture, see `recipe.DecoderRecipe.views`
        return [re.sub(r" #\d+$", "", run.tokenizer.decode(ids.tolist())) for ids in candidates]

    def clip_score(candidates: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.from_numpy(run.encoder.encode_texts(captions(candidates)).dot(vector))

    with bar("describing", unit="step") as progress:
        ids, scores = candidate_pool(
            run.model,
            prompt,
            constraint=text,
            configs=[replace(sampling(run, options)[0], sampler="top-p", guidance_scale=1.0)],
            seeds=range(options.seed, options.seed + options.candidates),
            scorer=clip_score,
            progress=progress,
        )
    say_context(run, context)
    return list(zip(captions(ids), scores.tolist(), strict=True))


def redraw(run: Run, options: argparse.Namespace) -> None:
    """Redraw a rectangle of a picture; the rest stays."""
    image = load_image(options.infill)
    pixels, codes = picture(run, image)
    masked = masked_codes(run, options.mask, image.size)
    caption = options.prompt or describe(run, options, image)[0][0]
    text_ids = run.tokenizer.encode(caption)
    continuations = run.layout.infill_continuations(masked)
    new_ids = int(masked.sum()) + len(continuations)
    bare = len(run.layout.infill_prompt(text_ids, codes, masked))
    found = retrieve(run, caption, context_size(run, options))
    context = fitting(run, found, bare, new_ids)
    prompt = run.layout.infill_prompt(text_ids, codes, masked, documents(run, context))
    block = run.vocabulary.image
    segments: list[CodeBlock | Forced] = []
    for mask_id, length in continuations:
        if mask_id is not None:
            segments.append(Forced(ids=(mask_id,)))
        segments.append(CodeBlock(start=block.offset, stop=block.stop, length=length))

    def filled(candidates: Sequence[torch.Tensor]) -> np.ndarray:
        drawn = np.stack([ids.numpy() for ids in candidates])
        whole = np.repeat(codes[None], len(drawn), 0)
        whole[:, masked.ravel()] = run.vocabulary.ids_to_codes(
            drawn[:, run.vocabulary.is_image(drawn[0])]
        )
        side = run.image_tokenizer.downsampling
        inside = masked.repeat(side, 0).repeat(side, 1)[..., None]
        return np.where(inside, pixels_of_codes(run, whole), pixels)

    target = run.encoder.encode_texts([caption])[0]

    def clip_score(candidates: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.from_numpy(run.encoder.encode_images(list(filled(candidates))).dot(target))

    with bar("redrawing", unit="step") as progress:
        ids, scores = candidate_pool(
            run.model,
            torch.from_numpy(prompt),
            constraint=segments,
            # the paper gives guidance no unconditional stream for regions
            configs=[replace(sampling(run, options)[0], sampler="top-p", guidance_scale=1.0)],
            seeds=range(options.seed, options.seed + options.candidates),
            scorer=clip_score,
            progress=progress,
        )
    say_context(run, context)
    hidden = pixels.copy()
    side = run.image_tokenizer.downsampling
    hidden[masked.repeat(side, 0).repeat(side, 1)] = 128
    titles = ["picture", "masked", *(f"CLIP {score:.2f}" for score in scores.tolist())]
    save(options, caption, [pixels, hidden, *filled(ids)], titles)


def picture(run: Run, image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (H, W, 3) of a picture at the run's size, and its codes (h * w,)."""
    pixels = np.asarray(square(image, run.recipe.data.size))
    codes = run.image_tokenizer.encode(to_tensor(pixels[None])).flatten().numpy()
    return pixels, codes


def masked_codes(run: Run, mask: str, size: tuple[int, int]) -> np.ndarray:
    """(h, w) bool: the codes that the rectangle of ``--mask`` touches in a picture of a size.

    Raises:
        ValueError: No rectangle inside the picture.
    """
    width, height = size
    numbers = re.fullmatch(r"(\d+),(\d+),(\d+),(\d+)", mask)
    if not numbers:
        raise ValueError(f"--mask: wanted x0,y0,x1,y1 in pixels, got {mask!r}")
    x0, y0, x1, y1 = map(int, numbers.groups())
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"--mask: wanted x0 < x1 <= {width} and y0 < y1 <= {height}, got {mask}")
    # the picture is scaled to its shorter side and cropped at the centre, as `square` does
    shorter = min(size)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    masked = np.zeros(run.grid, dtype=bool)
    rows, columns = (n / shorter for n in run.grid)
    low = max(0, int((y0 - top) * rows)), max(0, int((x0 - left) * columns))
    high = int(np.ceil((y1 - top) * rows)), int(np.ceil((x1 - left) * columns))
    masked[low[0] : max(0, high[0]), low[1] : max(0, high[1])] = True
    if not masked.any():
        raise ValueError("--mask: wanted a part of the centre square, got one that is cropped away")
    return masked


def context_size(run: Run, options: argparse.Namespace) -> int:
    """How many documents to retrieve."""
    return run.recipe.evaluation.retrieve if options.retrieve is None else options.retrieve


def say_context(run: Run, context: Sequence[int]) -> None:
    """Print what was retrieved."""
    for key in context:
        print(f"retrieved: {run.shards.caption(key)}")


def save(
    options: argparse.Namespace, name: str, pictures: Sequence[np.ndarray], titles: Sequence[str]
) -> None:
    """Write the PNG, at most eight pictures a row."""
    slug = re.sub(r"\W+", "-", name.lower()).strip("-")[:40] or "picture"
    path = options.out or Path(f"{slug}.png")
    width = min(8, len(pictures))
    gap: list[np.ndarray | None] = [None] * (-len(pictures) % width)
    cells, labels = [*pictures, *gap], [*titles, *[""] * len(gap)]
    rows = [(name if at == 0 else "", cells[at : at + width]) for at in range(0, len(cells), width)]
    sheet(path, rows, [labels[at : at + width] for at in range(0, len(cells), width)])
    print(f"wrote {path}")


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    command = command_line()
    options = command.parse_args(arguments)
    drawing = options.prompt and not options.infill
    if not drawing and (options.guidance_scale is not None or options.sampler is not None):
        command.error("--guidance-scale and --sampler are for --prompt without --infill")
    if options.caption and (options.prompt or options.infill):
        command.error("--caption stands alone: wanted neither --prompt nor --infill beside it")
    if not (options.caption or options.prompt or options.infill):
        command.error("wanted --prompt TEXT, --caption FILE, or --infill FILE --mask x0,y0,x1,y1")
    if options.infill and not options.mask:
        command.error("--infill wants --mask x0,y0,x1,y1")
    if options.candidates < 1:
        command.error(f"--candidates: wanted at least 1, got {options.candidates}")
    run = open_run(options.run, frozen=True)
    if options.caption:
        for caption, score in describe(run, options, load_image(options.caption)):
            shown = "".join(c if c.isprintable() else " " for c in caption)
            print(f"{score:6.2f}  {shown}")
    elif options.infill:
        redraw(run, options)
    else:
        draw(run, options)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
