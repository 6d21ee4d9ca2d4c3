"""The computation: the only package of the program that imports torch, transformers, peft and huggingface_hub."""
