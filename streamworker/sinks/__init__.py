"""Where what handlers return is written."""
