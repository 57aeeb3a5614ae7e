"""Recordings: files, photons, instrument, binning."""
