"""Numbers that a text quotes, and whether a notebook shows them."""

import re

NUMBER = r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?%?"


def stands_among(text, known):
    """Whether a number, a text such as "1,377", "0.80" or "36.5%", is one of the known ones, rounded to its digits."""
    plain = text.rstrip("%").replace(",", "")
    digits = len(plain.partition(".")[2])
    scales = (1, 100) if text.endswith("%") else (1,)
    return any(abs(scale * one - float(plain)) <= 0.5000001 * 10**-digits for one in known for scale in scales)


def numbers_in(prose):
    """The values that a text quotes: numbers with a decimal point, and percentages, outside code and links."""
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|\$[^$]*\$", " ", prose)
    return [one for one in re.findall(NUMBER, prose) if "." in one or "%" in one]


def shown_by(notebook):
    """All numbers of the text that a notebook printed or tabulated, and those in its metadata."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    metadata = [output.get("metadata", {}) for output in outputs]
    rows = [row for one in metadata for row in one.get("claims", ())]
    known = [value for row in rows for values in (row["this run"], *row["baseline"].values()) for value in values]
    text = "\n".join(str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", "")) for o in outputs)
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)
    return [value for value in known if value is not None] + [float(one.replace(",", "")) for one in found]
