"""The embedded models' files: finished parts of the recipe, and the landed pipelines.

In the folder of a model, ``pipeline`` is a plain ``StableDiffusionPipeline`` folder, ``judge`` and
``guide`` are plain CLIP folders, of which the first scores and the second guides drawing, and
``oracle.safetensors`` is the classifier that scores; all fp16, with their SHA-256. What has landed
of a model that is still in the making lies in the same places. ``encoders`` holds what maps
pictures to a word at once, where there is some, each named by how many rows it gives.
"""

# The libraries' own annotations are narrower than what they take and return.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOperatorIssue=false

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneword._files import read_json, write_atomic, write_json_atomic
from oneword.concepts.concept import ConceptError, world_of
from oneword.config.model import CARD, is_embedded
from oneword.errors import UserError
from oneword.microworld.making import models
from oneword.microworld.making.oracle import Oracle
from oneword.microworld.making.sizes import SIZES
from oneword.microworld.making.wide_oracle import WideOracle
from oneword.microworld.world.sets import FIRST_WORLD


if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL
    from torch import nn
    from transformers import CLIPTokenizer


WEIGHTS = Path(__file__).parent / "weights"
"""A folder for each model of ``sizes.SIZES``."""
ENCODERS = "encoders"
CODEBOOK = "codebook.safetensors"
"""Rows that stand for the cells of the landed autoencoder's latents."""
VAE_FILE = "pipeline/vae/diffusion_pytorch_model.safetensors"


class WeightsError(UserError):
    """The embedded model's files are missing or damaged."""


def folder_of(name: str) -> Path:
    """The folder of an embedded model: in the package, or the one that is named."""
    return WEIGHTS / name if name in SIZES else Path(name).absolute()


def checked(folder: Path) -> Path:
    """A landed model's folder, every file of which is as its card says.

    Raises:
        WeightsError: a file is missing or does not match its SHA-256.
    """
    card = folder / CARD
    if not card.exists():
        raise WeightsError(
            f"Cannot load the embedded model in {folder} because its card is missing; reinstall "
            "oneword, or make the model with `oneword microworld train`."
        )
    sums: dict[str, str] = json.loads(card.read_text())["sha256"]
    for name, expected in sums.items():
        path = folder / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no file"
        if found != expected:
            raise WeightsError(
                f"The embedded model's file {name} must have SHA-256 {expected[:12]}..., got "
                f"{found[:12]}; reinstall oneword."
            )
    return folder


def pipeline_folder(name: str = "microworld") -> Path:
    """Folder of an embedded ``StableDiffusionPipeline``.

    Raises:
        WeightsError: a file is missing or does not match its SHA-256.
    """
    return checked(folder_of(name)) / "pipeline"


def judge_folder(name: str = "microworld") -> Path:
    """Folder of the CLIP that scores on an embedded model."""
    return folder_of(name) / "judge"


def guide_folder(name: str = "microworld") -> Path:
    """Folder of the CLIP that guides drawing on an embedded model, and never scores."""
    return folder_of(name) / "guide"


def projector_folder(name: str = "microworld") -> Path:
    """Folder of an embedded model's projector from pictures, if there is one."""
    return folder_of(name) / "projector"


def encoder_file(name: str, num_vectors: int) -> Path | None:
    """The shipped encoder of an embedded model with this number of rows, or fewer, if any."""
    found = {int(p.stem): p for p in (folder_of(name) / ENCODERS).glob("*.safetensors")}
    fitting = [num for num in found if num <= num_vectors]
    return found[max(fitting)] if fitting else None


def version(name: str = "microworld") -> str:
    """Of an embedded model's pipeline: a checksum of its files' checksums, in short."""
    sums = {path: own for path, own in card(name)["sha256"].items() if path.startswith("pipeline/")}
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()[:12]


def world(name: str = "microworld") -> int:
    """Version of the world whose pictures an embedded model was made from."""
    return card(name).get("world", FIRST_WORLD)


def told(model: str) -> dict[str, int]:
    """What a record says of a model besides its name: of an embedded one, which world it is of."""
    return {"world": world(model)} if is_embedded(model) else {}


def check_word(token: str, provenance: Mapping[str, Any], model: str) -> None:
    """Refuse a word that was learned on an embedded model of another world.

    Args:
        token: The word.
        provenance: What its file says of it.
        model: Name of the model that is to read it.

    Raises:
        ConceptError: it is of another world.
    """
    theirs = world_of(provenance)
    if theirs is None or not is_embedded(model) or theirs == world(model):
        return
    raise ConceptError(
        f"The word {token!r} must be of the model's world, version {world(model)}, got one that "
        f"was learned in version {theirs}; learn it again from its pictures, or pass the folder of "
        f"a model of version {theirs} as --model."
    )


