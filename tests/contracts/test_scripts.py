"""diffusers' training commands as printed: uploaded when learned, and saved as a whole pipeline."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

import hub_server
import tiny
from oneword.cli.main import main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError, UserError
from oneword.generation.generate import check_words
from oneword.models import full_pipeline
from oneword.models.full_pipeline import check_full_pipeline, save_full_pipeline
from oneword.models.loading import load_backbone
from oneword.vocabulary.inject import injected


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
SCRIPTS = json.loads(Path(__file__).parents[1].joinpath("data", "diffusers.json").read_text())[
    "scripts"
]
SMALL = {
    "resolution": "32", "train_batch_size": "1", "gradient_accumulation_steps": "2",
    "max_train_steps": "2", "lr_warmup_steps": "0", "validation_steps": "2",
    "num_validation_images": "1", "placeholder_token": "<cat-toy>", "initializer_token": "cat",
    "validation_prompt": "a photo of a <cat-toy>", "seed": "7", "report_to": "csv",
    "revision": "main", "variant": "fp16", "hub_model_id": "me/cat-toy",
    "resume_from_checkpoint": "latest", "checkpoints_total_limit": "2", "tokenizer_name": "any",
    "validation_epochs": "1",
}  # fmt: skip
"""In place of the scripts' defaults, or where they have none."""


def command(script, **paths):
    """Every option of a script, with its default where nothing smaller will do."""
    words = []
    for name, option in SCRIPTS[script].items():
        value = paths.get(name, SMALL.get(name, option.get("default")))
        if value is None and option["type"] != "flag":
            continue
        words += [f"--{name}"] if option["type"] == "flag" else [f"--{name}={value}"]
    return words


def row_of(pipeline, encoder, tokenizer, token):
    table = getattr(pipeline, encoder).get_input_embeddings().weight
    return table[getattr(pipeline, tokenizer).convert_tokens_to_ids(token)].detach()


@pytest.mark.parametrize(
    ("script", "family", "encoders"),
    [
        (
            "textual_inversion.py",
            "stable_diffusion",
            {"clip": ("text_encoder", "tokenizer")},
        ),
        (
            "textual_inversion_sdxl.py",
            "sdxl",
            {
                "clip_l": ("text_encoder", "tokenizer"),
                "clip_g": ("text_encoder_2", "tokenizer_2"),
            },
        ),
    ],
)
def test_a_script_with_all_its_options_runs_under_our_name(
    script, family, encoders, server, photos, tmp_path, capsys
):
    model, run = tmp_path / "model", tmp_path / "run"
    tiny.make(family).save_pretrained(model, variant="fp16")
    words = command(
        script, pretrained_model_name_or_path=model, train_data_dir=photos, output_dir=run,
        hub_token=hub_server.TOKEN,
    )  # fmt: skip
    assert main(["train", *words]) == 0
    out, err = capsys.readouterr()
    assert "not an option here" not in err
    assert "--repeats is not needed here" in err
    assert f"Uploaded to {server.address}/me/cat-toy" in out
    files = server.repositories["me/cat-toy"]
    assert set(files) == {"learned_embeds.safetensors", "README.md", "preview.png"}
    assert files["learned_embeds.safetensors"] == (run / formats.LEARNED).read_bytes()
    card = files["README.md"].decode()
    assert "`<cat-toy>`" in card
    assert "preview.png" in card
    told = [p.read_text() for p in run.iterdir() if p.suffix in (".json", ".html", ".md")]
    assert len(told) >= 3
    assert not any(hub_server.TOKEN in text for text in told)

    concept = formats.load_concept(run)
    stock = DiffusionPipeline.from_pretrained(run)
    for name, (encoder, tokenizer) in encoders.items():
        assert torch.equal(row_of(stock, encoder, tokenizer, "<cat-toy>"), concept.rows[name][0])
    ours = load_backbone(ModelConfig(model=str(model), variant="fp16", device="cpu"))
    saved = load_backbone(ModelConfig(model=str(run), device="cpu"))
    check_words(saved, ["a <cat-toy> on the moon"], [])  # warns of no strange word
    with pytest.warns(UserWarning, match="'<dog-toy>' is not a loaded word"):
        check_words(saved, ["a <dog-toy> on the moon"], [])
    prompts = ["a <cat-toy> on the moon", "a cat"]
    with torch.no_grad(), injected(ours, [concept]):
        wanted = ours.encode_prompt(prompts)
    with torch.no_grad():
        found = saved.encode_prompt(prompts)
    assert torch.allclose(wanted.encoder_hidden_states, found.encoder_hidden_states, atol=1e-6)
    if wanted.pooled is not None:
        assert torch.allclose(wanted.pooled, found.pooled, atol=1e-6)


