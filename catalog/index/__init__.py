"""The index of vectors: the only room that imports faiss."""
