"""Benchmarks and studies. Each prints one line of JSON with `--json`."""
