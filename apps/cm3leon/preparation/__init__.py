"""Preparation at scale: raw pairs to token shards, a memory bank and neighbour tables."""
