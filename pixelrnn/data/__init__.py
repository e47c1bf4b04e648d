"""Data of many pictures."""
