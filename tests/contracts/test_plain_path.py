"""The fast loop against textual inversion written out plainly, with nothing cached or shared."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch

import tiny
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.models.loading import load_backbone
from oneword.models.speed import few_cells
from oneword.prompts import TEMPLATES
from oneword.training.draws import step_draws
from oneword.training.job import Job
from oneword.training.loop import invert_many
from oneword.training.parts import squared_error


STEPS, BATCH, RATE = 20, 4, 5e-3


def job(seed):
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    config = InversionConfig(
        placeholder_token=f"<w{seed}>", initializer_token="cat", max_train_steps=STEPS,
        train_batch_size=BATCH, evaluation_steps=5, num_evaluation_samples=4,
        learning_rate=RATE, prompt_templates="release27", random_flip=True, seed=seed,
    )  # fmt: skip
    return Job(name=f"w{seed}", pictures=pictures, config=config)


def plain_losses(task):
    """As diffusers' script does it: the table grows by a row, every sample is encoded anew.

    Every picture goes through the VAE and every prompt through the text encoder in every step, and
    AdamW runs over the whole table, whose other rows are put back.
    """
    pipeline = tiny.make("stable_diffusion")
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder.eval()
    (cat,) = tokenizer("cat", add_special_tokens=False).input_ids
    tokenizer.add_tokens(["<new>"])
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[-1] = table[cat]
    frozen = table.detach().clone()
    optimizer = torch.optim.AdamW([table], lr=RATE, weight_decay=0.0)
    templates = TEMPLATES["release27"]
    losses = []
    for step in range(STEPS):
        draws = step_draws(
            task.config.seed, step, BATCH, len(task.pictures), (4, 16, 16), random_flip=True
        )
        pictures = torch.stack([
            task.pictures[i].flip(-1) if mirrored else task.pictures[i]
            for i, mirrored in zip(draws.pictures.tolist(), draws.flips.tolist(), strict=True)
        ])  # fmt: skip
        with torch.no_grad():
            posterior = pipeline.vae.encode(pictures).latent_dist
            x0 = (posterior.mean + posterior.std * draws.posterior_noise) * 0.18215
        t = (draws.times * 1000).long()
        x_t = pipeline.scheduler.add_noise(x0, draws.noise, t)
        prompts = [templates[int(u * len(templates))].format("<new>") for u in draws.sentences]
        ids = tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt").input_ids
        states = encoder(ids).last_hidden_state
        loss = (pipeline.unet(x_t, t, states).sample - draws.noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            table[:-1] = frozen[:-1]
        losses.append(float(loss.detach()))
    return losses


def losses_of(folder, tasks, **options):
    """Losses of every training step, by job."""
    found = {task.name: [] for task in tasks}

    def loss(prediction, target, samples):
        value = squared_error(prediction, target, samples)
        if torch.is_grad_enabled():
            found[samples.job.name].append(float(value.detach().mean()))
        return value

    backbone = load_backbone(ModelConfig(model=str(folder), device="cpu", dtype="fp32", **options))
    invert_many(backbone, tasks, slots=len(tasks), loss=loss)
    return found


@pytest.fixture(scope="module")
def plain():
    return plain_losses(job(0))


def test_the_loop_alone_equals_the_plain_path(tiny_folder, plain):
    assert losses_of(tiny_folder, [job(0)])["w0"] == pytest.approx(plain, rel=1e-4)


def test_a_word_among_others_equals_the_plain_path(tiny_folder, plain):
    tasks = [job(seed) for seed in (1, 0, 2)]
    assert losses_of(tiny_folder, tasks)["w0"] == pytest.approx(plain, rel=1e-4)


def test_with_convolutions_as_products_it_equals_the_plain_path(tiny_folder, plain, monkeypatch):
    """Every one of them, however many cells there are."""
    taken = []

    def has_few(self, x):
        taken.append(self)
        return True

    monkeypatch.setattr(few_cells.FewCells, "_has_few", has_few)
    assert losses_of(tiny_folder, [job(0)])["w0"] == pytest.approx(plain, rel=1e-4)
    assert len(set(taken)) > 10


@pytest.mark.slow
def test_the_compiled_loop_equals_the_plain_path(tiny_folder, plain):
    """Compiled once, for the batch of training, and found to agree with the plain denoiser.

    On a CPU torch 2.13 loses gradients (``benchmarks/compiled_gradients.py``), and this fails.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=DeprecationWarning)  # of the compiler itself
        warnings.filterwarnings("error", "The denoiser is not compiled")
        assert losses_of(tiny_folder, [job(0)], compile="on")["w0"] == pytest.approx(
            plain, rel=1e-4
        )


@pytest.mark.slow
def test_compiled_or_refused_the_losses_are_the_plain_path(tiny_folder, plain):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        losses = losses_of(tiny_folder, [job(0)], compile="on")["w0"]
    assert losses == pytest.approx(plain, rel=1e-4)


def test_the_comparison_can_fail(tiny_folder, plain):
    """A learning rate a tenth higher moves the losses further than the tolerance."""
    task = job(0)
    config = dataclasses.replace(task.config, learning_rate=1.1 * RATE)
    other = losses_of(tiny_folder, [dataclasses.replace(task, config=config)])["w0"]
    assert other[:1] == pytest.approx(plain[:1], rel=1e-4)
    assert other != pytest.approx(plain, rel=1e-4)
