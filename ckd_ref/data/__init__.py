"""Images and event recordings: files that are read, checked and written; the simulated camera.

`paired` is the data set, `readers` other formats, `camera` and `glyphs` make data; `hdf5`, `files`
and `errors` are what they share.
"""
