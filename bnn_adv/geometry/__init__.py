"""The theory of the paper (supplement sections 9 and 10), measured on manifolds that are known."""
