"""A run and its diagnosis in the formats of other tools; one format, one module."""
