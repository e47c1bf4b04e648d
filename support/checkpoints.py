"""Long trainings that can be stopped: `helpers.train` keeps a checkpoint now and then, and goes on from it.

A checkpoint holds all that the next update depends on: weights, optimisers, random states, the place within the pass
over the data, and the history so far. So the same call reaches, on the same kind of processor, bit for bit the weights
that it would have reached without the stop.
"""

import hashlib
import itertools
import json
import time

import safetensors.torch
import torch

from support.checks import LabError
from support.files import plain, reading, shortened, written_whole

FORMAT = 1


class Batches:
    """Batches for ever, in an order shuffled anew at each pass; the rest of a pass that fills none is left out.

    sequences: a tensor, or None where a model brings its own. batch_size: None gives all of them each time.
    """

    def __init__(self, sequences, batch_size):
        self.sequences, self.batch_size = sequences, batch_size
        self.order, self.used = torch.zeros(0, dtype=torch.long), 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.batch_size is None:
            return self.sequences
        if self.used + self.batch_size > len(self.order):
            self.order, self.used = torch.randperm(len(self.sequences), device="cpu"), 0
        self.used += self.batch_size
        return self.sequences[self.order[self.used - self.batch_size : self.used]]


class NoCheckpoint:
    """What `train` asks of a checkpoint, where nothing is kept."""

    path = None

    def begin(self, *parts):
        """Remember the parts of a run, and take up what an earlier one has left."""

    def mark(self):
        """Before an update: where to go on from if the update is not made."""

    def keep(self):
        """After an update: write the checkpoint where its time has come."""

    def __enter__(self):
        """Around all updates."""

    def __exit__(self, kind, *_):
        """Write the checkpoint: of the end, or of before the update that an interrupt has stopped."""


class Checkpoint(NoCheckpoint):
    """A training run in a file.

    path: a safetensors file. run: a dict for JSON that says which run it is (model, data, recipe, seed ...); the file
        of another run is refused. every: seconds between two writings; it is written when training ends, too.

    Of several processes rank 0 alone reads and writes. `times` is how often training went on from it. Raises LabError
    where the file cannot be written, is damaged, or is of another run.
    """

    def __init__(self, path, run, every=180.0):
        self.path, self.run, self.every = path, json.loads(json.dumps(plain(run))), every
        self.times, self.taken_up = 0, False

    def begin(self, model, optimizers, batches, history, processes):
        self.model, self.optimizers, self.batches = model, optimizers, batches
        self.history, self.processes, self.written = history, processes, time.monotonic()
        data = processes.rank_0_reads(self._read)
        if data:
            advice = f"Remove {shortened(self.path)} to begin anew."
            try:
                self._take_up(data)
            except LabError as error:
                raise LabError(f"{error} {advice}") from error
            except Exception as error:  # there is no telling what a damaged file leads to
                reason = shortened(" ".join(str(error).split())).rstrip(".")
                raise LabError(f"The checkpoint {shortened(self.path)} is damaged: {reason}. {advice}") from error

    def _read(self):
        """The file, or b"" where there is none; one that is empty or cannot be read is damaged, for all processes."""
        try:
            return self.path.read_bytes() or b"empty"
        except FileNotFoundError:
            return b""
        except OSError as error:
            return str(error).encode()

    def mark(self):
        self.times, self.taken_up = self.times + self.taken_up, False
        self.marked = self._place()

    def keep(self):
        if time.monotonic() - self.written >= self.every:
            self._write(*self._place())

    def __exit__(self, kind, *_):
        if kind is None:
            self._write(*self._place())
        elif kind is KeyboardInterrupt and self.processes.stopped:
            self._write(*self.marked)

    def _place(self):
        """Random states, and where the pass over the data stands."""
        return self.processes.chance(), self.batches.order, self.batches.used

    def _write(self, chance, order, used):
        if self.processes.rank:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer {number}.{index}.{name}": value for name, value in state.items()}
        tensors |= {f"chance.{number}": state for number, state in enumerate(chance)}
        for name in ("loss", "seconds"):
            tensors[f"history.{name}"] = torch.tensor(getattr(self.history, name), dtype=torch.float64)
        tensors["order"] = order
        # Copies, since safetensors refuses weights that share their memory, as tied ones do.
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        head = {"format": FORMAT, "run": self.run, "times": self.times, "used": used, "torch": torch.__version__}
        head |= {"probes": plain(self.history.probes), "digest": _digest(tensors)}
        with written_whole(self.path, "A name for a checkpoint") as unfinished:
            unfinished.write_bytes(safetensors.torch.save(tensors, {"checkpoint": json.dumps(head)}))
        self.written = time.monotonic()

    def _take_up(self, data):
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["checkpoint"]
        head, tensors = json.loads(head), safetensors.torch.load(data)
        if head["format"] != FORMAT:
            raise LabError(f"The checkpoint {shortened(self.path)} is of format {head['format']}, not {FORMAT}.")
        other = sorted(key for key in head["run"] | self.run if head["run"].get(key) != self.run.get(key))
        if other:
            raise LabError(f"The checkpoint {shortened(self.path)} is of another run: {', '.join(other)} differ.")
        if head["digest"] != _digest(tensors):
            raise ValueError("its checksum differs")
        self.model.load_state_dict(_within(tensors, "model."))
        for number, optimizer in enumerate(self.optimizers):
            states = {}
            for name, value in _within(tensors, f"optimizer {number}.").items():
                index, _, key = name.partition(".")
                states.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        for name in ("loss", "seconds"):
            getattr(self.history, name)[:] = tensors[f"history.{name}"].tolist()
        self.history.probes[:] = head["probes"]
        self.batches.order, self.batches.used = tensors["order"], head["used"]
        self.times, self.taken_up = head["times"], True
        done = f"{len(self.history.loss):,} updates"
        print(f"Going on after {done} ({shortened(self.path)}; remove it to begin anew).", flush=True)
        states = (tensors.get(f"chance.{number}") for number in itertools.count())
        self.processes.set_chance(list(itertools.takewhile(lambda state: state is not None, states)))


def read_updates(path):
    """How many updates a checkpoint holds; 0 where there is none."""
    if not path.exists():
        return 0
    with reading(path, "A checkpoint") as path:
        return len(safetensors.torch.load(path.read_bytes())["history.loss"])


def _within(tensors, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _digest(tensors):
    record = hashlib.sha256()
    for name in sorted(tensors):
        record.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        record.update(tensors[name].flatten().view(torch.uint8).numpy())
    return record.hexdigest()
