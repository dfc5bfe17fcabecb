"""Expected loss gradients against the number of draws (figures 2 and 3 of the paper)."""
