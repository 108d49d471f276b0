"""Experiments on runs: fitted probes, ablations, sweeps. Imports lm2 alone."""
