"""What the guide is worth, and what guiding by it draws, beside a judge that guides nothing.

    python benchmarks/guided.py adversarial --model microworld-nano
    python benchmarks/guided.py scales --model microworld --num-prompts 8
    python benchmarks/guided.py figure5 --names gold-mug clown-fish --seeds 0 1 2

"adversarial": pixels are optimised on the guide for 200 steps from noise, with no model; the judge
must gain less than the guide, or it would be worthless beside it. "scales": CLIP-guided latent
diffusion at several weights; a rise on the guide alone is a picture that fools it. "figure5": the
paper's comparison with a drawing that begins from a training picture and is guided by the text.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import tyro
from _common import record
from torch import Tensor

from oneword._typing import Pixels
from oneword.config.baselines import ClipDiffusionConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.evaluation import harness, world
from oneword.evaluation.features import Judge, load_judge
from oneword.evaluation.metrics import Mean, mean_interval, structure_kept
from oneword.generation import clip_diffusion
from oneword.generation.clip_diffusion import LatentDenoiser
from oneword.generation.guide import Guide, spherical_distance
from oneword.images import contact_sheet, from_uint8, save_png
from oneword.microworld import weights
from oneword.microworld.world import learnable
from oneword.microworld.world.captions import evaluation_prompts
from oneword.microworld.world.learnable import Learnable
from oneword.models.loading import load_backbone
from oneword.prompts import fill
from oneword.training.job import Job
from oneword.training.loop import invert_many


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure the guide, or what it guides."""

    part: tyro.conf.Positional[Literal["adversarial", "scales", "figure5"]]
    """What is measured."""
    model: str = "microworld"
    """An embedded model, or the folder of one."""
    num_prompts: int = 8
    """Prompts of the first two parts, which training never saw, one picture each."""
    num_steps: int = 200
    """Steps of "adversarial"."""
    scales: tuple[float, ...] = (0.0, 300.0, 1000.0)
    """Weights of "scales"."""
    tv_scale: float | None = None
    """Weight of the total variation; unset: the preset's."""
    num_inference_steps: int | None = None
    """Steps of guided drawing; unset: the preset's."""
    sampler: Literal["ddpm", "ddim"] | None = None
    """Its sampler; unset: the preset's."""
    names: tuple[str, ...] = ("gold-mug", "clown-fish", "circus-bus", "sunny-ball")
    """Held-out things of "figure5", which must have a noun; these are of the development half."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the words of "figure5", each with other pictures."""
    skips: tuple[int, ...] = (200, 300, 350, 500)
    """How much of the way the picture keeps in "figure5"."""
    num_images: int = 2
    """Pictures of each prompt of "figure5"."""
    max_train_steps: int | None = None
    """Steps of the words of "figure5"; unset: the default."""
    json: Path | None = None
    """File for the numbers."""
    sheet: Path | None = None
    """File for the pictures."""


@dataclass(frozen=True)
class _Bench:
    arguments: Arguments
    denoiser: LatentDenoiser
    guide: Guide
    judge: Judge

    def config(self, prompts: Sequence[str], **settings: Any) -> ClipDiffusionConfig:
        return ClipDiffusionConfig(
            prompts=tuple(prompts),
            model=ModelConfig(model=self.arguments.model),
            num_inference_steps=self.arguments.num_inference_steps,
            tv_scale=self.arguments.tv_scale,
            sampler=self.arguments.sampler,
            batch_size=4,
            **settings,
        )

    def cosines(self, pixels: Pixels, prompts: Sequence[str]) -> dict[str, list[float]]:
        """Of pictures of the guide's size with their own prompts, by who looks."""
        with torch.no_grad():
            seen = self.guide.image_features((pixels + 1) / 2)
            said = self.guide.text_features(prompts)
        judged = self.judge.images(pixels), self.judge.texts(prompts)
        return {
            "guide": F.cosine_similarity(seen, said).tolist(),
            "judge": F.cosine_similarity(*judged).tolist(),
        }


