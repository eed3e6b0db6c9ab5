"""What there is to see, a module for each kind of page. None of them knows another."""
