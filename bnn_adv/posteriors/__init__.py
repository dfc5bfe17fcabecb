"""Posteriors: draws of a network's parameters, samplers that draw anew, decision rules."""
