"""Whatever a training needs besides the method: folders, checkpoints, processes, tables, pictures.

`session` is a run in a folder and `comparison` all of them; `parallel` has the twins of the
training step for a `process_group`; `checkpoint` and `logits` are files.
"""
