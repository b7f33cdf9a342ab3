"""The embedded instructions: records with exact truth, made from the compositions' drawings."""
