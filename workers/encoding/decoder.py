"""The text decoder within a model, whose class may contain other parts such as a vision tower."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel

from catalog.errors import UnsupportedBase

MODALITIES = {  # by the main input of a model's class
    "input_features": "a speech model",
    "input_values": "a speech model",
    "pixel_values": "a vision model",
    "pixel_values_videos": "a vision model",
}
# their processors mark the prompt as a prefix whose tokens attend to each other both ways
PREFIX_LANGUAGE_MODELS = ("paligemma", "colpali")
WHAT_TO_DO = "Submit fine-tunes of causal language models."


def check_is_decoder(model: PreTrainedModel) -> None:
    """Raises `UnsupportedBase` for a model that is no causal language model by its class or config."""
    name, reason = model.config.model_type, None
    if model.main_input_name in MODALITIES:
        reason = f"is {MODALITIES[model.main_input_name]}, which does not read text alone"
    elif getattr(model.config, "is_encoder_decoder", False) or _has_encoder(model):
        reason = "is an encoder-decoder: a prompt's last token is read by its encoder, both ways"
    elif not _has_embeddings(model):
        reason = "is the decoder of an encoder-decoder, whose encoder's states it reads"
    elif name in PREFIX_LANGUAGE_MODELS:
        reason = "is a prefix language model: the tokens of a prompt attend to each other both ways"
    if reason:
        raise UnsupportedBase(f"{name} {reason}, so Delta Activations do not apply. {WHAT_TO_DO}")


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The text decoder's layers that run on text alone, in order. Raises `UnsupportedBase` if the model has none."""
    count = layer_count(model)
    # these attend to an image and are skipped without one (Llama 3.2 Vision)
    skipped = getattr(model.config.get_text_config(decoder=True), "cross_attention_layers", None) or ()
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return [layer for number, layer in enumerate(module) if number not in skipped]
    raise UnsupportedBase(f"{model.config.model_type} models have no list of {count} decoder layers. {WHAT_TO_DO}")


def layer_count(model: PreTrainedModel) -> int:
    """The number of the text decoder's layers. Raises `UnsupportedBase` if the config does not have it."""
    config = model.config.get_text_config(decoder=True)
    # LongCat counts its layers, and as hidden layers the two blocks of each, which share their hidden state
    count = getattr(config, "num_layers", None) or getattr(config, "num_hidden_layers", None)
    if not isinstance(count, int):
        raise UnsupportedBase(f"The config of {model.config.model_type} has no number of layers. {WHAT_TO_DO}")
    return count


def _has_encoder(model: PreTrainedModel) -> bool:
    """Whether a class has an encoder, of which the files and the config of a decoder alone say nothing."""
    return all(isinstance(getattr(model, part, None), PreTrainedModel) for part in ("encoder", "decoder"))


def _has_embeddings(model: PreTrainedModel) -> bool:
    """Whether a class embeds tokens: the wrappers of decoders (TrOCR) leave that to the decoder within."""
    try:
        return model.get_input_embeddings() is not None
    except NotImplementedError:
        return False


def main_stream(state: Tensor, model: PreTrainedModel) -> Tensor:
    """A layer's state, (1, T, H), where several streams run next to each other.

    Gemma 3n has the streams (S, 1, T, H), one of which its attention reads. Those of hyper-connections (arXiv
    2409.19606), (1, T, S, H) or (1, T, S * H), are averaged.
    """
    config = model.config.get_text_config(decoder=True)
    if state.ndim == 4 and (active := getattr(config, "altup_active_idx", None)) is not None:
        return state[active]
    if state.ndim == 3 and state.shape[2] <= config.hidden_size:
        return state
    return state.flatten(2).unflatten(2, (-1, config.hidden_size)).mean(dim=2)
