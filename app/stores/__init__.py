"""Where it is written down which sessions there are and what became of them."""