# --- the upload


@pytest.fixture
def training(photos, tiny_folder, tmp_path):
    return [
        "train", "--model", str(tiny_folder), "--train-data-dir", str(photos),
        "--output-dir", str(tmp_path / "run"), "--initializer-token", "cat",
        "--max-train-steps", "1", "--train-batch-size", "1", "--num-evaluation-samples", "1",
        "--validation-steps", "0",
    ]  # fmt: skip


def test_an_upload_that_fails_leaves_the_word_and_says_how_to_repeat_it(
    server, token, training, tmp_path, capsys, monkeypatch
):
    right = server.address
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main([*training, "--push_to_hub"]) == 1
    err = capsys.readouterr().err
    assert "but not uploaded: Cannot reach the Hub to upload run" in err
    again = shlex.split(err.rpartition("To upload it: ")[2])
    assert again == ["oneword", "concept", "push", str(tmp_path / "run"), "run"]
    assert formats.load_concept(tmp_path / "run").placeholder_token == "S*"
    monkeypatch.setenv("HF_ENDPOINT", right)
    assert main(again[1:]) == 0
    assert set(server.repositories["me/run"]) == {"learned_embeds.safetensors", "README.md"}
    assert "--concepts me/run" in server.repositories["me/run"]["README.md"].decode()
    # the same command uploads it, too, without training again
    del server.repositories["me/run"]
    assert main([*training, "--push_to_hub"]) == 0
    out, err = capsys.readouterr()
    assert "has already finished" in " ".join(err.split())
    assert f"Uploaded to {right}/me/run" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hub_model_id", "me/cat"], "Cannot upload to the Hub without a token that may write"),
        (["--hub_token", "x", "--hub_model_id", "a/b/c"], "must be OWNER/NAME, or NAME for"),
        (["--hub_token", "x", "--hub_model_id", "my cat"], "must be OWNER/NAME, or NAME for"),
    ],
)
def test_what_cannot_be_uploaded_is_refused_before_training(
    server, training, words, message, tmp_path, capsys
):
    assert main([*training, "--push_to_hub", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_readme_of_somebodys_is_refused_before_training(server, training, tmp_path, capsys):
    assert main(training) == 0
    (tmp_path / "run" / "README.md").write_text("mine")
    assert main([*training, "--push_to_hub", "--hub_token", "x"]) == 2
    assert "because it is not a card by oneword" in capsys.readouterr().err
    assert (tmp_path / "run" / "README.md").read_text() == "mine"


def test_many_words_at_once_are_not_uploaded(photos, capsys, tmp_path):
    for option in ("--push_to_hub", "--save_as_full_pipeline"):
        assert main(["train", "--jobs", str(photos.parent), option]) == 2
        assert f"{option.replace('_', '-')} is not an option here" in capsys.readouterr().err
    jobs = tmp_path / "jobs.toml"
    jobs.write_text(f'[[jobs]]\ntrain_data_dir = "{photos}"\npush_to_hub = true\n')
    assert main(["train", "--jobs", str(jobs)]) == 2
    assert "Cannot set push_to_hub for each job" in capsys.readouterr().err


# --- the whole pipeline


def words_for(backbone, num_vectors, *tokens):
    rng = torch.Generator().manual_seed(num_vectors)
    return [
        Concept(
            placeholder_token=token,
            rows={
                n: 0.05 * torch.randn(num_vectors, v.dim, generator=rng)
                for n, v in backbone.vocabularies.items()
            },
        )
        for token in tokens
    ]


def state(backbone):
    """The bits of every text encoder."""
    return {
        f"{name}.{key}": value.clone()
        for name, vocabulary in backbone.vocabularies.items()
        for key, value in vocabulary.text_encoder.state_dict().items()
    }


@pytest.mark.parametrize(
    ("family", "num_vectors", "word"),
    [
        ("stable_diffusion", 3, "<My-Cat>"),
        ("sdxl", 3, "<My-Cat>"),
        ("flux", 3, "<My-Cat>"),
        ("sd3", 1, "<My-Cat>"),
        ("sana", 1, "<my-cat>"),  # Gemma; its pipeline writes prompts small
        ("cosmos2", 1, "<my-cat>"),  # drawn here by a solver of ours
        ("qwen_image", 1, "<My-Cat>"),  # whose table has rows to spare
    ],
)
def test_a_saved_pipeline_reads_words_as_we_do_and_ours_stays_as_it_was(
    family, num_vectors, word, tmp_path
):
    folder = tiny.save(tiny.make(family), tmp_path / "model")
    ours = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    bits, rng = state(ours), torch.get_rng_state()
    config = InversionConfig(placeholder_token=word, num_vectors=num_vectors)
    check_full_pipeline(ours, config.resolved(ours.family), tmp_path / "out")
    words = words_for(ours, num_vectors, word, "toy9")
    assert save_full_pipeline(ours, words, tmp_path / "out") == tmp_path / "out"
    after = state(ours)
    assert after.keys() == bits.keys()
    assert all(torch.equal(after[key], bits[key]) for key in bits)
    assert torch.equal(torch.get_rng_state(), rng)
    prompts = [f"a photo of a {word} next to my toy9 on the moon"]
    scheduler = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler == json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    saved = load_backbone(ModelConfig(model=str(tmp_path / "out"), device="cpu"))
    with torch.no_grad(), injected(ours, words):
        wanted = ours.encode_prompt(prompts)
    with torch.no_grad():
        found = saved.encode_prompt(prompts)
        plain = saved.encode_prompt(["a photo of a cat"])
        before = ours.encode_prompt(["a photo of a cat"])
    for one, other in ((wanted, found), (before, plain)):
        for a, b in zip(full_pipeline._tensors(one), full_pipeline._tensors(other), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"setup": "xti"}, r"save_as_full_pipeline with form xti"),
        ({"setup": "lora-dreambooth"}, r"save_as_full_pipeline with setup lora-dreambooth"),
        ({"vectors_at": "output"}, r"save_as_full_pipeline with vectors_at 'output'"),
    ],
)
def test_words_that_are_more_than_rows_are_refused_before_training(
    settings, message, tiny_sd, tmp_path
):
    config = InversionConfig(**settings).resolved(tiny_sd.family)
    with pytest.raises(ModelError, match=message):
        check_full_pipeline(tiny_sd, config, tmp_path / "out")


