"""Datasets of speech with facial motion: building them, finding them on disk, and loading batches."""
