"""What the benchmarks share: real architectures with random weights, and the record of a run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from oneword._files import write_json_atomic
from oneword.config.inversion import InversionConfig
from oneword.config.model import is_embedded
from oneword.images import from_uint8
from oneword.microworld import weights
from oneword.microworld.making import models
from oneword.microworld.making.sizes import SIZES
from oneword.microworld.world.learnable import Learnable
from oneword.runs.folder import versions
from oneword.training.job import Job


ROOT = Path(__file__).parents[1]
Architecture = Literal["microworld", "sd15", "sdxl", "ldm"]


def machine() -> str:
    """What the numbers were measured on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores"


def commit() -> str | None:
    """This checkout's commit, "-dirty" where tracked files differ; ``None`` without git."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def weights_of(*names: str | None) -> dict[str, str]:
    """The landed versions of those of the names that are embedded models, or folders of some."""
    return {
        name if name in SIZES else Path(name).name: weights.version(name)
        for name in names
        if name is not None and is_embedded(name)
    }


def record(path: Path | None, *, model: str | None, **numbers: Any) -> None:
    """Write the numbers with the command, commit, machine, versions and weights that gave them.

    Args:
        path: ``None``: nothing is written.
        model: Whose weights the numbers depend on; ``None`` for times and the like.
        numbers: What was measured.
    """
    if path is None:
        return
    facts = {
        "command": sys.argv,
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "weights": weights_of(model),
    }
    write_json_atomic(path, facts | numbers)


def recorded(path: Path | None, *, model: str | None) -> dict[str, Any]:
    """What a file of ``record`` holds, to go on from it; empty where there is none.

    Files that were written before versions of weights were noted are taken as they are. Other
    weights end the program: rows of two models would stand in one table.
    """
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    known, landed = found.get("weights"), weights_of(model)
    if known is not None and known != landed:
        sys.exit(
            f"Cannot go on from {path} because its numbers are of the weights {known} and those "
            f"here are {landed}; name another file, or remove this one."
        )
    return found


def learning(
    concept: Learnable, config: InversionConfig, *, name: str, cut_out: int, size: int
) -> Job:
    """The job that learns a held-out thing or style from its drawings.

    Args:
        concept: What is learned.
        config: Settings, whose seed decides the drawings, too.
        name: Of the job.
        cut_out: From so many plain drawings, cut out, on white; 0: from five in places.
        size: Side of a drawing, px.
    """
    if not cut_out:
        drawn = from_uint8(concept.pictures(seed=config.seed, size=size))
        return Job(name=name, pictures=drawn, config=config)
    drawn = from_uint8(concept.plain(cut_out, config.seed, size))
    masks = concept.plain_masks(cut_out, config.seed, size)
    solid = torch.stack([torch.from_numpy(mask).float()[None] for mask in masks])
    white = torch.where(solid > 0, drawn, 1.0)
    return Job(name=name, pictures=white, masks=solid, opacity=solid, config=config)


def pipeline_folder(name: Architecture, models_dir: Path) -> Path:
    """The embedded pipeline, or an architecture with random weights, made on first use.

    They are made in a process of their own, which takes its memory with it when it ends.
    """
    if name == "microworld":
        return weights.pipeline_folder()
    folder = models_dir / name
    if not (folder / "model_index.json").exists():
        print(f"Making random weights in {folder} ...", file=sys.stderr)
        subprocess.run([sys.executable, __file__, name, str(folder)], check=True)
    return folder


@dataclass(frozen=True)
class Usage:
    """What a process took."""

    status: int
    """Its exit code; negative: the signal that ended it."""
    wall_s: float
    cpu_s: float
    """Of all its threads."""
    peak_mb: float
    """Its largest resident set."""


_WATCH = """
import json, os, subprocess, sys, time
started = time.monotonic()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
found = [os.waitstatus_to_exitcode(status), time.monotonic() - started,
         usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
"""


def watched(command: Sequence[object], **options: Any) -> Usage:
    """Run a command and see what it takes.

    A process counts the resident set of the one that started it as its own until it is another
    program, so a small one starts it.

    Args:
        command: Its words.
        options: Of ``subprocess.run``.
    """
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "usage.json"
        words = [sys.executable, "-S", "-c", _WATCH, str(told), *map(str, command)]
        subprocess.run(words, check=True, **options)
        return Usage(*json.loads(told.read_text()))


def _clip_tokenizer() -> Any:
    """A tokenizer of as many pieces as CLIP's, which knows the embedded model's words."""
    from transformers import CLIPTokenizer

    data = json.loads(models.tokenizer().backend_tokenizer.to_str())["model"]
    specials = ["<|startoftext|>", "<|endoftext|>"]
    pieces = [p for p in sorted(data["vocab"], key=data["vocab"].get) if p not in specials]
    pieces += [f"<filler-{i}>" for i in range(49_408 - len(pieces) - len(specials))] + specials
    return CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=[tuple(m) for m in data["merges"]],
        model_max_length=77,
    )


def _clip(width: int, layers: int, heads: int, *, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=49_408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
        hidden_act="gelu" if projected else "quick_gelu",
        bos_token_id=49_406,
        eos_token_id=49_407,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def _vae(size_px: int, scaling_factor: float = 0.18215) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        sample_size=size_px,
        scaling_factor=scaling_factor,
    )


def _scheduler() -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def _unet(latent_size: int, cross_attention_dim: int) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=latent_size,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=8,
        block_out_channels=(320, 640, 1280, 1280),
    )


def _sd15() -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=_vae(512),
        text_encoder=_clip(768, 12, 12),
        tokenizer=_clip_tokenizer(),
        unet=_unet(64, 768),
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _ldm() -> Any:
    from diffusers import LDMTextToImagePipeline
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
        LDMBertConfig,
        LDMBertModel,
    )
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = {w.removesuffix("</w>") for w in models.tokenizer().get_vocab()}
    words += sorted(w for w in pieces if w.isalpha())
    words += [f"[filler{i}]" for i in range(30_522 - len(words))]
    return LDMTextToImagePipeline(
        vqvae=_vae(256),
        bert=LDMBertModel(LDMBertConfig(vocab_size=30_522)),
        tokenizer=BertTokenizer(vocab={w: i for i, w in enumerate(words)}, model_max_length=77),
        unet=_unet(32, 1280),
        scheduler=_scheduler(),
    )


def _sdxl() -> Any:
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=128,
        cross_attention_dim=2048,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(1024, scaling_factor=0.13025),
        text_encoder=_clip(768, 12, 12),
        text_encoder_2=_clip(1280, 32, 20, projected=True),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        unet=unet,
        scheduler=_scheduler(),
        add_watermarker=False,
    )


_RANDOM: dict[str, Callable[[], Any]] = {"sd15": _sd15, "sdxl": _sdxl, "ldm": _ldm}


if __name__ == "__main__":
    torch.manual_seed(0)  # noqa: TID251  (weights of an empty model)
    _RANDOM[sys.argv[1]]().save_pretrained(sys.argv[2])