def main() -> None:
    """Measure, print."""
    arguments = tyro.cli(Arguments)
    torch.set_num_threads(1)
    backbone = load_backbone(ModelConfig(model=arguments.model, device="cpu"))
    bench = _Bench(
        arguments,
        LatentDenoiser(backbone),
        Guide.load(None, arguments.model, device=backbone.device),
        load_judge(None, backbone),
    )
    print(f"Guide: {bench.guide.name}; judge: {bench.judge.name}; model: {arguments.model}.\n")
    parts: dict[str, Callable[[_Bench], tuple[Any, Pixels]]] = {
        "adversarial": _adversarial, "scales": _scales, "figure5": _figure5,
    }  # fmt: skip
    found, pixels = parts[arguments.part](bench)
    record(arguments.json, model=arguments.model, found=found)
    if arguments.sheet is not None:
        columns, labels = arguments.num_prompts, None
        if arguments.part == "figure5":  # a row for each method
            columns = len(pixels) // len(found)
            labels = [f"{row['concept']}, seed {row['seed']}: {row['method']}" for row in found]
        save_png(contact_sheet(pixels, columns=columns, row_labels=labels), arguments.sheet)


def _prompts(num: int) -> list[Any]:
    """Prompts with one noun, so that the oracle's first reading answers them."""
    every = evaluation_prompts(10 * num, seed=7)
    return [p for p in every if "noun" in p.truth and "second_noun" not in p.truth][:num]


def _adversarial(bench: _Bench) -> tuple[Any, Pixels]:
    """Pixels are moved to where the guide sees a text; the judge looks on."""
    texts = [prompt.text for prompt in _prompts(bench.arguments.num_prompts)]
    size = bench.guide.size
    generator = torch.Generator().manual_seed(0)
    start = 0.3 * torch.randn(len(texts), 3, size, size, generator=generator)
    pixels = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([pixels], lr=0.05)
    targets = bench.guide.text_features(texts)
    for _ in range(bench.arguments.num_steps):
        optimiser.zero_grad()
        seen = bench.guide.image_features((pixels.clamp(-1, 1) + 1) / 2)
        spherical_distance(seen, targets).sum().backward()
        optimiser.step()
    end = pixels.detach().clamp(-1, 1)
    before, after = (bench.cosines(x, texts) for x in (start.clamp(-1, 1), end))
    found = {}
    print("| | before | after | gain |\n|---|---|---|---|")
    for name in ("guide", "judge"):
        gains = [b - a for a, b in zip(before[name], after[name], strict=True)]
        found[name] = {"before": before[name], "after": after[name]}
        ends = (f"{_mean(x[name]).value:.3f}" for x in (before, after))
        print(f"| {name} | {' | '.join(ends)} | {_mean(gains)} |")
    more = [
        (ga - gb) - (ja - jb)
        for ga, gb, ja, jb in zip(
            after["guide"], before["guide"], after["judge"], before["judge"], strict=True
        )
    ]
    print(f"\nThe guide gains {_mean(more)} more than the judge, {len(texts)} prompts, paired.")
    return found, torch.cat([start.clamp(-1, 1), end])


def _scales(bench: _Bench) -> tuple[Any, Pixels]:
    """Guided drawing at several weights: guide, judge and oracle."""
    asked = _prompts(bench.arguments.num_prompts)
    texts = [prompt.text for prompt in asked]
    oracle = weights.load_oracle(bench.arguments.model)
    found, sheets = {}, []
    print("| clip_scale | guide | judge | noun read |\n|---|---|---|---|")
    for scale in bench.arguments.scales:
        drawing = clip_diffusion.draw(
            bench.denoiser, bench.guide, bench.config(texts, clip_scale=scale)
        )
        scores = bench.cosines(drawing.pixels, texts)
        read = oracle.read(drawing.pixels)
        hits = [r["noun"] == p.truth["noun"] for r, p in zip(read, asked, strict=True)]
        found[str(scale)] = scores | {"noun": hits}
        cells = (str(_mean(scores[name])) for name in ("guide", "judge"))
        print(f"| {scale:g} | {' | '.join(cells)} | {sum(hits)} of {len(hits)} |")
        sheets.append(drawing.pixels)
    first, last = (found[str(s)] for s in (bench.arguments.scales[0], bench.arguments.scales[-1]))
    for name in ("guide", "judge"):
        rise = [b - a for a, b in zip(first[name], last[name], strict=True)]
        print(f"\nRise of the {name} from the first weight to the last: {_mean(rise)} (paired).")
    return found, torch.cat(sheets)