def check_card(folder: Path) -> None:
    """Refuse a folder that holds no embedded model.

    Raises:
        WeightsError: it is none.
    """
    if not (folder / CARD).exists():
        raise WeightsError(
            f"Cannot put an encoder into {folder} because it has no {CARD}; pass the folder of "
            "its model."
        )


def add_encoder(folder: Path, data: bytes, num_vectors: int, details: dict[str, Any]) -> Path:
    """Put an encoder into the folder of an embedded model, and its checksum into the card.

    Args:
        folder: Of the weights.
        data: What the encoder's file holds.
        num_vectors: Rows that it gives, by which it is found.
        details: What the card says of it.

    Raises:
        WeightsError: the folder holds no model.
    """
    check_card(folder)
    target = folder / ENCODERS / f"{num_vectors}.safetensors"
    target.parent.mkdir(exist_ok=True)
    write_atomic(target, data)
    known = card_of(folder)
    encoders = known.get("encoders", {}) | {str(num_vectors): details}
    seal(folder, {n: v for n, v in known.items() if n != "sha256"} | {"encoders": encoders})
    return target


def card(name: str = "microworld") -> dict[str, Any]:
    """How an embedded model was made, and its scores; empty if the model is not in the package."""
    return card_of(folder_of(name))


def card_of(folder: Path) -> dict[str, Any]:
    """The card of a model's folder; empty if it has none."""
    path = folder / CARD
    return json.loads(path.read_text()) if path.exists() else {}


def prediction_type(name: str = "microworld") -> str:
    """What an embedded model's denoiser was trained to predict, from its own scheduler."""
    path = folder_of(name) / "pipeline" / "scheduler" / "scheduler_config.json"
    return read_json(path, {"prediction_type": str})["prediction_type"]


def add_scores(
    scores: dict[str, Any], name: str = "microworld", curve: Sequence[dict[str, Any]] = ()
) -> None:
    """Add scores to an embedded model's card, and those after fewer samples where there are."""
    found = card(name) | {"scores": scores}
    if curve:
        found["curve"] = list(curve)
    write_json_atomic(folder_of(name) / CARD, found)


def scored_at(name: str) -> dict[str, Any]:
    """The scores on an embedded model's card, with the samples that it has seen.

    Raises:
        WeightsError: the card has none.
    """
    found = card(name)
    if not found.get("scores"):
        raise WeightsError(
            f"Cannot take the scores of {name} because its card has none; run `oneword microworld "
            f"evaluate --model {name} --save-to-card` first."
        )
    return {"samples": found["denoiser_samples"], "scores": found["scores"]}


def save_codebook(codebook: torch.Tensor, details: dict[str, Any], name: str) -> Path:
    """Save a codebook with an embedded model, fp16, and add it to the model's card.

    Args:
        codebook: (rows, channels of the latents).
        details: What the card says of how it was made.
        name: Of the model.
    """
    import torch
    from safetensors.torch import save_file

    folder, told = folder_of(name), card(name)
    rows = codebook.to("cpu", torch.float16).contiguous()
    # of another autoencoder it would be noise, and of another world it lacks much
    of = {"vae_sha256": told.pop("sha256")[VAE_FILE], "world": str(world(name))}
    save_file({"codebook": rows}, folder / CODEBOOK, metadata=of)
    seal(folder, told | {"codebook": details})
    return folder / CODEBOOK


def load_codebook(name: str = "microworld") -> torch.Tensor:
    """The rows that stand for cells of an embedded model's latents: (rows, channels), float32.

    Raises:
        WeightsError: there is no codebook, or it is for another autoencoder or world.
    """
    from safetensors import safe_open

    folder = checked(folder_of(name))
    again = f"make it with `oneword microworld codebook --model {name}`"
    if not (folder / CODEBOOK).exists():
        raise WeightsError(
            f"Cannot find the codebook of the embedded model at {folder / CODEBOOK}; {again}."
        )
    with safe_open(folder / CODEBOOK, "pt") as file:
        told = file.metadata() or {}
        rows = file.get_tensor("codebook")
    if told.get("world", str(FIRST_WORLD)) != str(world(name)):
        raise WeightsError(
            f"The codebook in {folder / CODEBOOK} must be for this model's world, version "
            f"{world(name)}, got one for version {told.get('world', FIRST_WORLD)}; {again}."
        )
    if told.get("vae_sha256") != card(name)["sha256"][VAE_FILE]:
        raise WeightsError(
            f"The codebook in {folder / CODEBOOK} must be for this model's autoencoder, got one "
            f"for another; {again}."
        )
    return rows.float()


