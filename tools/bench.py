"""Trains models for a budget of seconds and stores what they reach on held-out pictures: `make bench`.

    python tools/bench.py --seconds 60 [--model joint made ...] [--data letters] [--static] [--seeds 0 1 2] [--store]
    python -m torch.distributed.run --nproc_per_node=2 tools/bench.py ...   # batches split over two processes
    python tools/bench.py --members --seeds 0 [--order 3] ...               # one member of an average, or of a mixture
    python tools/bench.py --average build/*_member*.safetensors [--store]   # once all of them are here

Every model trains for the same seconds on one core, one after another, each in a process of its own, and is measured at
their end. Seconds are those that the core worked for this training alone (time.process_time), so that
other programs beside it do not count; on a GPU they are those that passed. Protocols: "mnist" is
datasets.binarized_mnist, nats are means over all 10,000 test images, and the first 2,000 are measured in five
binarisations; "digits" are scikit-learn's, 1 where a value is 8 or more, 500 held out, another 500 for each seed;
"letters" are letters.load_letters, its test part.

The result of each model goes into build/, with --store into data/benchmarks/: a comment with command, protocol,
machine and what else was measured, then seed, seconds, updates and nats for each look at the images. Beside it an .npz
holds the nats of each picture, (seeds, pictures), and the means of the first pictures in each binarisation, (seeds,
binarisations): what errors and paired differences are computed from; beside the table of an average, those of all its
members. Images per second are a mean over the seeds; nats of training images (the first 2,000, binarised as in
training), memory and speed of sampling are the last seed's. The learning rate falls over the whole budget. A run that
fails is not stored; those before it are.

A run that is stopped, in whatever way, goes on where the same command is typed again: until all its results are stored,
a checkpoint of each run is kept in build/checkpoints/, every three minutes, at Ctrl-C and at its end. So what is
finished is only measured anew. The result says how often its trainings were taken up.

A member of an average is trained alone, anywhere; its weights are stored beside a table of its own. All members hold
out the same digits, so that none has learned from what the average is measured on. Members of one reading order
(pixelrnn/models/orders.py) are averaged value by value, orders are then mixed picture by picture. The average's table
has a row for each member that joins, with the seconds and updates of all so far, and before it each member's own nats
over the time; its weights go into build/.
"""

import argparse
import itertools
import math
import os
import re
import sys
import time
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # where helpers.py is

import helpers
from pixelrnn.data import datasets, letters
from pixelrnn.evidence import stored_curves
from pixelrnn.models import augmentation, configs, ensemble, orders, saving
from support import checkpoints, checks, devices, files

LOOKS = (1.0,)  # at the images that are measured on, as parts of the budget
PUBLIC = "the public files"  # of the static binarisation of MNIST
SEVERAL = 2000  # test images that are measured in several binarisations
SAMPLED = 256  # pictures at once, to measure the speed of sampling


def peak_memory(device):
    """The most memory this process has held so far (on a GPU: the GPU's), MB; None where the system does not tell, and
    in one of several processes, which runs one model after another."""
    if devices.process()[1] > 1:
        return None
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def pictures(arguments, seed):
    """Training and measured pictures, (count, rows, columns) each."""
    if arguments.data == "mnist":
        training, validation, test = datasets.binarized_mnist(arguments.mnist, arguments.static)
        return training, validation if arguments.validation else test
    if arguments.data == "letters":
        training, validation, test = (torch.tensor(part, dtype=torch.float32) for part in letters.load_letters())
        return training, validation if arguments.validation else test
    digits = torch.tensor(datasets.load_digits() >= 8, dtype=torch.float32)
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0 if arguments.members else seed))
    return digits[order[:-500]], digits[order[-500:]]


def nats_of(model, sequences):
    """Of each picture; where a model has several orders, those of their mixture."""
    return model.nats(sequences) if isinstance(model, orders.Orders) else helpers.nats(model, sequences)


def binarisations(arguments):
    """The first test images in other binarisations than the one in which all are measured: (binarisations, pictures,
    rows, columns). None of pictures that are always the same."""
    if arguments.data != "mnist" or arguments.validation or (arguments.static and static_bits(arguments) == PUBLIC):
        return []
    return orders.turned(datasets.binarized_tests(arguments.mnist)[1:, :SEVERAL], arguments.order)


def static_bits(arguments):
    """Whose static binarisation of MNIST is used: that of the public files, where they are, or our own."""
    return PUBLIC if datasets.public_static(arguments.mnist) else "our own"


