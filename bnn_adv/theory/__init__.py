"""Expected loss gradients against draws and width, and their parts along the data's manifold."""
