"""From annotation files, folders and drawn scenes to batches of tensors; all chance is drawn here, by key."""
