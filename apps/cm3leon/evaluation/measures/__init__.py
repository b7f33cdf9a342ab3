"""Measures: arrays and texts in, numbers out. They know no model of ours, no run and no folder."""
