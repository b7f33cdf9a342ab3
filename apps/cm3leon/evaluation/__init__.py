"""Figures and pictures that say how good a run is."""
