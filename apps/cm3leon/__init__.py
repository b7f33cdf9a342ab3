"""CM3Leon composed: the only package that knows more than one of the six `cm3-*` packages.

One picture's way: `data` (raw pair to tokens and memory), `training`. One prompt's way: `parts`,
`drawing`. `evaluation` judges; `run` is the order of the stages.
"""

VERSION = "0.3"
"""Version of a run's folder; each finished stage names it."""
