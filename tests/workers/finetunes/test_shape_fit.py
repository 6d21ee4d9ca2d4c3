"""A fine-tune compared with a base by names and shapes, in every layout of multimodal models."""

from __future__ import annotations

import pytest

from workers.finetunes.shape_fit import compare

LAYOUTS = {
    "of today": ("model.language_model.", "model.visual."),
    "before 4.52": ("language_model.model.", "vision_tower.vision_model."),
    "of Qwen2-VL in transformers 4": ("model.", "visual."),
    "of Idefics3": ("model.text_model.", "model.vision_model."),
    "of an omni model": ("thinker.model.", "thinker.visual."),
    "of a headless model": ("", "vision_tower."),
}


def base(layout: str, width: int = 32) -> dict[str, tuple[int, ...]]:
    text, vision = LAYOUTS[layout]
    return {
        f"{text}layers.0.self_attn.q_proj.weight": (32, width),
        f"{text}embed_tokens.weight": (258, width),
        f"{vision}blocks.0.attn.qkv.weight": (48, 16),
        f"{vision}patch_embed.proj.weight": (16, 3, 14, 14),
    }


def adapter(layout: str) -> dict[str, tuple[int, ...]]:
    text, vision = (f"base_model.model.{prefix}" for prefix in LAYOUTS[layout])
    return {
        f"{text}layers.0.self_attn.q_proj.lora_A.weight": (4, 32),
        f"{text}layers.0.self_attn.q_proj.lora_B.weight": (32, 4),
        f"{vision}blocks.0.attn.qkv.lora_A.weight": (4, 24),  # of another vision part
        f"{vision}blocks.0.attn.qkv.lora_B.weight": (72, 4),
        f"{vision}patch_embed.proj.lora_A.weight": (4, 3, 14, 14),
        f"{vision}patch_embed.proj.lora_B.weight": (16, 4, 1, 1, 1),
    }


@pytest.mark.parametrize("base_layout", LAYOUTS)
@pytest.mark.parametrize("adapter_layout", LAYOUTS)
def test_text_layers_fit_in_every_layout(adapter_layout: str, base_layout: str):
    fit = compare(adapter(adapter_layout), base(base_layout))
    assert (fit.matched, fit.problems) == (1, ())


@pytest.mark.parametrize("base_layout", LAYOUTS)
def test_text_layers_of_another_width_do_not_fit(base_layout: str):
    [problem] = compare(adapter("before 4.52"), base(base_layout, width=48)).problems
    assert problem == "layers.0.self_attn.q_proj is 32 x 48 in the base and 32 x 32 in the fine-tune"


def test_full_model_of_another_layout_fits():
    fit = compare(base("before 4.52"), base("of today"))
    assert (fit.matched, fit.problems, fit.same_vocabulary) == (2, (), True)
