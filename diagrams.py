"""Drawings of networks: what the notebooks show of a model before they run it."""

BOX = {"boxstyle": "round,pad=0.35", "edgecolor": "black"}
FILLS = ("white", "#bcd9ec", "#f5d3ba", "white")  # input, recurrent layer, output layer, prediction
ARROW = {"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0}


def unrolled(ax, steps, fed_back=False):
    """A recurrent network unrolled in time: the state goes to the right.

    steps: for each step the names of its boxes, from the input upwards; "" where a box is left out.
    fed_back: dashed arrows from each prediction to the next input, as in free running.
    """
    top = len(steps[0]) - 1
    for step, names in enumerate(steps):
        for level, (name, fill) in enumerate(zip(names, FILLS, strict=False)):
            if name:
                ax.text(step, level, name, ha="center", va="center", fontsize=9, bbox={**BOX, "facecolor": fill})
            if name and level:
                ax.annotate("", (step, level - 0.3), (step, level - 0.7), arrowprops=ARROW)
        if step < len(steps) - 1:
            ax.annotate("", (step + 0.66, 1), (step + 0.34, 1), arrowprops=ARROW)
            if fed_back:
                dashed = ARROW | {"linestyle": "--", "color": "#D55E00"}
                ax.annotate("", (step + 0.8, 0.1), (step + 0.3, top - 0.1), arrowprops=dashed)
    ax.set(xlim=(-0.6, len(steps) - 0.4), ylim=(-0.4, top + 0.4))
    ax.axis("off")


def backward(ax, count):
    """Over `unrolled`, of `count` steps: the second state of a bidirectional layer, which goes to the left."""
    for step in range(1, count):
        ax.annotate("", (step - 0.66, 0.84), (step - 0.34, 0.84), arrowprops=ARROW | {"color": "#D55E00"})
