"""The image tokenizer beside transformers' models of the same weights: speed and equality.

    uv run --group bench python benchmarks/imagetok.py --out FILE
    uv run --group bench python benchmarks/imagetok.py --compare 64 --out FILE  # slow

Speed: encode beside `ChameleonVQVAE` (preset chameleon-512) and decode beside `JanusVQVAE`
(preset llamagen-vq16), one picture at a time, medians of alternating rounds. `x_over_y` is x's
speed over y's. Weights are as transformers draws them; pictures are coarse and fine noise. A CPU
without bfloat16 arithmetic emulates the peer's; there `VQGAN` works in float32 on its bfloat16
weights, and both are timed at 64 px only, since the peer takes minutes for more.

`--compare 64` compares the codes of 64 pictures of 512 px instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from timing import alternate, machine_facts, medians, report
from torch import Tensor
from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE
from transformers.models.janus.configuration_janus import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from cm3_imagetok import PRESETS, VQGAN
from cm3_imagetok.layouts import to_native


def picture(height: int, width: int, seed: int) -> Tensor:
    """Draw (1, 3, height, width) in [-1, 1]: smoothed coarse noise plus fine noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, 8, 8, generator=generator)
    fine = torch.randn(1, 3, height, width, generator=generator)
    return (0.5 * F.interpolate(coarse, (height, width), mode="bicubic") + 0.1 * fine).clamp(-1, 1)


def chameleon_pair() -> tuple[VQGAN, ChameleonVQVAE]:
    peer = ChameleonVQVAE(ChameleonVQVAEConfig()).eval()
    ours = VQGAN(PRESETS["chameleon-512"]).eval()
    ours.load_state_dict(peer.state_dict(), strict=False)
    return ours, peer