def save_part(folder: Path, name: str, module: nn.Module) -> None:
    """Write a finished part of the recipe into the work folder, fp32."""
    from safetensors.torch import save_file

    target, part = folder / name, folder / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    if hasattr(module, "save_pretrained"):
        module.save_pretrained(part)
    else:
        part.mkdir()
        state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
        save_file(state, part / "model.safetensors")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)


def check_landing(folder: Path, target: Path) -> None:
    """Refuse to land a model that is not whole, or over a folder that holds no model.

    Raises:
        WeightsError: one of the two.
    """
    text = "text_encoder" if (folder / "unet").exists() else "clip"
    parts = ("vae", text, "judge", "oracle", "guide")
    missing = [name for name in parts if not (folder / name).exists()]
    if missing:
        raise WeightsError(
            f"Cannot put the model together because {', '.join(missing)} are missing in {folder}; "
            "run their stages first."
        )
    if target.exists() and not (target / CARD).exists():
        raise WeightsError(
            f"Cannot replace {target} because it has no {CARD}, so it is not an older model; pass "
            "another folder."
        )


def denoiser_sizes(folder: Path) -> dict[str, Any]:
    """Widths of the denoiser and of the text encoder in a work folder, as ``Sizes`` names them."""
    if not (folder / "unet").exists():
        return {}
    unet = json.loads((folder / "unet/config.json").read_text())
    text = json.loads((folder / "text_encoder/config.json").read_text())
    return {
        "unet_channels": unet["block_out_channels"],
        "text_dim": text["hidden_size"],
        "text_layers": text["num_hidden_layers"],
    }


def land(folder: Path, target: Path, details: dict[str, Any]) -> Path:
    """Put a work folder's finished parts together as the model that ships, fp16.

    Where the denoiser is not begun yet, the parts before it are put in their places alone, so that
    the recipe can go on from them.

    Args:
        folder: Work folder of the recipe.
        target: Folder to write; an existing one is replaced when the new one is complete.
        details: What the card says besides the checksums: recipe, samples, compute, scores.
    """
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from safetensors.torch import load_file, save_file
    from transformers import CLIPModel, CLIPTextModel

    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    vae = load_vae(folder)
    if (folder / "unet").exists():
        pipeline = StableDiffusionPipeline(
            vae=vae,
            text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
            tokenizer=_tokenizer(folder),
            unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
            scheduler=models.scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.to(dtype=torch.float16)
        pipeline.save_pretrained(part / "pipeline", max_shard_size="14MB")
    else:
        vae.half().save_pretrained(part / "pipeline" / "vae")
        pair = CLIPModel.from_pretrained(folder / "clip").half()
        models.text_encoder_of(pair).half().save_pretrained(part / "pipeline" / "text_encoder")
    for name in ("judge", "guide"):
        _save_pair(folder / name, part / name)
    oracle = load_file(folder / "oracle" / "model.safetensors")
    save_file(
        {n: t.half() if t.is_floating_point() else t for n, t in oracle.items()},
        part / "oracle.safetensors",
    )
    for path in part.rglob("tokenizer.json"):  # indented, they take nearly twice as much
        told = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(told, ensure_ascii=False, separators=(",", ":")), "utf-8")
    seal(part, details)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
    return target


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a work folder's denoiser; a later world's lies beside it."""
    from transformers import CLIPTokenizer

    own = folder / "tokenizer"
    return CLIPTokenizer.from_pretrained(own) if own.exists() else models.tokenizer()


def _save_pair(source: Path, target: Path) -> None:
    """Write a CLIP pair of a work folder as a folder that any CLIP reader takes, fp16."""
    from transformers import CLIPModel

    CLIPModel.from_pretrained(source).half().save_pretrained(target)
    pair_tokenizer(source).save_pretrained(target)
    (target / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3})  # pixels as they are
    )


def pair_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a CLIP pair; one that was taken from an earlier landing spells as then."""
    from transformers import CLIPTokenizer

    spells = (folder / "tokenizer_config.json").exists()
    return CLIPTokenizer.from_pretrained(folder) if spells else models.tokenizer()


def holds_guide_alone(folder: Path) -> bool:
    """Whether a work folder holds a finished guide and no other part of a model."""
    others = ("vae", "clip", "judge", "oracle", "unet")
    return (folder / "guide.done").exists() and not any((folder / n).exists() for n in others)


