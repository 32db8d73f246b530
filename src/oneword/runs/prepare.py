"""Everything that a run needs before its first step, with all checks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import partial
from typing import Any

from oneword.concepts.formats import load_concept
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import ResolvedConfig
from oneword.config.presets import is_validated, sampler_of
from oneword.config.runs import ResolvedTrainConfig, TrainConfig, plain_settings
from oneword.generation.generate import check_negative_prompt
from oneword.images import PictureSet, read_folder
from oneword.microworld import weights
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.models.memory.count import Work
from oneword.models.speed.compiled import Compiled
from oneword.prompts import as_template, descriptions, expanded, with_word
from oneword.runs.folder import versions
from oneword.runs.remarks import remarks
from oneword.runs.trackers import check_trackers
from oneword.training.batches import checked, every_sentence
from oneword.training.by_library import check_optimizer
from oneword.training.encoder.use import encoder_for
from oneword.training.extensions import form
from oneword.training.fit import check_fit, filled
from oneword.training.initializer import nouns_for
from oneword.training.job import Job, JobError
from oneword.training.processes import Processes
from oneword.training.rates import effective_learning_rate
from oneword.training.sizes import bucket_step
from oneword.training.tuning import BASELINES, longest_words, tuner
from oneword.vocabulary.inject import injected


_USUAL_BATCH = 8  # the larger one of the presets


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to begin."""

    config: ResolvedTrainConfig
    backbone: Backbone
    job: Job
    plan: dict[str, Any]
    record: dict[str, Any]


