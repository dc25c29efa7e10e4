"""Logs in one file of text: the general readers, and those of single frameworks."""
