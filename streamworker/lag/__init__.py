"""How far consumer groups are, judged from what brokers say of them."""