def _figure5(bench: _Bench) -> tuple[Any, Pixels]:
    """A learned word beside drawings that begin from a training picture."""
    arguments, backbone = bench.arguments, bench.denoiser.backbone
    oracle = weights.load_oracle(arguments.model)
    version = weights.world(arguments.model)
    chosen = [learnable.find(name, version, things_alone=True) for name in arguments.names]
    if unnamed := [one.name for one in chosen if one.noun is None]:
        raise SystemExit(f"These things have no noun for the sentences: {', '.join(unnamed)}.")
    pairs = [(one, seed) for one in chosen for seed in arguments.seeds]
    jobs = [
        Job(
            name=held_out.name,
            pictures=from_uint8(held_out.pictures(seed=seed, size=backbone.resolution)),
            config=InversionConfig(
                initializer_token=held_out.noun,
                max_train_steps=arguments.max_train_steps,
                seed=seed,
            ),
        )
        for held_out, seed in pairs
    ]
    rows, sheets = [], []
    for (held_out, seed), job, result in zip(
        pairs, jobs, invert_many(backbone, jobs, slots=4), strict=True
    ):
        assert result.concept is not None, result.reason
        token, init = result.concept.placeholder_token, job.pictures[:1]

        def begun(skip: int, noun: str = held_out.noun, init: Tensor = init) -> harness.Method:
            def draw(template: str, seeds: Sequence[int]) -> Pixels:
                config = bench.config(
                    [fill(template, noun)], init_image=Path("picture"), skip=skip,
                    seeds=tuple(map(str, seeds)),
                )  # fmt: skip
                return clip_diffusion.draw(bench.denoiser, bench.guide, config, init=init).pixels

            return draw

        methods = {
            "one word": harness.word(backbone, token, [result.concept]),
            "text alone": harness.word(backbone, held_out.noun),
        } | {f"from a picture, skip {skip}": begun(skip) for skip in arguments.skips}
        protocol = harness.protocol_for(
            "microworld", seeds=range(1000 * seed, 1000 * seed + arguments.num_images)
        )
        evaluation = harness.evaluate(methods, job.pictures, bench.judge, protocol)
        for name, by_template in evaluation.pictures.items():
            read = {t: oracle.read(p) for t, p in by_template.items()}
            edits = [t for t in by_template if t != protocol.photo]
            obeyed = [v for v in world.edits_obeyed(read).values() if v == v]
            kept = [structure_kept(by_template[t], init.expand_as(by_template[t])) for t in edits]
            seen = world.seen_as(read, *held_out.read_as)
            rows.append(
                {
                    "concept": held_out.name, "seed": seed, "method": name,
                    "image": evaluation.scores[name].image_similarity,
                    "text": evaluation.scores[name].text_similarity,
                    "structure kept": sum(kept) / len(kept),
                    "concept seen": sum(seen[t] for t in edits) / len(edits),
                    "edits obeyed": sum(obeyed) / len(obeyed) if obeyed else math.nan,
                    "concept and edit": _both(read, held_out, edits),
                }
            )  # fmt: skip
        sheets.append(torch.cat([p for by in evaluation.pictures.values() for p in by.values()]))
    _table(rows)
    return rows, torch.cat(sheets)


def _both(
    read: dict[str, list[dict[str, str]]], held_out: Learnable, edits: Sequence[str]
) -> float:
    """Share of pictures of edits that show the concept and all that the sentence asks for."""
    found = world.seen_and_obeyed({t: read[t] for t in edits}, *held_out.read_as)
    return math.fsum(found.values()) / len(found)


def _table(rows: Sequence[dict[str, Any]]) -> None:
    """Means over concepts, and differences from the learned word with intervals."""
    scores = [name for name in rows[0] if name not in ("concept", "seed", "method")]
    print("| method | " + " | ".join(scores) + " |\n|---" + "|---" * len(scores) + "|")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    by = {m: {s: _by_concept(rows, m, s) for s in scores} for m in methods}
    for method, own in by.items():
        print(f"| {method} | " + " | ".join(str(_mean([*own[s].values()])) for s in scores) + " |")
    for method in methods[1:]:
        told = []
        for score in scores:
            differences = [v - by[methods[0]][score][c] for c, v in by[method][score].items()]
            told.append(str(_mean(differences)))
        print(f"| {method}, less {methods[0]} | " + " | ".join(told) + " |")


def _by_concept(rows: Sequence[dict[str, Any]], method: str, score: str) -> dict[str, float]:
    """A score of each concept, the mean over its seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            found.setdefault(row["concept"], []).append(row[score])
    return {name: sum(values) / len(values) for name, values in found.items()}


def _mean(values: Sequence[float]) -> Mean:
    return mean_interval(list(values))


if __name__ == "__main__":
    main()
