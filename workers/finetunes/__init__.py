"""Reading and verifying untrusted model folders."""