@pytest.mark.parametrize(
    ("family", "word", "num_vectors", "message"),
    [
        ("sana", "<Cat>", 1, "it reads '<Cat>' differently .*; a token in lower case may"),
        (
            "ldm",
            "<cat>",
            1,
            r"its text encoder cannot take a new token \(ValueError: to_logits has one output",
        ),
        (
            "prx",
            "<cat>",
            1,
            "diffusers can save its text_encoder, a T5GemmaEncoder, but not load",
        ),
        ("kolors", "catx", 1, "it reads 'catx' differently than training does; leave out"),
        (
            "sd3",
            "<cat>",
            2,
            r"it would read only one of the word's 2 vectors \(pass --num-vectors 1\)",
        ),
    ],
)
def test_families_that_cannot_hold_a_word_are_refused_before_training(
    family, word, num_vectors, message, tmp_path
):
    folder = tiny.save(tiny.make(family), tmp_path / "model")
    backbone = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    bits = state(backbone)
    config = InversionConfig(placeholder_token=word, num_vectors=num_vectors)
    with pytest.raises(ModelError, match=message):
        check_full_pipeline(backbone, config.resolved(backbone.family), tmp_path / "out")
    assert all(torch.equal(value, bits[key]) for key, value in state(backbone).items())


def test_a_refused_pipeline_ends_the_command_before_anything_is_written(training, tmp_path, capsys):
    assert main([*training, "--save_as_full_pipeline", "--setup", "neti"]) == 2
    assert "save_as_full_pipeline with form neti" in capsys.readouterr().err
    assert main([*training, "--save_as_full_pipeline", "--mirror", str(tmp_path / "m")]) == 2
    assert "save_as_full_pipeline with --mirror" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_sentence(tiny_sd, tmp_path, monkeypatch):
    config = InversionConfig(placeholder_token="<cat>").resolved(tiny_sd.family)
    usage = full_pipeline.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(full_pipeline.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(
        UserError, match=r"GB of free disk space for the pipeline, got 0\.0 GB; free some"
    ):
        check_full_pipeline(tiny_sd, config, tmp_path / "out")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny_sd.pipeline, "save_pretrained", full)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / full_pipeline.INDEX).write_text("{}")
    check_full_pipeline(tiny_sd, config, tmp_path / "out")  # it is written over
    with pytest.raises(UserError, match=r"Cannot write the pipeline to .*: .*No space left"):
        save_full_pipeline(tiny_sd, words_for(tiny_sd, 1, "<cat>"), tmp_path / "out")
    assert not (tmp_path / "out" / full_pipeline.INDEX).exists()
