"""Lossless compression: a codec, arithmetic that is the same everywhere, and codes to compare with (note 9)."""
