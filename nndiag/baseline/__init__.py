"""What earlier runs were like: their findings and the band of their curves, kept in a file."""
