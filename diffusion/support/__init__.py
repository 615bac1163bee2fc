"""What the ideas stand on: backends, precision, pixels, files, validation, normalization."""
