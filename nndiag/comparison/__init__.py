"""What differs between runs: diagnoses in, a `Comparison` out. No file, no clock, no terminal."""
