"""Pure tensor code: (base, probes, fine-tunes) -> vectors."""