def clusters_of(arguments):
    """What the measured pictures belong to: letters to their families."""
    if arguments.data != "letters":
        return {}
    families = letters.families()
    return {"clusters": families.validation if arguments.validation else families.test}


def clock_of(device):
    """By what the seconds of a training are counted: on a processor by the work of this process alone."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def run(arguments, name, seed):
    """One training: rows of seed, seconds, updates, nats; what else was measured; the nats of each picture, and of each
    binarisation of some. Or None if it was interrupted."""
    entry, device = configs.MODELS[name], devices.choose_device(arguments.device)
    training, measured = (orders.turned(part, arguments.order) for part in pictures(arguments, seed))
    dynamic = arguments.data == "mnist" and not arguments.static
    prepare = torch.bernoulli if dynamic else lambda batch: batch
    soft = dynamic and entry.soft
    held_before, most = peak_memory(device), []

    def probe(model):
        most.append(peak_memory(device))  # that of measuring comes after the first look, and is not counted
        return {"nats": nats_of(model, entry.sequences(measured)).mean()}

    torch.manual_seed(seed)
    model = entry.build(*measured.shape[1:], **sizes_of(arguments, name)).to(device)
    if arguments.members:
        ensemble.Average([model])  # a model that cannot be averaged is refused before it is trained
    kept = checkpoint_of(
        arguments, name, seed, {"pictures": crc32(training.contiguous().numpy()), "device": device.type}
    )
    try:
        history = helpers.train(
            model,
            training,
            seconds=arguments.seconds,
            prepare=lambda batch: entry.sequences(batch if soft else prepare(batch)),
            context=torch.bernoulli if soft else None,
            probe=probe,
            probe_at=[arguments.seconds * look for look in LOOKS],
            checkpoint=kept,
            clock=clock_of(device),
            **entry.training,
        )
    except helpers.TrainingError as error:  # its history is of no use here, and does not pass between processes
        raise checks.LabError(str(error)) from error
    if history.interrupted:
        return None
    rows = [
        (seed, round(history.seconds[update - 1], 1), int(update), round(float(value), 3))
        for update, value in zip(*history.probed("nats"), strict=True)
    ]
    of_pictures = nats_of(model, entry.sequences(measured))
    several = [nats_of(model, entry.sequences(one)).mean() for one in binarisations(arguments)]
    learned = nats_of(model, entry.sequences(prepare(training[: min(SEVERAL, len(measured))]))).mean()
    started = time.perf_counter()
    if isinstance(model, orders.Orders):
        sampled = model.sample(SAMPLED)
    else:
        sampled, _ = helpers.sample(model, entry.sequences(measured[:1]).shape[1], batch=SAMPLED, temperature=1.0)
    sampled.cpu()  # a GPU is waited for
    also = {
        "nats of training images": round(float(learned), 3),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "sampled per second": round(SAMPLED / (time.perf_counter() - started), 1),
        # None too where all was measured before it was taken up: most is empty then
        "peak memory": None if held_before is None or not most else round(most[0] - held_before),
        "training images": len(training),
        "measured images": len(measured),
        "threads": torch.get_num_threads(),
        "processes": devices.process()[1],
        "times taken up": kept.times,
    }
    if isinstance(model, augmentation.ShiftConditioned):
        also["nats in one view"] = round(float(helpers.nats(dict(model.views())[0], measured).mean()), 3)
    if arguments.members and devices.process()[0] == 0:
        saving.save_model(model, path_of(arguments, name, [seed]).with_suffix(".safetensors"))
    print(
        f"{name}, seed {seed}: {rows[-1][3]} nats per image after {rows[-1][1]} s, {rows[-1][2]:,} updates", flush=True
    )
    return rows, also, (of_pictures, [of_pictures[:SEVERAL].mean(), *several])


def isolated(function, *arguments):
    """The same in a process of its own, so that its memory is its own too; in this one where several train together."""
    if devices.process()[1] > 1:
        return function(*arguments)
    name = ", seed ".join(map(str, arguments[1:]))
    ((_, result),) = devices.in_processes({name: (function, *arguments)})
    return result


def store_pictures(path, of_seeds, clusters):
    """Beside a stored table, an .npz: what `run` measured of each picture and binarisation, for each seed.

    clusters: what each picture belongs to, where pictures of one cluster are alike.
    """
    pictures, binarised = map(np.array, zip(*of_seeds, strict=True))
    held = {"pictures": pictures.astype(np.float32), "binarisations": binarised} | clusters
    held["binarised pictures"] = np.array(min(SEVERAL, pictures.shape[1]))
    name = "A name for the nats of each picture"
    with files.written_whole(path.with_suffix(".npz"), name) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **held)


def store(path, protocol, rows):
    """Written whole or not at all; where it cannot be written, the LabError holds what the runs have given."""
    try:
        files.write_table(path, protocol, ("seed", "seconds", "updates", "nats"), rows)
    except checks.LabError as error:
        held = "\n".join(",".join(map(str, row)) for row in rows)
        raise checks.LabError(f"{error}\nThe runs gave (seed,seconds,updates,nats):\n{held}") from error


def command(arguments):
    """What to type to run this again, where MNIST lies left out."""
    if arguments.average:
        words = [f"--average {' '.join(Path(path).name for path in arguments.average)}"]
    else:
        words = [f"--model {' '.join(arguments.model)} --data {arguments.data} --seconds {arguments.seconds:g}"]
        words += [f"--units {arguments.units}"] if arguments.units else []
        words += [f"--order {arguments.order}"] if arguments.order else []
        words += [f"--seeds {' '.join(map(str, arguments.seeds))}"]
    words += [f"--device {arguments.device}"] if arguments.device != "auto" else []
    words += [f"--{flag}" for flag in ("static", "validation", "members", "store") if getattr(arguments, flag)]
    launcher = ""
    if devices.process()[1] > 1:
        nodes, of_a_node = (os.environ.get(f"{name}_WORLD_SIZE", 1) for name in ("GROUP", "LOCAL"))
        launcher = f"-m torch.distributed.run --nnodes={nodes} --nproc_per_node={of_a_node} "
    return f"python {launcher}tools/bench.py {' '.join(words)}"


def sizes_of(arguments, name):
    """The sizes by which a model is built: its own, or the units that are asked for."""
    return {"units": arguments.units} if arguments.units else configs.MODELS[name].sizes


def binarised(arguments):
    """How the pictures became binary: at each look anew (dynamic), once by chance (static), or by a threshold."""
    return {"mnist": "static" if arguments.static else "dynamic"}.get(arguments.data, "fixed")


def path_of(arguments, name, seeds):
    """Where the result of a model is stored; the name tells the units where they are not the model's own, and which
    member of an average it is."""
    own = sizes_of(arguments, name) == configs.MODELS[name].sizes
    sizes = "" if own else f"_{arguments.units}-units"
    end = "_validation" if arguments.validation else ""
    end += f"_order{arguments.order}" if arguments.order else ""
    end += f"_member{seeds[0]}" if arguments.members else ""
    folder = files.DATA / "benchmarks" if arguments.store else ROOT / "build"
    return folder / f"{arguments.data}_{name}{sizes}_{binarised(arguments)}_{arguments.seconds:g}s{end}.csv"


def checkpoint_of(arguments, name, seed, of_data=None):
    """The checkpoint of one run; of_data: what is known once its pictures are there."""
    path = path_of(arguments, name, [seed])
    end = "" if arguments.members else f"_seed{seed}"  # which the path of a member has already
    entry = configs.MODELS[name]
    run = {"model": name, "sizes": sizes_of(arguments, name), "seed": seed, "seconds": arguments.seconds}
    run |= {"training": entry.training, "torch": torch.__version__, "processes": devices.process()[1]}
    run |= of_data or {}
    return checkpoints.Checkpoint(ROOT / "build" / "checkpoints" / f"{path.stem}{end}.safetensors", run)


def bench(arguments, device):
    """Run all models with all seeds; returns the paths of what was stored. Interrupted, it says how to go on."""
    held_out = "validation" if arguments.validation else "test"
    stored_together = [[seed] for seed in arguments.seeds] if arguments.members else [arguments.seeds]
    runs = list(itertools.product(arguments.model, stored_together))
    # Here, so that what is missing, or cannot be written, is told before anything is started.
    if arguments.data == "mnist" and not (arguments.static and datasets.public_static(arguments.mnist)):
        datasets.load_mnist(arguments.mnist)
    files.check_writable(*(path_of(arguments, name, seeds) for name, seeds in runs))
    files.check_writable(*(checkpoint_of(arguments, name, seeds[0]).path for name, seeds in runs))
    paths = []
    for name, seeds in runs:
        entry, stored, path, pictures_have = configs.MODELS[name], [], path_of(arguments, name, seeds), []
        taken_up = 0
        protocol = {
            "command": command(arguments),
            "model": name,
            "sizes": sizes_of(arguments, name),
            "data": arguments.data,
            "binarised": binarised(arguments),
            "budget": arguments.seconds,
            **({"static bits": static_bits(arguments)} if arguments.static else {}),
            "unit": f"nats per image, mean over the {held_out} images",
            **({"order": arguments.order} if arguments.order else {}),
            **entry.training,
            "bfloat16": entry.training.get("bfloat16", False) and devices.has_bfloat16(device),
            "device": device.type,
            "clock": "work of one core" if device.type == "cpu" else "time",
            "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else devices.processor(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
            "date": time.strftime("%Y-%m-%d"),
        }
        for seed in seeds:
            try:
                done = isolated(run, arguments, name, seed)
            except KeyboardInterrupt:
                done = None
            if done is None:
                for path in paths:
                    print(f"Stored in {path.relative_to(ROOT)}.")
                path = checkpoint_of(arguments, name, seed).path
                there = f"goes on after {checkpoints.read_updates(path):,} updates" if path.exists() else "begins anew"
                print(f"Interrupted: this run is not stored. The same command {there}.")
                raise KeyboardInterrupt
            rows, also, each = done
            stored += rows
            pictures_have.append(each)
            taken_up += also.pop("times taken up")
            also |= {"times taken up": taken_up} if taken_up else {}
            lasts = {row[0]: row[2] / max(row[1], arguments.seconds) for row in stored}.values()  # updates a second
            speed = sum(lasts) / len(lasts) * entry.training["batch_size"]
            if devices.process()[0] == 0:
                store(path, {**protocol, **also, "images per second": round(speed, 1)}, stored)
                store_pictures(path, pictures_have, clusters_of(arguments))
            paths += [path] if path not in paths else []
    if devices.process()[0] == 0:
        for name, seed in itertools.product(arguments.model, arguments.seeds):
            checkpoint_of(arguments, name, seed).path.unlink(missing_ok=True)
    return paths


def number(kind, wanted, fits):
    """For argparse: a number of this kind that fits, else an error that says what is wanted."""

    def read(word):
        try:
            value = kind(word)
        except ValueError:
            value = kind(-1)  # no option takes it
        if not fits(value):
            raise argparse.ArgumentTypeError(f"it must be {wanted}, not {word}")
        return value

    return read


SECONDS = number(float, "a number above 0", lambda value: 0 < value < math.inf)
UNITS = number(int, "a whole number of at least 1", lambda value: value >= 1)
SEED = number(int, "a whole number of at least 0, and below 2 ** 63", lambda value: 0 <= value < 2**63)


ALIKE = ("model", "sizes", "data", "binarised", "budget", "unit", "training images", "measured images")  # in an average
OWN = (
    "command",
    "device",
    "processor",
    "instructions",
    "processes",
    "threads",
    "torch",
    "date",
    "nats of training images",
)  # kept of each of its members
SOME = ("nats in one view",)  # and this, where it was measured


def average(arguments, device):
    """Measures the average of saved members on what all of them held out, and stores it; returns the path."""
    models, protocols, rows, members = [], [], [], []
    for weights in arguments.average:
        protocol, table = stored_curves.load_benchmark(
            files.existing(Path(weights).with_suffix(".csv"), "A member's table", "Copy it here with its weights.")
        )
        missing = [key for key in (*ALIKE, *OWN) if key not in protocol]
        if missing:
            told = f"{Path(weights).name}: its table says nothing of {', '.join(missing)}, as tables of before do."
            raise checks.LabError(f"{told} Train this member again.")
        models.append(saving.load_model(weights).to(device))
        protocols.append(protocol)
        seed, seconds, updates, nats = (table[column][-1].item() for column in ("seed", "seconds", "updates", "nats"))
        members.append({"seed": int(seed), "seconds": seconds, "updates": int(updates), "nats": nats})
        looks = zip(*(table[column].tolist() for column in ("seconds", "updates", "nats")), strict=True)
        members[-1] |= {key: protocol[key] for key in (*OWN, *SOME) if key in protocol} | {
            "looks": [list(look) for look in looks]
        }
    different = [key for key in ALIKE if any(protocol[key] != protocols[0][key] for protocol in protocols)]
    if different:
        raise checks.LabError(f"Members of an average are trained alike; these differ in {', '.join(different)}.")
    who = [(protocol.get("order", 0), member["seed"]) for protocol, member in zip(protocols, members, strict=True)]
    if len(set(who)) < len(who):
        raise checks.LabError(
            "Members of an average differ in seed or order; these are (order, seed) " + str(who)[1:-1]
        )
    seeds = [seed for _, seed in who]
    shared = {key: protocols[0][key] for key in (*ALIKE, *configs.MODELS[protocols[0]["model"]].training)}
    asked = {"data": shared["data"], "static": False, "validation": "validation" in shared["unit"], "members": True}
    asked = argparse.Namespace(mnist=arguments.mnist, order=0, **asked)
    _, measured = pictures(asked, seeds[0])
    for count in range(1, len(models) + 1):
        of = {order: [m for m, (own, _) in zip(models, who[:count], strict=False) if own == order] for order, _ in who}
        joined = {order: own[0] if len(own) == 1 else ensemble.Average(own) for order, own in of.items() if own}
        joined = orders.Mixture(list(joined), list(joined.values()))
        of_pictures = joined.nats(measured)
        nats = of_pictures.mean()
        seconds, updates = (sum(member[key] for member in members[:count]) for key in ("seconds", "updates"))
        rows.append((seeds[count - 1], round(seconds, 1), updates, round(float(nats), 3)))
        print(f"{count} averaged, together {seconds:.1f} s: {nats:.3f} nats per image", flush=True)
    orders_of = {}  # seeds -> the orders that have them
    for order in sorted({order for order, _ in who}):
        orders_of.setdefault(tuple(sorted(seed for own, seed in who if own == order)), []).append(order)
    stem = re.sub(r"(_order\d)?_member\d+$", "", Path(arguments.average[0]).stem)
    for own, together in orders_of.items():
        stem += f"_orders-{'-'.join(map(str, together))}-seeds-{'-'.join(map(str, own))}"
    path = (files.DATA / "benchmarks" if arguments.store else ROOT / "build") / f"{stem}.csv"
    parameters = sum(weight.numel() for weight in joined.parameters())
    members = [{"order": order, **member} for (order, _), member in zip(who, members, strict=True)]
    if devices.process()[0] == 0:
        store(path, {"command": command(arguments), **shared, "parameters": parameters, "members": members}, rows)
        several = [joined.nats(one).mean() for one in binarisations(asked)]
        store_pictures(path, [(of_pictures, [of_pictures[:SEVERAL].mean(), *several])], clusters_of(asked))
        saving.save_model(joined, ROOT / "build" / f"{stem}.safetensors")
    return path


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--model",
        nargs="+",
        choices=configs.MODELS,
        default=list(configs.BENCHMARK),
        help="one or more (default: those of note 7)",
    )
    parser.add_argument("--data", choices=("mnist", "letters", "digits"), default="mnist")
    parser.add_argument("--seconds", type=SECONDS, default=60, help="of training for each run (default: 60)")
    parser.add_argument("--units", type=UNITS, help="of models that have no other size (default: those of note 7)")
    parser.add_argument("--static", action="store_true", help="MNIST: binarise the training images once")
    parser.add_argument("--seeds", type=SEED, nargs="+", default=[0])
    parser.add_argument("--order", type=int, choices=orders.ORDERS, default=0, help="the reading order of a member")
    parser.add_argument("--validation", action="store_true", help="measure on the validation images (not of digits)")
    parser.add_argument("--store", action="store_true", help="in data/benchmarks/, which the notes report")
    parser.add_argument("--mnist", help="a path, or 'download' (default: the environment variable PIXELRNN_MNIST)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--members", action="store_true", help="each seed is a member of an average: store its weights")
    parser.add_argument("--average", nargs="+", metavar="WEIGHTS", help="measure the average of stored members")
    arguments = parser.parse_args(words)
    if (arguments.static and arguments.data != "mnist") or (arguments.validation and arguments.data == "digits"):
        parser.error("--static is of MNIST, --validation of MNIST and letters.")
    if arguments.order and not arguments.members:
        parser.error("--order is for members of a mixture: give --members too.")
    if arguments.units and any([*configs.MODELS[name].sizes] != ["units"] for name in arguments.model):
        parser.error("--units is for models that have no other size; name them with --model.")
    given = {name for name, value in vars(arguments).items() if value != parser.get_default(name)}
    if arguments.average and given - {"average", "device", "store", "mnist"}:
        parser.error("--average takes all but --device, --store and --mnist from the members.")
    with checks.ended_in_words():
        device = devices.choose_device(arguments.device)
        with devices.several_processes(device):
            paths = [average(arguments, device)] if arguments.average else bench(arguments, device)
            for path in paths:
                print(f"Stored in {path.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
