"""Readers of published sets, one module a family; `forms` knows which reads what.

Each takes the annotation files and a `PictureFolder`, and yields an `Example`, or `Unusable` or
`Unneeded` in its place, in the same order each time. A file that is broken as a whole raises
ValueError. Unknown keys are left alone. No URL is opened, and no path that leads outside followed.
"""
