"""The batches of a job: its pictures, encoded once, with the noise of each step's draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from oneword._devices import sent
from oneword.config.inversion import ResolvedConfig
from oneword.models.contract import Backbone, Moments
from oneword.training import extensions
from oneword.training.draws import Draws, evaluation_draws, step_draws
from oneword.training.extensions import wording
from oneword.training.grounds import check_grounds, on_grounds
from oneword.training.job import Job, JobError
from oneword.training.parts import AgainstPart, PromptsPart
from oneword.training.samples import Batch, Choices, Samples
from oneword.training.sizes import check_sizes


_ENCODE_CHUNK = 8  # pictures through the VAE at once; limits memory


class Bucket:
    """The pictures of a job with the same size, and their masks, encoded."""

    def __init__(self, backbone: Backbone, job: Job, config: ResolvedConfig) -> None:
        """Encode them.

        Args:
            backbone: The frozen model.
            job: A job with only these pictures.
            config: The job's settings.
        """
        self.backbone, self.job, self.config = backbone, job, config
        self.views = extensions.VIEWS(job, config)
        height, width = job.pictures.shape[-2:]
        whole = torch.tensor([[height, width, 0, 0]] * len(job.pictures))
        self.crops = torch.stack([whole if v.crops is None else v.crops for v in self.views])
        self.posterior, self.places = self._encode()
        self.masks = self._shrink_masks()

    @torch.no_grad()
    def _encode(self) -> tuple[Moments, Tensor]:
        """Posterior of each picture, then of each mirror image, on each background, by view.

        Returns:
            The posterior, and the position of each (view, ground, mirrored, picture) in it.
        """
        shown: list[Tensor] = []
        places: list[Tensor] = []
        for view in self.views:
            own, at = on_grounds(view, self.config, self.backbone.family)
            places.append(at + sum(map(len, shown)))
            shown.append(own)
        chunks = torch.cat(shown).split(_ENCODE_CHUNK)
        parts = [self.backbone.encode_image(chunk) for chunk in chunks]
        moments = Moments(torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts]))
        return moments, torch.stack(places)

    def _shrink_masks(self) -> Tensor | None:
        """The mask of each picture in latent cells, then of each mirror image, by view."""
        found: list[Tensor] = []
        for masks in (view.masks for view in self.views if view.masks is not None):
            found += [masks, masks.flip(-1)] if self.config.random_flip else [masks]
        if not found:
            return None
        cells = F.interpolate(torch.cat(found), self.latent_shape[1:], mode="area")
        return cells.to(self.backbone.device)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, h, w) of one sample."""
        channels, height, width = self.posterior.mean.shape[1:]
        return channels, height, width

    def noised(
        self, draws: Draws, times: Tensor, own: Tensor, pictures: Tensor, job: Job
    ) -> Samples:
        """Add noise to the pictures chosen by the draws.

        Args:
            draws: Draws of a step, or of the fixed batch.
            times: Timestep of each sample.
            own: Indices of the samples with pictures of this size.
            pictures: Index of each one's picture here.
            job: The samples' job.
        """
        backbone, device = self.backbone, self.backbone.device
        _, height, width = self.latent_shape
        flips, views = draws.flips[own].long(), draws.views[own]
        posterior_noise, noise = (
            sent(whole[own][..., :height, :width], device)
            for whole in (draws.posterior_noise, draws.noise)
        )
        x0_at = sent(self.places[views, draws.grounds[own], flips, pictures], device)
        x0 = self.posterior[x0_at].sample(posterior_noise)
        side = flips + (2 if self.config.random_flip else 1) * views
        masks_at = sent(pictures + len(self.job.pictures) * side, device)
        t = backbone.sample_t(sent(times[own], device), (height, width))
        return Samples(
            job=job,
            pictures=draws.pictures[own],
            flips=draws.flips[own],
            t=t,
            x0=x0,
            noise=noise,
            x_t=backbone.add_noise(x0, noise, t),
            crops=self.crops[views, pictures],
            mask=None if self.masks is None else self.masks[masks_at],
        )


