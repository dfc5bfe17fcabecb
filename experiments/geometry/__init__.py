"""Gradients along and across manifolds that are known (supplement, sections 9 and 10)."""
