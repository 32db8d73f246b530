"""From a picture's features to a word's vectors: a small network, trained by equation 2.

A picture becomes vectors in the text encoders' output, at the position of a word in a sentence
(``vocabulary/output_vectors.py``); the model itself is frozen. In this way the picture's contents
can be drawn again, alone or in a sentence. This is ours; Karlo's decoder takes four such vectors of
its own (Ramesh et al. 2022, arXiv:2204.06125, section 2.1).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from oneword._files import FormError, check, parsed, write_atomic
from oneword._typing import Pixels
from oneword.concepts.concept import OUTPUT_VECTORS, Concept
from oneword.config.inversion import InversionConfig
from oneword.config.variations import ProjectorConfig
from oneword.errors import UserError
from oneword.models.contract import Backbone
from oneword.models.guide import Features, Guide
from oneword.prompts import TEMPLATES
from oneword.training.batches import Batches
from oneword.training.encoder.files import version_of
from oneword.training.extensions.losses import loss
from oneword.training.fit import filled
from oneword.training.job import Job
from oneword.training.learner import slot_token
from oneword.training.parts import captions_or_templates
from oneword.training.prediction import sample_losses
from oneword.training.rates import schedule
from oneword.training.samples import Batch
from oneword.vocabulary.inject import initial_outputs, injected


FILE = "projector.safetensors"
"""Name of a projector in its folder."""
STATE = "projector.state.safetensors"
"""State for resuming, next to it."""
INITIALIZER = "photo"
"""The word that text encoders read at the position of a picture's vectors."""
_HIDDEN = 512  # width of the network
_WARMUP_STEPS = 100
_WEIGHT_DECAY = 0.01
_SENTENCES = 8  # templates whose mean the vectors start from
_SAVED_EVERY = 500  # steps
_FEATURED = 32  # pictures through the guide at once

OnStep = Callable[[int, int, float], None]
"""``on_step(done, total, loss)``."""


class ProjectorError(UserError):
    """A projector cannot be read, or is for another model or guide."""


