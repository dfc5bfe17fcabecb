"""What gradients, attacks and training cost, as ratios."""