def janus_pair(side: int) -> tuple[VQGAN, JanusVQVAE]:
    peer = JanusVQVAE(JanusVQVAEConfig(num_patches=side // 16)).eval()
    # its encoder compares vectors as they are: with unit vectors that is LlamaGen's comparison
    peer.quantize.embedding.weight.data = F.normalize(peer.quantize.embedding.weight.data, dim=-1)
    ours = VQGAN(PRESETS["llamagen-vq16"]).eval()
    ours.load_state_dict(to_native(peer.state_dict(), "janus"))
    return ours, peer


def agreement(first: Tensor, second: Tensor) -> float:
    return float((first.flatten() == second.flatten()).double().mean())


def speed(rounds: int, side: int) -> dict[str, float]:
    """Time encode and decode beside the peers; see the module."""
    table = {}
    ours, hf = chameleon_pair()
    image = picture(side, side, 0)
    codes = ours.encode(image)
    table["code_agreement_fp32"] = agreement(codes, hf.encode(image).image_tokens)
    ours16 = VQGAN(ours.config).eval()
    ours16.load_state_dict(ours.state_dict())
    ours16 = ours16.bfloat16()
    table["code_agreement_bf16"] = agreement(codes, ours16.encode(image))
    calls = {
        "ours_fp32": lambda: ours.encode(image),
        "ours_bf16": lambda: ours16.encode(image),
        "hf_fp32": lambda: hf.encode(image),
    }
    seconds = medians(alternate(calls, rounds))
    for name, value in seconds.items():
        table[f"encode_{name}_seconds"] = value
    table["encode_fp32_over_hf"] = seconds["hf_fp32"] / seconds["ours_fp32"]
    table["encode_bf16_over_hf_fp32"] = seconds["hf_fp32"] / seconds["ours_bf16"]

    native = torch.cpu._is_avx512_bf16_supported()
    small = image if native else picture(64, 64, 0)
    hf16 = hf.bfloat16()
    calls = {
        "ours": lambda: ours16.encode(small),
        "hf": lambda: hf16.encode(small.bfloat16()),
    }
    seconds = medians(alternate(calls, rounds))
    table["encode_bf16_side"] = small.shape[-1]
    table["encode_ours_bf16_small_seconds"] = seconds["ours"]
    table["encode_hf_bf16_small_seconds"] = seconds["hf"]
    table["encode_bf16_over_hf"] = seconds["hf"] / seconds["ours"]
    table["code_agreement_bf16_hf"] = agreement(
        hf16.encode(small.bfloat16()).image_tokens, ours.encode(small)
    )

    ours, janus = janus_pair(side)
    codes = ours.encode(image)
    flat = codes.flatten(1)
    table["janus_code_agreement"] = agreement(codes, janus.encode(image).image_tokens)
    rendered = ours.render(ours.quantize.decode(codes))
    table["janus_largest_difference"] = float((rendered - janus.decode(flat)).abs().max())
    calls = {"ours": lambda: ours.decode(codes), "janus": lambda: janus.decode(flat)}
    seconds = medians(alternate(calls, rounds))
    table["decode_ours_fp32_seconds"] = seconds["ours"]
    table["decode_janus_fp32_seconds"] = seconds["janus"]
    table["decode_fp32_over_janus"] = seconds["janus"] / seconds["ours"]
    return table | exactness()


def exactness() -> dict[str, float]:
    """Compare 64 px with Janus in float64, and measure each model's rounding in float32."""
    ours, janus = janus_pair(64)
    codes = ours.encode(picture(64, 64, 0))
    single = ours.render(ours.quantize.decode(codes)), janus.decode(codes.flatten(1))
    ours, janus = ours.double(), janus.double()
    exact = janus.decode(codes.flatten(1))
    return {
        "janus_difference_float64": float(
            (ours.render(ours.quantize.decode(codes)) - exact).abs().max()
        ),
        "ours_rounding_float32": float((single[0] - exact).abs().max()),
        "janus_rounding_float32": float((single[1] - exact).abs().max()),
        "janus_largest_value": float(exact.abs().max()),
    }


def compare(count: int) -> dict[str, float]:
    """Compare codes of `count` square pictures of 512 px, and of an eighth as many oblong ones.

    Where codes differ, both codes' distances are computed in float64 from the peer's own grid: the
    peer sums squares in float32, where two nearly equal distances may change places.
    """
    ours, hf = chameleon_pair()
    table: dict[str, float] = {"largest_relative_gap_of_differing_codes": 0.0}
    sizes = {"non_square": [(256, 384), (208, 560)] * (count // 16), "512": [(512, 512)] * count}
    for name, shapes in sizes.items():
        equal = total = done = 0
        used: set[int] = set()
        for seed, (height, width) in enumerate(shapes):
            image = picture(height, width, seed)
            codes, theirs = ours.encode(image).flatten(), hf.encode(image).image_tokens.flatten()
            same = codes == theirs
            if not same.all():
                gap = relative_gap(hf, image, codes, theirs)
                key = "largest_relative_gap_of_differing_codes"
                table[key] = max(table[key], gap)
                print(f"{name}: seed {seed}: {int((~same).sum())} differ, by {gap:.1e}", flush=True)
            used |= set(codes.tolist())
            equal, total, done = equal + int(same.sum()), total + same.numel(), done + 1
            so_far = f"{done} of {len(shapes)} pictures, {equal} of {total} codes"
            print(f"{name}: {so_far}, {len(used)} kinds", flush=True)
        table |= {f"pictures_{name}": done, f"codes_{name}": total, f"codes_equal_{name}": equal}
        table[f"codes_kinds_{name}"] = len(used)
    return table


def relative_gap(hf: ChameleonVQVAE, image: Tensor, codes: Tensor, theirs: Tensor) -> float:
    """Return the largest relative difference of the two codes' squared distances, in float64."""
    z = hf.quant_conv(hf.encoder(image)).permute(0, 2, 3, 1).flatten(0, 2).double()
    first, second = (
        (z - hf.quantize.embedding.weight[index].double()).square().sum(-1)
        for index in (codes, theirs)
    )
    return float(((first - second).abs() / second).max())


@torch.no_grad()
def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds, at least 5")
    parser.add_argument("--side", type=int, default=256, help="pixels of the timed pictures")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compare", type=int, help="number of pictures whose codes to compare")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    table: dict[str, object] = {}
    table |= compare(options.compare) if options.compare else speed(options.rounds, options.side)
    table["config"] = {
        **machine_facts(options.threads),
        "bf16_arithmetic": torch.cpu._is_avx512_bf16_supported(),
        "side": 512 if options.compare else options.side,
        "rounds": options.rounds,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    report(table, options.out)


if __name__ == "__main__":
    main()
