"""Lines of files that may be anything: packed, torn, endless."""
