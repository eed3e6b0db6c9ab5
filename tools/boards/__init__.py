"""The boards of the chart, as values; `generate_boards.py` writes them."""
