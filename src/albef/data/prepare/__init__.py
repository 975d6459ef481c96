"""From the public downloads to the published JSON: one small module per data set.

Each looks for its annotation files and folders of images below one folder of the user's, and yields rows as
`albef.data.rows` takes them; `writing` leaves out those whose image is missing.
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
