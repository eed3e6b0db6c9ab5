"""Where what handlers return is written. Start in `writer.py` for databases."""
