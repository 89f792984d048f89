"""Files out, one module a format; a file appears whole or not at all."""
