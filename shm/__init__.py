"""Placeholder docstring, replaced with the folder."""
