"""Priors, posterior, evidence, checks and results."""
