"""The side that computes: the only imports of torch, transformers, peft and huggingface_hub."""
