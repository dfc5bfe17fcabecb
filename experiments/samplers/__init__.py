"""Every Markov chain of this project on the same posteriors: which has mixed, and at what cost."""
