"""Converts public downloads to the published JSON formats. Each data set has a small module.

A module finds its annotation files and image folders below a folder of the user, and yields rows for
`albef.data.rows`. `writing` leaves out rows whose image is missing.
"""

NAMES = (
    "coco",
    "flickr30k",
    "coco-captions",
    "visual-genome",
    "sbu",
    "cc3m",
    "cc12m",
    "vqa",
    "snli-ve",
    "nlvr2",
    "refcoco",
    "refcoco+",
    "refcocog",
    "easy-vqa",
)
