"""Pure tensor code: (base, probes, fine-tunes) -> vectors."""

from workers.encoding.base import ResidentBase
from workers.encoding.content import content_sha
from workers.encoding.encoder import ENCODER_VERSION, Encoder, Encoding
from workers.encoding.reading import FineTune, read_finetune

__all__ = ["ENCODER_VERSION", "Encoder", "Encoding", "FineTune", "ResidentBase", "content_sha", "read_finetune"]
