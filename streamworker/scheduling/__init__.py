"""Which records are handed over next. Pure."""
