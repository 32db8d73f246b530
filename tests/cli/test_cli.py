"""The command line as a person types it: options, exit codes, what is printed and written."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

import layouts
import png_texts
from oneword.catalog import FAMILIES
from oneword.cli import options
from oneword.cli.arguments import EvaluateArguments, ModelsArguments, TrainArguments
from oneword.cli.main import VERBS, main
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.model import ModelConfig
from oneword.errors import ConfigError
from oneword.evaluation import metrics
from oneword.evaluation.features import load_judge
from oneword.images import read_folder
from oneword.models.loading import load_backbone


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    (folder / "table.csv").write_text("1,2")
    return folder


@pytest.fixture
def word(tmp_path, tiny_sd):
    rows = tiny_sd.vocabularies["clip"].rows_of("red cat")
    concept = Concept(
        placeholder_token="S*", rows={"clip": rows}, provenance={"initializer_token": "cat"}
    )
    formats.save_concept(concept, tmp_path / "word.safetensors")
    return tmp_path / "word.safetensors"


@pytest.fixture
def training(photos, tiny_folder, tmp_path):
    return [
        "train", "--model", str(tiny_folder), "--train-data-dir", str(photos),
        "--output-dir", str(tmp_path / "run"), "--initializer-token", "cat",
        "--max-train-steps", "4", "--train-batch-size", "2", "--evaluation-steps", "2",
        "--num-evaluation-samples", "4", "--validation-steps", "0",
    ]  # fmt: skip


# --- the whole road


def test_train_then_inspect_then_generate(training, tmp_path, capsys, tiny_folder):
    assert main([*training, "--json", str(tmp_path / "outcome.json")]) == 0
    out, err = capsys.readouterr()
    assert "To draw with it" in out
    assert "skipped table.csv" in err
    assert "published values, not validated here" in err
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert outcome["status"] == "finished"
    assert [step for step, _ in outcome["losses"]] == [0, 2, 4]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "0.png" in report
    assert "oneword train" in report

    assert main(["concept", "inspect", str(tmp_path / "run"), "--nearest", "3", "--model",
                 str(tiny_folder), "--json", str(tmp_path / "facts.json")]) == 0  # fmt: skip
    (facts,) = json.loads((tmp_path / "facts.json").read_text())
    assert facts["placeholder_token"] == "S*"
    assert facts["nearest"]["clip"][0][0][0] == "cat</w>"
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    course = [[m["step"], m["word_distance"]] for m in map(json.loads, metrics)]
    assert facts["word_distance_over_training"] == course
    assert [step for step, _ in course] == [0, 2, 4]
    shown = re.findall(r"^ +step +(\d+) +([0-9.]+) +(#*)$", capsys.readouterr().out, re.M)
    assert [(int(s), float(d)) for s, d, _ in shown] == [(s, round(d, 3)) for s, d in course]
    bars = [len(bar) for *_, bar in shown]
    assert bars[0] == 0
    assert 0 < bars[1] < bars[2] == 30
    assert "distance to the nearest words" in report
    kept = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"\xff")
    assert main(["concept", "inspect", str(tmp_path / "run")]) == 0
    # lines are broken anywhere in a long path
    assert "metrics.jsonlmustbetextinUTF-8" in "".join(capsys.readouterr().out.split())
    (tmp_path / "run" / "metrics.jsonl").write_bytes(kept)

    assert main(["generate", "--model", str(tiny_folder), "--concepts", str(tmp_path / "run"),
                 "--prompts", "a S*", "a S* on the moon", "--num-images-per-prompt", "2",
                 "--num-inference-steps", "1", "--output-dir", str(tmp_path / "out"),
                 "--json", str(tmp_path / "pictures.json")]) == 0  # fmt: skip
    pictures = json.loads((tmp_path / "pictures.json").read_text())
    assert [p["seed"] for p in pictures] == ["0", "1", "0", "1"]
    assert png_texts.read(tmp_path / "out" / "000-a-s-seed0.png")["prompt"] == "a S*"
    assert (tmp_path / "out" / "contact-sheet.png").exists()


def test_the_diffusers_scripts_command_works_with_another_name(
    photos, tiny_folder, tmp_path, capsys
):
    command = f"""
        --pretrained_model_name_or_path={tiny_folder} --train_data_dir={photos}
        --learnable_property=object --placeholder_token=<cat-toy> --initializer_token=cat
        --resolution=32 --train_batch_size=1 --gradient_accumulation_steps=2 --max_train_steps=3
        --learning_rate=5.0e-04 --scale_lr --lr_scheduler=constant --lr_warmup_steps=0
        --mixed_precision=no --seed=7 --output_dir={tmp_path / "run"} --center_crop --repeats=100
        --save_steps=500 --num_vectors=2 --validation_steps=0 --adam_beta1=0.9
        --enable_xformers_memory_efficient_attention --report_to=tensorboard --num_train_epochs 5
    """
    assert main(["train", *command.split()]) == 0
    err = capsys.readouterr().err
    assert "--repeats is not needed here" in err
    assert (
        "--gradient-accumulation-steps is the same as --train-batch-size 2 --micro-batch-size 1"
        in err
    )
    concept = formats.load_concept(tmp_path / "run")
    assert concept.placeholder_token == "<cat-toy>"
    assert concept.num_vectors == 2
    config = concept.provenance["config"]
    assert config["train_batch_size"] == 2
    assert config["scale_lr"]
    assert concept.provenance["learning_rate"]["clip"]["absolute"] == pytest.approx(1e-3)


def test_evaluate_scores_beside_references(word, photos, tiny_folder, tmp_path, capsys, judge):
    command = [
        "evaluate", "--concept", str(word), "--train-data-dir", str(photos), "--model",
        str(tiny_folder), "--judge", str(judge), "--plain-dir", str(photos),
        "--num-images-per-prompt", "2", "--num-inference-steps", "1", "--prompts",
        "a S* on the moon", "--output-dir", str(tmp_path / "scores"),
        "--json", str(tmp_path / "scores.json"),
    ]  # fmt: skip
    assert main(command) == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    assert list(found["scores"]) == ["concept", "initializer", "best noun", "training pictures"]
    assert found["words"]["initializer"] == "cat"
    assert found["edit_prompts"] == ["a {} on the moon"]
    out = capsys.readouterr().out
    assert all(text in out for text in ("text (code)", "initializer: cat", "training pictures"))
    assert "Pictures of the word" in (tmp_path / "scores" / "report.html").read_text()
    again = tmp_path / "again.json"
    assert main([*command[:-1], str(again)]) == 0
    assert json.loads(again.read_text()) == found


def test_weights_in_scored_prompts_are_drawn_and_no_text_for_the_judge(
    word, photos, tiny_folder, tmp_path, capsys, judge
):
    command = [
        "evaluate", "--concept", str(word), "--train-data-dir", str(photos), "--model",
        str(tiny_folder), "--judge", str(judge), "--num-images-per-prompt", "1",
        "--num-inference-steps", "1", "--output-dir", str(tmp_path / "scores"), "--prompts",
    ]  # fmt: skip
    assert main([*command, "a (S*:1.9) on the (moon:0.5)", "a S* on the moon"]) == 0
    found = json.loads((tmp_path / "scores" / "scores.json").read_text())["scores"]
    by_prompt = {name: list(own["by_prompt"].values()) for name, own in found.items()}
    weighted, plain = by_prompt["training pictures"]
    assert weighted == plain
    weighted, plain = by_prompt["concept"]
    assert weighted != plain
    capsys.readouterr()
    assert main([*command, "a (S*:9) on the moon"]) == 2
    err = capsys.readouterr().err
    assert "A weight must be in [0, 5], got 9" in err
    assert "drawing and scoring" not in err


def test_evaluate_takes_the_papers_protocol_and_says_what_is_not_its(
    word, photos, tiny_folder, tmp_path, capsys, judge, monkeypatch
):
    solvers, stock = [], DDIMScheduler.set_timesteps

    def watch(self, count, *rest, **options):
        solvers.append((self.config.set_alpha_to_one, self.config.steps_offset, count))
        return stock(self, count, *rest, **options)

    monkeypatch.setattr(DDIMScheduler, "set_timesteps", watch)
    noise = np.random.default_rng(9).integers(0, 255, (40, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "wide.png")
    command = [
        "evaluate", "--concept", str(word), "--train-data-dir", str(photos), "--model",
        str(tiny_folder), "--judge", str(judge), "--num-images-per-prompt", "1",
        "--output-dir", str(tmp_path / "scores"),
    ]  # fmt: skip
    assert main([*command, "--preset", "paper", "--prompts", "paper:fig5", "a {} in a box"]) == 0
    assert set(solvers) == {(False, 1, 50)}
    found = json.loads((tmp_path / "scores" / "scores.json").read_text())
    protocol = found["protocol"]
    assert found["photo_prompt"] == "a photo of {}"
    assert found["edit_prompts"] == [
        "A photo of {} on the beach", "A photo of {} on the moon", "Elmo holding a {}",
        "a {} in a box",
    ]  # fmt: skip
    assert set(protocol["paper_has"]) == {"num_images_per_prompt", "judge", "edit_prompts"}
    backbone = load_backbone(ModelConfig(model=str(tiny_folder), device="cpu"))
    pictures = read_folder(photos, resolution=32, fit="squash", interpolation="bicubic")
    own = metrics.self_similarity(load_judge(str(judge), backbone).images(pictures.pixels))
    assert found["scores"]["training pictures"]["image_similarity"] == pytest.approx(own, abs=1e-6)
    out = " ".join(capsys.readouterr().out.split())
    assert "It is not the paper's, which has 64 pictures per prompt, judge openai/clip" in out
    assert "which has 64 pictures" in (tmp_path / "scores" / "report.html").read_text()
    assert main([*command, "--num-inference-steps", "1", "--prompts", "a S* on the moon"]) == 0
    assert "to use it, pass --preset paper" in capsys.readouterr().out


def test_the_papers_prompts_are_the_same_on_every_model(photos, tmp_path):
    rows = load_backbone(ModelConfig(model="microworld-nano", device="cpu")).vocabularies
    word = Concept(placeholder_token="S*", rows={n: v.rows_of("cat") for n, v in rows.items()})
    formats.save_concept(word, tmp_path / "word.safetensors")
    assert main([
        "evaluate", "--concept", str(tmp_path / "word.safetensors"), "--train-data-dir",
        str(photos), "--model", "microworld-nano", "--preset", "paper", "--num-images-per-prompt",
        "1", "--num-inference-steps", "1", "--output-dir", str(tmp_path / "scores"),
    ]) == 0  # fmt: skip
    found = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert found["photo_prompt"] == "a photo of {}"
    assert found["edit_prompts"][-1] == "Elmo holding a {}"
    assert found["protocol"]["preset"] == "paper"


def test_lists_of_prompts_are_for_words_of_their_kind(
    word, photos, tiny_folder, tmp_path, capsys, judge
):
    code = main([
        "evaluate", "--concept", str(word), "--train-data-dir", str(photos), "--model",
        str(tiny_folder), "--judge", str(judge), "--prompts", "paper:fig6",
        "--output-dir", str(tmp_path / "scores"),
    ])  # fmt: skip
    assert code == 2
    assert "must be filled with a word learned as style" in capsys.readouterr().err


@pytest.fixture
def judge(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    import tiny

    tokens = tiny.tokenizers.tokenizer()
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    config = CLIPConfig(
        text_config=size | {"vocab_size": len(tokens), "eos_token_id": tokens.eos_token_id},
        vision_config=size | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    CLIPModel(config).save_pretrained(tmp_path / "judge")
    tokens.save_pretrained(tmp_path / "judge")
    return tmp_path / "judge"


# --- options


def test_a_toml_file_and_the_command_line_over_it(training, tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text('max_train_steps = 99\nseed = 5\nlr-scheduler = "cosine"\nscale_lr = true\n')
    assert main([*training, "--config", str(path), "--dry-run"]) == 0
    inversion = json.loads(capsys.readouterr().out)["config"]["inversion"]
    assert inversion["max_train_steps"] == 4
    assert (inversion["seed"], inversion["lr_scheduler"], inversion["scale_lr"]) == (
        5,
        "cosine",
        True,
    )
    assert not (tmp_path / "run").exists()


def test_words_to_start_from_are_printed_the_best_first(training, tmp_path, capsys):
    assert main([*training, "--rank-initializers", "--json", str(tmp_path / "ranks.json")]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [loss for loss, _ in lines] == sorted(loss for loss, _ in lines)
    assert "cat" in [word for _, word in lines]
    ranks = json.loads((tmp_path / "ranks.json").read_text())
    assert [[f"{loss:.5f}", word] for word, loss in ranks.items()] == lines
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_train_stops = 3",
            "only known options, got max_train_stops; did you mean --max-train-steps?",
        ),
        ("= 3", "must be TOML"),
        (None, "readable TOML file"),
    ],
)
def test_a_bad_toml_file_is_refused(training, tmp_path, capsys, text, message):
    path = tmp_path / "run.toml"
    if text is not None:
        path.write_text(text)
    assert main([*training, "--config", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_config_option_without_a_file():
    with pytest.raises(ConfigError, match="followed by a TOML file"):
        options.parse(TrainArguments, "train", ["--config"])


@pytest.mark.parametrize("words", [["--scale-lr"], ["--scale-lr", "True"]])
def test_optional_flags_can_be_on_off_or_unset(words):
    base = ["--train-data-dir", "x"]
    assert options.parse(TrainArguments, "train", [*base, *words])[0].inversion.scale_lr is True
    off = options.parse(TrainArguments, "train", [*base, "--no-scale-lr"])[0]
    assert off.inversion.scale_lr is False
    assert options.parse(TrainArguments, "train", base)[0].inversion.scale_lr is None


def test_a_concept_can_be_renamed_where_it_is_used(word, tiny_folder, tmp_path, capsys):
    code = main(["generate", "--model", str(tiny_folder), "--concepts", str(word), f"{word}=<b>",
                 "--prompts", "a S* beside a <b>", "--num-images-per-prompt", "1",
                 "--num-inference-steps", "1", "--output-dir", str(tmp_path / "out")])  # fmt: skip
    assert code == 0


# --- mistakes


def wide(folder):
    rows = {"clip": torch.zeros(1, 48)}
    formats.save_concept(Concept(placeholder_token="S*", rows=rows), folder / "wide.safetensors")
    return folder / "wide.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--placeholder-token", "cat"], "must be new to the model, got 'cat'"),
        (["--placeholder-token", ""], "non-empty and without spaces"),
        (["--placeholder-token", "my cat"], "without spaces, got 'my cat'"),
        (["--initializer-token", " "], "must be a word"),
        (["--initializer-token", "zqé"], "must be known to the model's tokenizer clip, got 'zqé'"),
        (["--train-data-dir", "no/such/folder"], "nothing there"),
        (["--model", "/no/such/model"], "which does not exist"),
        (["--resolution", "33"], "multiple of 8 px, got 33"),
        (
            ["--learning-rate", "1", "--relative-learning-rate", "1"],
            "Cannot use learning_rate with",
        ),
        (["--output-dir", "/proc/nowhere"], "must be writable"),
        (["--num-vectors", "76"], "must be in 1..75"),
        (["--validation-prompt", "a cat"], "must contain the placeholder 'S*'"),
    ],
)
def test_a_mistake_in_training_is_one_sentence(training, change, message, capsys, tmp_path):
    assert main([*training, *change]) == 2
    err = capsys.readouterr().err.strip()
    assert message in err.replace("\n", " ")
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], "Cannot draw without a prompt"),
        (["--prompts", "a cat"], "must contain the placeholder 'S*' of the concept"),
        (["--prompts", "cat " * 80 + "S*"], "must fit into 75 tokens"),
        (["--prompts", "a S*", "--guidance-scale", "-1"], "guidance_scale must be 0 or more"),
        (["--prompts", "/no/such/file.txt"], "readable text file"),
    ],
)
def test_a_mistake_in_drawing_is_one_sentence(word, tiny_folder, tmp_path, change, message, capsys):
    base = ["generate", "--model", str(tiny_folder), "--concepts", str(word), "--output-dir",
            str(tmp_path / "out"), "--num-inference-steps", "1"]  # fmt: skip
    assert main([*base, *change]) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.png"))


def test_a_concept_of_another_width_names_both(tmp_path, tiny_folder, capsys):
    code = main(["generate", "--model", str(tiny_folder), "--concepts", str(wide(tmp_path)),
                 "--prompts", "a S*", "--output-dir", str(tmp_path / "out")])  # fmt: skip
    assert code == 2
    err = capsys.readouterr().err
    assert "width 48" in err
    assert "width 32" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "The verb must be one of demo, pictures, train"),
        (["trian"], "got 'trian'; did you mean train?"),
        (
            ["microworld", "fly"],
            "explore, things, pictures, people, evaluate, card, codebook, train",
        ),
        (["concept", "fly"], "combine, card, push, got 'fly'."),
        (["concept", "inspect", "/no/file"], "must exist"),
        (["microworld", "pictures", "--concept", "x", "--output-dir", "y"], "must be one of gold"),
        (["microworld", "train", "--stages", "bake"], "stages must be one of vae"),
    ],
)
def test_other_mistakes(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_unknown_option_is_refused(training, capsys):
    assert main([*training, "--max-train-stps", "4"]) == 2
    message = "--max-train-stps is not an option here; did you mean --max-train-steps?"
    assert message in capsys.readouterr().err


# --- help


def test_help_lists_every_verb_and_version(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)
    assert main([]) == 2
    assert main(["--version"]) == 0


def test_the_package_can_be_run_as_a_module():
    command = [sys.executable, "-m", "oneword", "--help"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.startswith("oneword ")


@pytest.mark.parametrize("verb", ["demo", "train", "generate", "evaluate", "models"])
def test_every_verb_explains_itself(verb, capsys):
    assert main([verb, "--help-all"]) == 0
    out = capsys.readouterr().out
    assert "--json" in out
    assert "None" not in out
    if verb == "train":
        assert "--train-data-dir" in out
        assert "Maximum number of training steps" in out


def test_models_lists_the_families(tmp_path, capsys):
    assert main(["models", "--json", str(tmp_path / "m.json")]) == 0
    assert "stable_diffusion" in capsys.readouterr().out
    assert [f["family"] for f in json.loads((tmp_path / "m.json").read_text())] == [*FAMILIES]


@pytest.mark.parametrize("family", [f for f in FAMILIES.values() if f.recipe == "relative"])
def test_commands_in_the_docs_can_be_typed(family):
    (page,) = (Path(__file__).parents[2] / "docs").rglob("families.md")
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    kinds = {"train": TrainArguments, "evaluate": EvaluateArguments, "models": ModelsArguments}
    for model in family.examples:
        named = re.split(r"[ ,]", model)[0]
        commands = [line.replace("MODEL", f"{named} {family.options}")
                    for block in blocks for line in block.splitlines()]  # fmt: skip
        assert len(commands) == 3
        for name, verb, *words in map(shlex.split, commands):
            assert name == "oneword"
            value, notes = options.parse(kinds[verb], verb, words)
            assert not notes
            assert verb == "models" or value.model.model == named


def test_models_probes_a_folder(tiny_folder, tmp_path, capsys):
    command = ["models", "--probe", str(tiny_folder), "--json", str(tmp_path / "p.json")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "text_encoder: CLIPTextModel, with tokenizer of" in out
    assert "read by embeddings.token_embedding" in out
    assert "a gradient reaches the embedding: yes" in out
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["reaches"]
    assert found["family"] == "stable_diffusion"
    assert main(["models", "--probe", str(tmp_path)]) == 2
    assert "must be a diffusers pipeline with a model_index.json" in capsys.readouterr().err


def test_the_installed_command_starts_without_torch():
    code = (
        "import sys; from oneword.cli.main import main; main(['--help']);"
        "sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(training, tmp_path):
    command = [sys.executable, "-m", "oneword.cli.main", *training, "--max-train-steps", "5000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        metrics = tmp_path / "run" / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "resume, run the same command again" in err.replace("\n", " ")
    assert (tmp_path / "run" / "state.safetensors").exists()
    assert not (tmp_path / "run" / "learned_embeds.safetensors").exists()


def test_files_of_learned_words_are_converted_merged_renamed_and_mixed(tmp_path, capsys):
    for name in ("sdxl", "a1111 pt"):
        (tmp_path / name).mkdir()
    pair, cat = (layouts.write(name, tmp_path / name) for name in ("sdxl", "a1111 pt"))
    assert main(["concept", "inspect", str(pair), "--json", str(tmp_path / "f.json")]) == 0
    (facts,) = json.loads((tmp_path / "f.json").read_text())
    assert (facts["placeholder_token"], facts["layout"]) == ("cat", "by_encoder")
    assert facts["for"] == "Stable Diffusion XL"
    capsys.readouterr()

    out = tmp_path / "out"
    words = ["concept", "convert", str(pair), "--to", "diffusers", "--output-dir", str(out)]
    assert main(words) == 0
    assert sorted(p.name for p in out.iterdir()) == ["cat.safetensors", "cat_2.safetensors"]
    assert main(words) == 2
    assert "must not exist yet" in capsys.readouterr().err

    many = str(tmp_path / "many.safetensors")
    assert main(["concept", "merge", str(pair), str(pair), str(cat), "--output", many]) == 0
    assert "'cat' was taken; in the new file it is 'cat-2'" in capsys.readouterr().out
    assert [c.placeholder_token for c in formats.load_all(many)] == ["cat", "cat-2", "my-cat"]
    assert main(["concept", "extract", many, "--output-dir", str(tmp_path / "each")]) == 0
    assert len(list((tmp_path / "each").iterdir())) == 3

    new = str(tmp_path / "new.safetensors")
    renamed = ["concept", "rename", str(cat), "--placeholder-token", "<kitten>", "--output", new]
    assert main(renamed) == 0
    assert formats.load_concept(new).placeholder_token == "<kitten>"
    mixed = str(tmp_path / "mixed.safetensors")
    mix = ["concept", "combine", str(cat), new, "--placeholder-token", "<m>", "--output", mixed]
    assert main([*mix, "--concatenate"]) == 0
    assert formats.load_concept(mixed).num_vectors == 4
    mix[-1] = str(tmp_path / "none.safetensors")
    assert main([*mix, "--concatenate", "--weights", "1", "2"]) == 2
    assert "Cannot use weights with --concatenate" in capsys.readouterr().err


def test_our_warnings_are_sentences_and_others_keep_their_place(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
    module = sys.modules[main.__module__]
    module._hush()
    own, other = (
        warnings.formatwarning(UserWarning("Mind this."), UserWarning, file, 1)
        for file in (module.__file__, __file__)
    )
    assert own == "Mind this.\n"
    assert __file__ in other
    assert "UserWarning: Mind this." in other
