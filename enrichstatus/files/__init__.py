"""Files in and out, in any format, whole or not at all."""