def work_of(config: TrainConfig, slots: int = 1) -> Work:
    """What a run will use its model for, for planning memory."""
    inversion = config.inversion
    batch = inversion.train_batch_size or _USUAL_BATCH
    return Work(
        samples=-(-slots * batch // config.num_processes),
        batch=batch,
        resolution=config.resolution,
        through_encoders=inversion.vectors_at == "input",
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """The training data of a run: its pictures and their captions."""

    config: ResolvedTrainConfig
    pictures: PictureSet
    captions: list[str] | None
    """One for each picture, with the placeholder; ``None``: the templates are used."""
    notes: list[str]


def see(config: TrainConfig, backbone: Backbone) -> Seen:
    """Read the pictures of a run in the form for its model.

    Args:
        config: The settings.
        backbone: Its model; shapes are enough.

    Raises:
        UserError: the pictures cannot be used.
    """
    config = config.resolved(backbone.family, backbone.resolution)
    inversion = config.inversion
    pictures = read_folder(
        config.train_data_dir,
        resolution=config.resolution,
        fit=inversion.fit,
        bucket_step=bucket_step(backbone, config),
        interpolation=inversion.interpolation,
        masks=config.masks,
        mask_dir=config.mask_dir,
        caption_dir=config.caption_dir,
    )
    if pictures.opacity is None and inversion.backgrounds == "auto":  # nothing to set on one
        inversion = dataclasses.replace(inversion, backgrounds="none")
        config = dataclasses.replace(config, inversion=inversion)
    token = inversion.placeholder_token
    captions, notes = _captions(pictures, token, prefix=config.prefix_captions)
    return Seen(config, pictures, captions, notes + remarks(pictures, backbone.resolution))


def prepare(config: TrainConfig, backbone: Backbone | None = None) -> Prepared:
    """Read the pictures and check everything that can be checked before training.

    Args:
        config: The settings.
        backbone: Its model, if it is already loaded.

    Raises:
        UserError: training cannot begin.
    """
    config = _with_prompts(config)
    check_optimizer(config.inversion.optimizer)
    check_trackers(config.report_to)
    backbone = backbone or load_backbone(config.model, work_of(config))
    own = config.inversion.resolved(backbone.family)
    if own.setup in BASELINES:
        tuner.check(backbone, own)
    asked, seen = config, see(config, backbone)
    config, pictures, captions, notes = seen.config, seen.pictures, seen.captions, seen.notes
    inversion = config.inversion
    notes = _processes_notes(config.num_processes, inversion) + notes
    token = inversion.placeholder_token
    described = descriptions.read(config.train_data_dir)
    job = Job(
        name=token,
        pictures=pictures.pixels,
        config=inversion,
        crops=pictures.crops,
        masks=pictures.masks,
        opacity=pictures.opacity,
        sizes=pictures.sizes,
        captions=None if captions is None else tuple(captions),
        descriptions=described,
    )
    _check_words(backbone, job, config, asked)
    rates = {
        name: dict(
            zip(("absolute", "relative"), effective_learning_rate(inversion, v), strict=True)
        )
        for name, v in backbone.vocabularies.items()
    }
    if inversion.vectors_at == "output":
        notes = [
            *notes,
            "the word's vectors are in the text encoders' output: it works only in oneword, and "
            "the learning rate is in units of these vectors' spread",
        ]
    if inversion.optimizer == "prodigy":
        notes = [
            *notes,
            "prodigy finds its step size while it trains; learning_rate is a factor on it, and "
            "their product is reported",
        ]
    if inversion.initializer == "encoder":
        notes = [*notes, _encoder_note(backbone, inversion)]
    learns_a_word = inversion.setup == "pivotal" or inversion.setup not in BASELINES
    if learns_a_word and isinstance(getattr(backbone, "denoiser", None), Compiled):
        notes = [*notes, "the first step compiles the denoiser, which takes a minute or two"]
    plain = plain_settings(config)
    plan = {
        "config": plain,
        "family": backbone.family,
        "device": str(backbone.device),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "memory": backbone.memory,
        "preset_validated": is_validated(inversion.preset, backbone.family),
        "learning_rate": rates,
        "pictures": list(pictures.names),
        "sizes": _sizes(pictures),
        "skipped": [str(item) for item in pictures.skipped],
        "captions": captions is not None,
        "masks": pictures.masks is not None,
        "notes": notes + _tuning_notes(inversion),
        "num_samples": inversion.total_steps * inversion.train_batch_size,
    }
    digest = hashlib.sha256(pictures.pixels.contiguous().numpy().tobytes())
    digest.update(json.dumps(captions).encode())
    if form(inversion).described and described is not None:
        digest.update(json.dumps(dataclasses.asdict(described)).encode())
    if pictures.sizes is not None:
        digest.update(json.dumps(pictures.sizes.tolist()).encode())
    if pictures.masks is not None:
        digest.update(pictures.masks.contiguous().numpy().tobytes())
    record = {
        "kind": "train",
        "config": plain,
        "pictures": list(pictures.names),
        "pictures_sha256": digest.hexdigest(),
        "versions": versions(),
        **weights.told(backbone.name),
    }
    if inversion.initializer == "encoder":
        record["encoder_sha256"] = encoder_for(backbone, inversion).sha256()
    if inversion.initializer_file is not None:
        record["initializer_sha256"] = load_concept(inversion.initializer_file).sha256()
    return Prepared(config, backbone, job, plan, record)


def _encoder_note(backbone: Backbone, inversion: ResolvedConfig) -> str:
    """A sentence about what an encoder does for the word."""
    about = encoder_for(backbone, inversion).about
    told = f"the encoder, of {about.trained.get('things', '?')} things on {about.model}"
    if inversion.form == "encoder":
        return f"the word is what {told}, makes of the pictures: there is nothing to train"
    return f"the word starts from what {told}, makes of the pictures"


def _processes_notes(count: int, inversion: ResolvedConfig) -> list[str]:
    """A sentence about how processes share a step.

    Raises:
        JobError: they cannot share it.
    """
    batch = inversion.train_batch_size
    if count == 1:
        return []
    if inversion.setup in BASELINES:
        raise JobError(
            f"Cannot use {count} processes with setup {inversion.setup} because it changes the "
            "model's weights; leave out --num-processes."
        )
    if count > batch:
        raise JobError(
            f"num_processes must be at most train_batch_size, {batch}, because each step's batch "
            f"is shared, got {count}; pass --train-batch-size {count} for one sample per process."
        )
    shares = [len(Processes(rank, count).share(batch)) for rank in range(count)]
    each = f"{shares[0]}" if len({*shares}) == 1 else f"{min(shares)} or {max(shares)}"
    return [f"{count} processes share each step's {batch} samples, {each} per process"]


def _with_prompts(config: TrainConfig) -> TrainConfig:
    """The run with the prompts of its previews, from lists, files and templates.

    Raises:
        PromptError: a list or file is missing, or a prompt lacks the placeholder.
    """
    token = config.inversion.placeholder_token
    kinds = {token: config.inversion.learnable_property}
    prompts = expanded(config.validation_prompts, kinds)
    for prompt in prompts:
        as_template(prompt, token)
    return dataclasses.replace(config, validation_prompts=prompts)


def _sizes(pictures: PictureSet) -> list[str]:
    """Width and height of each picture in training, in px."""
    count, _, height, width = pictures.pixels.shape
    sizes = [[height, width]] * count if pictures.sizes is None else pictures.sizes.tolist()
    return [f"{w} x {h}" for h, w in sizes]


def _tuning_notes(inversion: ResolvedConfig) -> list[str]:
    """A sentence about what a setup that changes weights will do."""
    if inversion.setup not in BASELINES:
        return []
    own = inversion.resolved_tuning
    what = {
        "full": "every weight of the denoiser",
        "lora": f"a LoRA of rank {own.rank} of the denoiser's attention",
        "kv": "the denoiser's keys and values of the text",
    }[own.tuned_weights]
    prior = ""
    if own.prior_loss_weight:
        source = own.class_data_dir or f"{own.num_class_images} drawn ones"
        prior = f", plus the same number of class pictures ({source})"
    then = "then " if inversion.setup == "pivotal" else ""
    return [
        f"{inversion.setup}: {then}{own.tuning_steps} steps of {inversion.train_batch_size} "
        f"samples{prior} train {what}, at learning rate {own.tuning_learning_rate:.3g}"
    ]


def _check_words(
    backbone: Backbone, job: Job, config: ResolvedTrainConfig, asked: TrainConfig
) -> None:
    """Check the initialiser, the placeholder, and the length of sentences.

    Raises:
        UserError: one of them cannot be used.
    """
    inversion, own = config.inversion, form(config.inversion)
    choices = checked(backbone, job, inversion, own.prompts)
    sentences = every_sentence(choices, inversion, own.against)
    token = inversion.placeholder_token
    if config.validation_steps or asked.validation_prompts:
        sentences += [as_template(prompt, token) for prompt in config.validation_prompts]
    words, others = longest_words(backbone, job, inversion)
    if config.validation_steps:
        check_negative_prompt(config.validation_negative_prompt, words)
        negatives = filter(None, [config.validation_negative_prompt, words[0].negative_token])
        drawn = SamplingConfig(
            negative_prompt=", ".join(negatives),
            sampler=sampler_of(inversion.preset, backbone.family),
            height=config.validation_height,
            width=config.validation_width,
        )
        backbone.check_sampling(drawn)
        backbone.check_prompts(config.validation_prompts, drawn)
    with injected(backbone, words, replace=config.replace):
        check_fit(
            backbone,
            sentences,
            partial(filled, token=token, others=others),
            token=token,
            others=others,
        )
    if inversion.vectors_at == "output":  # for which rows stood in above
        noun = inversion.initializer_token or nouns_for(backbone, job.name, inversion)[0]
        own.rows(backbone, job, dataclasses.replace(inversion, initializer_token=noun))


def _captions(
    pictures: PictureSet, token: str, *, prefix: bool
) -> tuple[list[str] | None, list[str]]:
    """The captions, if every picture has one; and a message about them."""
    given = [caption for caption in pictures.captions or () if caption]
    if not given:
        return None, []
    if len(given) < len(pictures.names):
        return None, [
            f"{len(given)} of {len(pictures.names)} pictures have a caption; captions are used "
            "only if every picture has one, so templates are used instead."
        ]
    if prefix:
        given = [with_word(c, token) for c in given]
    for caption in given:
        as_template(caption, token)
    return given, []