class Batches:
    """Pictures, masks and sentences of a job, and the batches that are drawn from them."""

    def __init__(
        self,
        backbone: Backbone,
        job: Job,
        config: ResolvedConfig,
        *,
        prompts: PromptsPart,
        against: AgainstPart | None = None,
    ) -> None:
        """Read the job and make its fixed batch.

        Args:
            backbone: The frozen model.
            job: Its pictures, masks and crops.
            config: The job's settings.
            prompts: Gives the sentences of each picture.
            against: Gives the sentence that a sample is guided away from.

        Raises:
            UserError: the job cannot be trained with these settings.
        """
        self.backbone, self.job, self.config, self.against = backbone, job, config, against
        self.sentences = checked(backbone, job, config, prompts)
        self.buckets: list[Bucket] = []
        self._at = torch.zeros(len(job.pictures), 2, dtype=torch.long)  # bucket, place in it
        for number, (own, part) in enumerate(job.by_size()):
            self.buckets.append(Bucket(backbone, part, config))
            self._at[own] = torch.stack(
                [torch.full((len(own),), number), torch.arange(len(own))], 1
            )
        draws = evaluation_draws(
            config.seed,
            config.num_evaluation_samples,
            len(job.pictures),
            self.latent_shape,
            self._num_grounds,
        )
        self.fixed = self.noised(draws, draws.times, alone=True)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, h, w) that is large enough for samples of every size."""
        shapes = [bucket.latent_shape for bucket in self.buckets]
        channels, height, width = (max(sides) for sides in zip(*shapes, strict=True))
        return channels, height, width

    @property
    def _num_grounds(self) -> int:
        return self.buckets[0].places.shape[1]

    def draws(self, step: int) -> Draws:
        """The draws of the job's own step, with noise as its settings change it."""
        draws = step_draws(
            self.config.seed,
            step,
            self.config.train_batch_size,
            len(self.job.pictures),
            self.latent_shape,
            random_flip=self.config.random_flip,
            num_grounds=self._num_grounds,
            num_views=len(self.buckets[0].views),
        )
        return dataclasses.replace(
            draws, noise=extensions.NOISE(draws.noise, draws.offsets, self.config)
        )

    def noised(self, draws: Draws, times: Tensor, *, alone: bool = False) -> list[Batch]:
        """Add noise to the pictures chosen by the draws; those of one size form one batch.

        Args:
            draws: Draws of a step, or of the fixed batch.
            times: Time of each sample, in [0, 1), before the family's own mapping to timesteps.
            alone: For the fixed batch: use no extra words and no changes of sentences and loss by
                the settings, so that losses are comparable.
        """
        choices = [self.sentences[picture] for picture in draws.pictures.tolist()]
        sentences = [
            c.at(u, alone=alone) for c, u in zip(choices, draws.sentences.tolist(), strict=True)
        ]
        if not alone:
            sentences = [
                extensions.WORDING(sentence, seed, self.config)
                for sentence, seed in zip(sentences, draws.wordings.tolist(), strict=True)
            ]
        numbers, places = self._at[draws.pictures].unbind(1)
        found = []
        for number in sorted({*numbers.tolist()}):
            own = (numbers == number).nonzero()[:, 0]
            samples = self.buckets[number].noised(draws, times, own, places[own], self.job)
            for told in () if alone else extensions.SAMPLES:
                samples = told(samples, self.backbone, self.config)
            target = self.backbone.target(samples.x0, samples.noise, samples.t)
            found.append(self._batch([sentences[i] for i in own.tolist()], target, samples))
        return found

    def _batch(self, sentences: list[str], target: Tensor, samples: Samples) -> Batch:
        away = self.against
        if away is None:
            return Batch(sentences, target, samples)
        against = [away(sentence, self.config) for sentence in sentences]
        return Batch(sentences, target, samples, against, self.config.training_guidance_scale)


def checked(
    backbone: Backbone, job: Job, config: ResolvedConfig, prompts: PromptsPart
) -> list[Choices]:
    """The sentences of each picture of a job, after checking that its parts fit together.

    Raises:
        UserError: the job cannot be trained with these settings.
    """
    sentences = [c if isinstance(c, Choices) else Choices(tuple(c)) for c in prompts(job, config)]
    name, count = job.name, len(job.pictures)
    if count == 0:
        raise JobError(f"Job {name!r} must have at least one picture, got none.")
    if len(sentences) != count or not all(c.sentences for c in sentences):
        raise JobError(
            f"The prompts of job {name!r} must have one or more sentences for each of its {count} "
            f"pictures, got {[len(choices.sentences) for choices in sentences]}."
        )
    most = backbone.micro_batch_size
    if most is not None and most < config.train_batch_size and config.train_batch_size % most:
        fitting = [n for n in range(1, most) if config.train_batch_size % n == 0]
        raise JobError(
            f"micro_batch_size must divide train_batch_size, got {most} for "
            f"{config.train_batch_size}; use {fitting[-1]}."
        )
    unknown = set(config.train_encoders) - backbone.vocabularies.keys()
    if unknown:
        raise JobError(
            f"train_encoders must name text encoders of the model "
            f"({', '.join(backbone.vocabularies)}), got {', '.join(sorted(unknown))}."
        )
    check_grounds(job, config, backbone.family)
    if job.masks is not None and len(job.masks) != count:
        raise JobError(
            f"Job {name!r} must have one mask for each of its {count} pictures, got "
            f"{len(job.masks)}."
        )
    if job.crops is not None and job.crops.shape != (count, 4):
        raise JobError(
            f"Job {name!r} must have four numbers of crop for each of its {count} pictures, got "
            f"{tuple(job.crops.shape)}."
        )
    check_sizes(backbone, job)
    for sentence in every_sentence(sentences, config, None):
        if "{}" not in sentence:
            raise JobError(
                f"Every sentence of job {name!r} must contain '{{}}' in place of the new word, "
                f"got {sentence!r}."
            )
    wording.check(name, [s for c in sentences for s in c], config)
    return sentences


def every_sentence(
    sentences: Sequence[Choices], config: ResolvedConfig, against: AgainstPart | None
) -> list[str]:
    """Every sentence that is used with a sample, once, in alphabetical order."""
    found = {sentence for choices in sentences for sentence in choices}
    found |= {other for sentence in found for other in wording.longest(sentence, config)}
    if against is not None:
        found |= {against(sentence, config) for sentence in found}
    return sorted(found)
