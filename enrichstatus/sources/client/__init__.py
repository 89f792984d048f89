"""The remote API answers, through requests."""
