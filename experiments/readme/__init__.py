"""The generated parts of every README, from committed results."""