class Projector(nn.Module):
    """Maps features of pictures to vectors, by place of the text encoders' output.

    Args:
        dim: Length of the features.
        base: Start of the vectors, (num_vectors, width) by place. The network adds to it in units
            of its spread, and adds nothing before training.
    """

    def __init__(self, dim: int, base: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.dim = dim
        self.shapes = {place: tuple(rows.shape) for place, rows in base.items()}
        flat = [rows.detach().float().flatten() for rows in base.values()]
        self.register_buffer("base", torch.cat(flat))
        self.register_buffer("spread", torch.cat([rows.std().expand_as(rows) for rows in flat]))
        self.net = nn.Sequential(
            nn.Linear(dim, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, sum(map(len, flat)))
        )
        last: Any = self.net[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: Features) -> dict[str, Float[Tensor, "num vectors width"]]:
        """Vectors of pictures by place."""
        # features have unit length, so many entries means small ones
        flat = self.base + self.spread * self.net(features * self.dim**0.5)
        sizes = [vectors * width for vectors, width in self.shapes.values()]
        parts = flat.split(sizes, dim=1)
        return {
            place: part.unflatten(1, shape)
            for (place, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A projector with its provenance."""

    projector: Projector
    base_model: str
    version: str
    """For an embedded model, a short checksum of its weights; otherwise empty."""
    guide: str | None
    """The guide of the settings; ``None``: the embedded model's own, or the default."""
    guide_sha256: str
    """SHA-256 of the guide's weights."""
    steps: int
    first_loss: float
    """On the fixed batch, before the first step."""
    loss: float
    """On the fixed batch, now."""

    @torch.no_grad()
    def word(self, features: Features, placeholder_token: str) -> Concept:
        """The word of one picture.

        Args:
            features: (1, dim).
            placeholder_token: Its placeholder in prompts.
        """
        vectors = self.projector(features.to(next(self.projector.parameters()).device))
        return Concept(
            placeholder_token=placeholder_token,
            rows={place: own[0].cpu() for place, own in vectors.items()},
            kind=OUTPUT_VECTORS,
            provenance={"initializer_token": INITIALIZER, "base_model": self.base_model},
        )


@torch.no_grad()
def features_of(guide: Guide, pixels: Pixels) -> Features:
    """The guide's features of square pictures, which are resized to its size.

    Args:
        guide: A CLIP pair.
        pixels: In [-1, 1].
    """
    found = []
    for part in pixels.split(_FEATURED):
        values = (part.to(guide.device) + 1) / 2
        if values.shape[-2:] != (guide.size, guide.size):
            values = nn.functional.interpolate(
                values, (guide.size, guide.size), mode="bicubic", antialias=True
            ).clamp(0, 1)
        found.append(guide.image_features(values).cpu())
    return torch.cat(found)


def train(
    backbone: Backbone,
    guide: Guide,
    pixels: Pixels,
    config: ProjectorConfig,
    *,
    on_step: OnStep | None = None,
) -> Trained:
    """Train a projector on pictures, and write it into its folder; the same call resumes.

    Each sample is equation 2 with the picture's own vectors as the word, in one of the neutral
    sentences; the gradient passes through the frozen model to the network.

    Args:
        backbone: The frozen model.
        guide: The CLIP whose features are projected.
        pixels: Square pictures of the model's size, in [-1, 1].
        config: The settings.
        on_step: Called at every step.

    Raises:
        ProjectorError: the folder has the state of other settings.
        PlaceholderError: the model does not read a text encoder's output token by token.
        OutputError: the folder cannot be written.
        KeyboardInterrupt: training was stopped; the state is saved.
    """
    return _Run(backbone, guide, pixels, config).run(on_step)


class _Run:
    """A projector under training, with its state on disk."""

    def __init__(
        self, backbone: Backbone, guide: Guide, pixels: Pixels, config: ProjectorConfig
    ) -> None:
        self.backbone, self.guide, self.config = backbone, guide, config
        self.settings = InversionConfig(
            initializer_token=INITIALIZER,
            vectors_at="output",
            num_vectors=config.num_vectors,
            train_batch_size=config.train_batch_size,
            max_train_steps=config.num_steps,
            learning_rate=config.learning_rate,
            lr_scheduler="cosine",
            lr_warmup_steps=min(_WARMUP_STEPS, config.num_steps // 10),
            random_flip=False,  # features are those of the unflipped pictures
            seed=config.seed,
        ).resolved(backbone.family)
        job = Job(name="projector", pictures=pixels, config=self.settings)
        self.batches = Batches(backbone, job, self.settings, prompts=captions_or_templates)
        self.features = features_of(guide, pixels).to(backbone.device)
        sentences = TEMPLATES[self.settings.prompt_templates][:_SENTENCES]
        base = initial_outputs(backbone, INITIALIZER, config.num_vectors, sentences)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # noqa: TID251  (layers take their weights from it)
            self.projector = Projector(guide.dim, base).to(backbone.device)
        self.parameters = list(self.projector.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, weight_decay=_WEIGHT_DECAY)
        self.step, self.first_loss = 0, float("nan")
        size = max(config.train_batch_size, self.settings.num_evaluation_samples)
        self.leaves = [
            {
                place: rows.clone().to(backbone.device).requires_grad_()
                for place, rows in base.items()
            }
            for _ in range(size)
        ]

    def run(self, on_step: OnStep | None) -> Trained:
        words = [
            Concept(
                placeholder_token=slot_token(place),
                rows=own,
                kind=OUTPUT_VECTORS,
                provenance={"initializer_token": INITIALIZER},
            )
            for place, own in enumerate(self.leaves)
        ]
        total, path = self.config.num_steps, self.config.output_dir / STATE
        with injected(self.backbone, words):
            self._encode_all()
            if path.is_file():
                self._load(path)
            else:
                self.first_loss = self._fixed_loss()
            try:
                while self.step < total:
                    found = self._update()
                    if on_step is not None:
                        on_step(self.step, total, found)
                    if self.step % _SAVED_EVERY == 0:
                        self._save(path)
            except KeyboardInterrupt:
                self._save(path)
                raise
            trained = Trained(
                projector=self.projector.eval(),
                base_model=self.backbone.name,
                version=version_of(self.backbone),
                guide=self.config.guide,
                guide_sha256=self.guide.sha256(),
                steps=self.step,
                first_loss=self.first_loss,
                loss=self._fixed_loss(),
            )
        save(trained, self.config.output_dir)
        self._save(path)
        return trained

    @torch.no_grad()
    def _encode_all(self) -> None:
        """Let the text encoders read every sentence now, always in the same batches.

        Their output is kept (``OutputSplice``). The rounding of a sentence's numbers depends on its
        batch, which would be different in a resumed training.
        """
        sentences = list(dict.fromkeys(s for own in self.batches.sentences for s in own))
        for slot in range(len(self.leaves)):
            self.backbone.encode_prompt([filled(s, slot_token(slot)) for s in sentences])

    def _losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each sample, and the vectors of its picture by place."""
        count = len(batch.sentences)
        vectors = self.projector(self.features[batch.samples.pictures.to(self.features.device)])
        with torch.no_grad():
            for place, own in vectors.items():
                for leaf, one in zip(self.leaves[:count], own, strict=True):
                    leaf[place].copy_(one)
        words = [(partial(filled, token=slot_token(i)), [batch.only([i])]) for i in range(count)]
        return torch.cat(sample_losses(self.backbone, words, loss)), vectors

    @torch.no_grad()
    def _fixed_loss(self) -> float:
        """The mean loss of a batch that is the same at every step."""
        (batch,) = self.batches.fixed
        losses, _ = self._losses(batch)
        return float(losses.mean())

    def _update(self) -> float:
        draws = self.batches.draws(self.step)
        (batch,) = self.batches.noised(draws, draws.times)
        losses, vectors = self._losses(batch)
        mean = losses.mean()
        used = self.leaves[: len(losses)]
        given = torch.autograd.grad(mean, [leaf[p] for p in vectors for leaf in used])
        parts = [given[i : i + len(used)] for i in range(0, len(given), len(used))]
        for parameter in self.parameters:
            parameter.grad = None
        torch.autograd.backward(list(vectors.values()), [torch.stack(part) for part in parts])
        rate = self.config.learning_rate * schedule(self.settings, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step += 1
        return float(mean.detach())

    # --- the state on disk

    def _told(self) -> dict[str, Any]:
        """What must be the same to resume."""
        plain = json.loads(json.dumps(asdict(self.config), default=str))
        places = ("output_dir", "judge", "allow_same_clip")
        own = {name: value for name, value in plain.items() if name not in places}
        own["model"] = {n: v for n, v in own["model"].items() if n != "device"}
        return own | {
            "version": version_of(self.backbone),
            "guide": self.guide.sha256(),
            "pictures": len(self.features),
        }

    def _save(self, path: Path) -> None:
        tensors = {f"projector/{n}": t for n, t in self.projector.state_dict().items()}
        for place, parameter in enumerate(self.parameters):
            state = self.optimizer.state.get(parameter, {})
            tensors |= {f"{name}/{place}": value for name, value in state.items()}
        told = {"step": self.step, "first_loss": self.first_loss, "settings": self._told()}
        _write(path, tensors, told)

    def _load(self, path: Path) -> None:
        tensors, told = _read(path, {"step": int, "first_loss": float, "settings": {str: object}})
        ours, theirs = self._told(), told["settings"]
        other = [name for name in ours if theirs.get(name) != ours[name]]
        if other:
            raise ProjectorError(
                f"Cannot resume in {path.parent} because its projector has another {other[0]}: "
                f"{theirs.get(other[0])!r}, not {ours[other[0]]!r}; use its settings, or pass "
                "another --output-dir."
            )
        begin = "projector/"
        self.projector.load_state_dict(
            {n.removeprefix(begin): t for n, t in tensors.items() if n.startswith(begin)}
        )
        for place, parameter in enumerate(self.parameters):
            self.optimizer.state[parameter] = {
                name.partition("/")[0]: value.to(parameter.device) if value.ndim else value
                for name, value in tensors.items()
                if name.endswith(f"/{place}") and not name.startswith(begin)
            }
        self.step, self.first_loss = told["step"], told["first_loss"]


# --- files


_FORM = {
    "base_model": str,
    "version": str,
    "guide": (str, type(None)),
    "guide_sha256": str,
    "dim": int,
    "places": {str: [int]},
    "steps": int,
    "first_loss": float,
    "loss": float,
}


def save(trained: Trained, folder: Path) -> Path:
    """Write a projector into a folder.

    Raises:
        OutputError: the folder cannot be written.
    """
    told = {name: getattr(trained, name) for name in _FORM if hasattr(trained, name)}
    told |= {"dim": trained.projector.dim, "places": trained.projector.shapes}
    _write(folder / FILE, trained.projector.state_dict(), told)
    return folder / FILE


def load(folder: Path, device: torch.device) -> Trained:
    """Read the projector of a folder.

    Raises:
        ProjectorError: there is no projector, or it is damaged.
    """
    path = folder / FILE
    tensors, told = _read(path, _FORM)
    try:
        base = {place: torch.zeros(vectors, width) for place, (vectors, width) in
                told.pop("places").items()}  # fmt: skip
        projector = Projector(told.pop("dim"), base)
        projector.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ProjectorError(
            f"{path} must contain the tensors that it names, got others "
            f"({str(error).splitlines()[0][:120]}); the file was changed or damaged."
        ) from error
    projector.to(device).eval().requires_grad_(False)
    return Trained(projector=projector, **{name: told[name] for name in _FORM if name in told})


def is_for(trained: Trained, backbone: Backbone) -> bool:
    """Whether a projector was trained on a model; embedded ones go by weights, others by name."""
    version = version_of(backbone)
    if version or trained.version:
        return trained.version == version
    return trained.base_model == backbone.name


def check_fits(trained: Trained, backbone: Backbone, guide: Guide, folder: Path) -> None:
    """Refuse a projector that was trained for another model, version of it, or guide.

    Raises:
        ProjectorError: the projector does not fit.
    """
    if not is_for(trained, backbone) and trained.base_model == backbone.name:
        raise ProjectorError(
            f"Cannot use the projector {folder} because it was trained on another version of "
            f"{backbone.name}; train one with oneword baseline projector."
        )
    if not is_for(trained, backbone):
        raise ProjectorError(
            f"Cannot use the projector {folder} with {backbone.name} because it was trained on "
            f"{trained.base_model}; use that model."
        )
    if trained.projector.dim != guide.dim or trained.guide_sha256 != guide.sha256():
        raise ProjectorError(
            f"Cannot use the projector {folder} with the guide {guide.name} because it was "
            "trained with another guide; train one with oneword baseline projector."
        )


_KEY = "oneword_projector"


def _write(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    write_atomic(path, safetensors.torch.save(plain, {_KEY: json.dumps(told)}))


def _read(path: Path, form: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    must = f"{path} must be a file of oneword baseline projector"
    if not path.is_file():
        raise ProjectorError(f"{must}, got none there.")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            told = (file.metadata() or {}).get(_KEY, "null")
        return tensors, check(parsed(told), form)
    except (SafetensorError, OSError, FormError) as error:
        raise ProjectorError(f"{must}, got another form ({str(error)[:120]}).") from error
