"""What a page shows anew once a second."""

from __future__ import annotations

import pytest
import torch

from oneword._files import write_atomic
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.concepts.library import Library
from oneword.config.model import ModelConfig
from oneword.config.web import WebConfig


pytest.importorskip("gradio")
import gradio as gr

from oneword.web.app import TABS, build
from oneword.web.desk import Desk
from oneword.web.page import Page
from oneword.web.uploads import Uploads
from oneword.web.workspace import Workspace


@pytest.fixture
def page(tmp_path):
    """What the tabs are built on; its worker is never started."""
    config = WebConfig(workspace=tmp_path, model=ModelConfig(model="microworld-nano"))
    workspace = Workspace(tmp_path)
    desk = Desk(config.model, 1)
    uploads = Uploads(workspace.uploads, workspace.words)
    return Page(config, workspace, desk, Library(workspace.words), uploads)


def learn(page, name):
    """A word, as training leaves it."""
    folder = page.workspace.words / name
    rows = {"clip": torch.full((1, 48), 0.1)}
    concept = Concept(placeholder_token=f"<{name}>", rows=rows)
    formats.save_concept(concept, folder / formats.LEARNED)
    for file in ("config.json", "learned_embeds-steps-5.safetensors"):
        write_atomic(folder / file, b"{}")


@pytest.mark.parametrize("name", ["Teach", "Choose", "Draw", "Compare", "Library"])
def test_a_late_look_leaves_what_was_chosen_meanwhile(page, name):
    learn(page, "ant")
    with gr.Blocks():
        watch = TABS[name].build(page)
    given = [
        "ant" if isinstance(one, gr.Dropdown) else one.value for one in watch.inputs[1:]
    ]  # fmt: skip
    known, *_ = watch.look([], *given)
    learn(page, "bee")  # its choice is under way, and this look's answer may arrive after it
    _, *found = watch.look(known, *given)
    fields = {
        own.elem_id: new
        for own, new in zip(watch.outputs[1:], found, strict=True)
        if isinstance(own, gr.Dropdown | gr.CheckboxGroup | gr.Radio)
    }
    assert fields
    for new in fields.values():
        assert "bee" in str(new["choices"])
        assert "value" not in new


@pytest.mark.parametrize(
    ("name", "field"), [("Teach", "learning-word"), ("Library", "library-name")]
)
def test_an_empty_field_gets_the_first_name(page, name, field):
    learn(page, "ant")
    with gr.Blocks():
        watch = TABS[name].build(page)
    empty = [None if isinstance(one, gr.Dropdown) else one.value for one in watch.inputs[1:]]
    _, *found = watch.look([], *empty)
    places = [own.elem_id for own in watch.outputs[1:]]
    assert found[places.index(field)]["value"] == "ant"


def test_no_text_field_waits_for_an_event_that_backspace_does_not_send(page):
    built = build(page)
    heard = [
        (event, type(built.blocks.get(number)))
        for own in built.fns.values()
        for number, event in own.targets
    ]
    assert ("change", gr.Textbox) in heard
    assert ("input", gr.Textbox) not in heard
