"""What averaging over a posterior is worth under attack, and what of it is the posterior's."""
