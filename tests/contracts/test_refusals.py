"""What can be refused is refused before the first file; nothing stays in the next run's way."""

from __future__ import annotations

import pytest

from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import DebiasConfig
from oneword.config.scoring import StudyConfig
from oneword.errors import ModelError, UserError
from oneword.evaluation import fairness
from oneword.study import grid
from oneword.study.plan import Study


SHORT = {
    "initializer_token": "cat", "max_train_steps": 2, "train_batch_size": 2,
    "evaluation_steps": 2, "num_evaluation_samples": 2,
}  # fmt: skip


def sampling(**fields):
    return SamplingConfig(**({"num_inference_steps": 1, "guidance_scale": 2.0} | fields))


# --- debias


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampling": sampling(negative_prompt="<nobody>")}, "only words that are loaded"),
        ({"judge": "nowhere/at-all"}, "The judge must be a CLIP"),
        ({"prompt": "a photo of a cat on the moon next to my good cool clean {}"},
         "must fit"),
        ({"inversion": InversionConfig(**SHORT, placeholder_token="dog")}, "must be new to the"),
    ],
)  # fmt: skip
def test_a_comparison_that_cannot_be_drawn_is_refused_before_training(
    photos, tiny_folder, judge_folder, tmp_path, fields, message
):
    inversion = InversionConfig(**SHORT, placeholder_token="<fair>", num_vectors=65)
    config = DebiasConfig(**{
        "word": "cat", "images": photos, "output_dir": tmp_path / "fair", "num_images": 2,
        "model": ModelConfig(model=str(tiny_folder), device="cpu"), "inversion": inversion,
        "sampling": sampling(), "judge": str(judge_folder),
    } | fields)  # fmt: skip
    with pytest.raises(UserError, match=message):
        fairness.debias(config)
    assert not (tmp_path / "fair" / "run").exists()


# --- study


def test_a_study_that_the_family_cannot_draw_leaves_its_folder_free(photos, folders, tmp_path):
    folder = tmp_path / "study"
    config = StudyConfig(
        output_dir=folder, concepts=(str(photos),), setups=("prompt-only",), seeds=(0,),
        model=ModelConfig(model=str(folders["flux"]), device="cpu"), prompts="microworld",
        sampling=sampling(negative_prompt="blurry"), dino="none", judge="nowhere/at-all",
    )  # fmt: skip
    with pytest.raises(UserError, match="The judge must be a CLIP"):
        grid.run(Study(config), on_event=lambda _: None)
    assert not folder.exists()


def test_a_family_says_what_it_cannot_be_drawn_with(folders):
    from oneword.models.loading import load_backbone

    flux = load_backbone(ModelConfig(model=str(folders["flux"]), device="cpu"))
    flux.check_sampling(sampling())
    with pytest.raises(ModelError, match="Flux takes no negative prompt, got 'blurry'"):
        flux.check_sampling(sampling(negative_prompt="blurry"))
