"""Trained weights that come with the series, in data/weights/: what notebooks sample from, so that none has to train.

Beside each file of weights lies its card, a JSON file: on what data and by what protocol it was trained, with which
command, the nats it reaches, the licence of what it learned from, and the checksum of the weights.
"""

import copy
import hashlib
import json

from pixelrnn.models import saving
from support import checks, files

NAMES = ("digits", "letters")
DRAWN = ("drawn-digits", "drawn-letters")  # of the page: they learned what people draw (strokes.redrawn)
COLOUR = ("icons", "photographs", "photographs-softmax")  # of notes 12 and 13
FOLDER = files.DATA / "weights"
FIRST = 200  # test pictures whose nats stand on the card by themselves
FORMAT = 1  # of the card and of the weights beside it; another number is another way to read them
ADVICE = "`git checkout data/weights` brings back the stored files, `make weights` trains them again."


def paths(name, folder=None):
    """The files of stored weights: the weights, and the card beside them."""
    path = (folder or FOLDER) / f"{checks.choice('name', name, NAMES + DRAWN + COLOUR)}.safetensors"
    return path, path.with_suffix(".json")


def load(name, folder=None):
    """A stored model, float32, on the CPU, in evaluation mode, and its card (a dict).

    name: one of NAMES, DRAWN or COLOUR. folder: data/weights/, if not given.
    Raises LabError where a file is missing or damaged, of another format, or not the one that its card describes.
    """
    path, card_path = paths(name, folder)
    with files.reading(card_path, "The card of stored weights", ADVICE) as file:
        card = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(card, dict) or card.get("format") != FORMAT:
            kind = card.get("format") if isinstance(card, dict) else None
            raise checks.LabError(f"It is of format {kind!r}; this version of the series reads format {FORMAT}")
    with files.reading(path, "Stored weights", ADVICE) as file:
        if hashlib.sha256(file.read_bytes()).hexdigest() != card.get("sha256"):
            raise checks.LabError("Its checksum is not the one on its card")
    return saving.load_model(path).float(), card


def store(name, model, card, folder=None):
    """Write a model in 16 bits, and its card; the old files stay where one cannot be written. Returns their paths.

    card: what `load` gives back with it; format and checksum are added here.
    """
    path, card_path = paths(name, folder)
    saving.save_model(copy.deepcopy(model).half(), path)
    card = {"format": FORMAT, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **card}
    with files.written_whole(card_path, "A name for the card") as unfinished:
        unfinished.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return path, card_path