def add_guide(folder: Path, target: Path, details: dict[str, Any]) -> Path:
    """Put a work folder's guide beside the parts of a landed model.

    Args:
        folder: Work folder of the recipe.
        target: Folder of the landed model.
        details: What its card says from now on, besides the checksums.
    """
    part = target / "guide.part"
    shutil.rmtree(part, ignore_errors=True)
    _save_pair(folder / "guide", part)
    shutil.rmtree(target / "guide", ignore_errors=True)
    os.replace(part, target / "guide")
    seal(target, {name: value for name, value in details.items() if name != "sha256"})
    return target


def seal(folder: Path, details: dict[str, Any]) -> None:
    """Write the card of a weights folder, with the checksum of every other file in it."""
    for path in folder.rglob("config.json"):  # diffusers notes where a part was loaded from
        settings = json.loads(path.read_text())
        if settings.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(settings, indent=2) + "\n")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CARD)
    sums = {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }
    (folder / CARD).write_text(json.dumps({**details, "sha256": sums}, indent=1) + "\n")


def load_vae(folder: Path) -> AutoencoderKL:
    """The autoencoder of a work folder."""
    import torch
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32)


def take(stage: str, folder: Path, name: str, for_world: int = FIRST_WORLD) -> bool:
    """Put the landed outcome of a stage into a work folder; whether there is one.

    Everything but the denoiser is taken as it is: another VAE would not fit the landed denoiser.
    Oracle, judge and guide read their own world alone.
    """
    landed = folder_of(name)
    if not (landed / CARD).exists() or (stage != "vae" and world(name) != for_world):
        return False
    if stage == "oracle":
        (folder / "oracle").mkdir(exist_ok=True)
        shutil.copy(landed / "oracle.safetensors", folder / "oracle" / "model.safetensors")
    elif stage in ("vae", "judge", "guide"):
        source = landed / ("pipeline/vae" if stage == "vae" else stage)
        if not source.exists():  # a model that landed before guides were made
            return False
        shutil.copytree(source, folder / stage, dirs_exist_ok=True)
    return stage in ("vae", "clip", "judge", "oracle", "guide")


def landed_denoiser(part: str, name: str) -> dict[str, torch.Tensor] | None:
    """Landed weights of "unet" or "text", from which training goes on.

    Words that came into the captions since get small random rows.
    """
    place = folder_of(name) / {"unet": "pipeline/unet", "text": "pipeline/text_encoder"}[part]
    if not place.exists():
        return None
    from safetensors.torch import load_file
    from transformers import CLIPTokenizer

    state: dict[str, torch.Tensor] = {}
    for path in sorted(place.glob("*.safetensors")):
        state |= load_file(path)
    spelling = folder_of(name) / "pipeline" / "tokenizer"
    if part == "text" and spelling.exists():
        _respell(state, CLIPTokenizer.from_pretrained(spelling), models.tokenizer())
    return state


def _respell(state: dict[str, torch.Tensor], old: CLIPTokenizer, new: CLIPTokenizer) -> None:
    """Move the table's rows to where another tokenizer has their pieces."""
    import torch

    key = next(name for name in state if name.endswith("token_embedding.weight"))
    before = old.get_vocab()
    known = [(index, before[piece]) for piece, index in new.get_vocab().items() if piece in before]
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(len(new), state[key].shape[1], generator=generator) * 0.02
    to, source = torch.tensor(known).T
    table[to] = state[key][source].float()
    state[key] = table


def load_oracle(
    name: str = "microworld", path: Path | None = None, of_world: int | None = None
) -> Oracle | WideOracle:
    """The classifier that reads attributes.

    Args:
        name: Of the embedded model, or its folder.
        path: File of the weights; unset: the shipped ones.
        of_world: Which world it reads; unset: the model's own.
    """
    from safetensors.torch import load_file

    width, size_px = _oracle_sizes(name)
    first = (world(name) if of_world is None else of_world) == FIRST_WORLD
    oracle = Oracle(width, size_px) if first else WideOracle(width, size_px)
    state = load_file(path or folder_of(name) / "oracle.safetensors")
    oracle.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in state.items()})
    return oracle.eval().requires_grad_(False)


def size_px(name: str) -> int:
    """Side of an embedded model's pictures, px."""
    return _oracle_sizes(name)[1]


def _oracle_sizes(name: str) -> tuple[int, int]:
    if name in SIZES:
        return SIZES[name].oracle_width, SIZES[name].size_px
    sizes = card(name)["sizes"]
    return sizes["oracle_width"], sizes["size_px"]
