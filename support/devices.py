"""Where a model runs: processor or GPU, one process or several, watched by a person or not."""

import contextlib
import datetime
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import pickle
import platform
import re
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from support.checks import LabError

# A recurrent step waits for the one before it, and small steps share out badly: one thread is the fastest here.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)


# Numbers too small for normal floating point make Intel processors several times slower: gradients, and Adam's second
# moment, once a loss has all but reached 0. Here they become 0. A process that trains imports this module before its
# first computation; the threads that torch starts for that then do the same.
torch.set_flush_denormal(True)


def processor():
    """The processor's name, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else []
    return names[0] if names else platform.processor()


def choose_device(name="auto"):
    """The torch.device of that name, after a small LSTM on it has given the CPU's values and gradients.

    "auto" takes a CUDA GPU, else Apple's MPS, else the CPU, and passes over a device whose LSTM is wrong (MPS has been:
    pytorch issue 92615). In one of several processes (torchrun) "cuda" is the GPU of that process.
    Raises LabError for a name that is unknown, absent here, or whose LSTM is wrong.
    """
    if name == "auto":
        for kind, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
            with contextlib.suppress(LabError):
                if there:
                    return choose_device(kind)
        return torch.device("cpu")
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", of_torchrun("LOCAL_RANK", 0) % max(1, torch.cuda.device_count()))
        off = _lstm_difference(device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:  # torch's ways to say no
        reason = str(error).splitlines()[0]
        raise LabError(f"There is no device {name!r} here: {reason} Choose 'auto', 'cpu', 'cuda' or 'mps'.") from error
    if not off < 1e-3:
        raise LabError(f"An LSTM on {device} is off the CPU's values by {off:.2g}. Use the CPU.")
    return device


def _lstm_difference(device):
    """The largest difference between an LSTM there and on the CPU, outputs and gradients, whose size is about 1."""
    results = []
    for place in ("cpu", device):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(3, 7, 5, generator=generator)
        lstm = nn.LSTM(5, 16, num_layers=2, batch_first=True)
        with torch.no_grad():
            for weight in lstm.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) / 4)
        lstm, inputs = lstm.to(place), inputs.to(place).requires_grad_()
        outputs = lstm(inputs)[0]
        outputs.square().sum().backward()
        results.append(torch.cat([tensor.detach().cpu().flatten() for tensor in (outputs, inputs.grad)]))
    return (results[0] - results[1]).abs().max().item()


def has_bfloat16(device):
    """Whether a model can be trained in bfloat16 there without emulation: an LSTM runs, and instructions exist."""
    device = torch.device(device)
    try:
        with torch.autocast(device.type, torch.bfloat16):
            nn.LSTM(4, 4, device=device)(torch.zeros(1, 1, 4, device=device))[0].sum().backward()
    except RuntimeError:  # oneDNN has no such LSTM for this processor
        return False
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


def autocast(device, bfloat16):
    """Matrix products in bfloat16 where that is asked for and the device has it; a warning where it has not."""
    if bfloat16 and not has_bfloat16(device):
        warnings.warn(f"No instructions for bfloat16 ({device}): training in float32, which is slower.", stacklevel=3)
        bfloat16 = False
    return lambda: torch.autocast(device.type, torch.bfloat16) if bfloat16 else contextlib.nullcontext()


def of_torchrun(name, otherwise):
    """A whole number that torchrun puts into the environment; `otherwise` where there is none, or an empty text.

    Raises LabError for anything else, which a launcher other than torchrun, or a shell, may have left there.
    """
    text = os.environ.get(name, "").strip()
    if not re.fullmatch(r"\d*", text):
        raise LabError(f"The environment variable {name} is {text!r}, no whole number. Unset it, or start by torchrun.")
    return int(text or otherwise)


def process():
    """The number of this process (its rank) and how many train together: (0, 1) outside of `several_processes`."""
    on = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if on else (0, 1)


@contextlib.contextmanager
def several_processes(device):
    """While it lasts, `train` splits its batches over the processes that torchrun started; one alone stays alone.

    They talk through NCCL where each has a GPU of its own, else through Gloo. Only rank 0 prints and warns; that only
    rank 0 writes is up to the caller (see `process`). Once in a program, around all of it: a second group of the same
    processes could read the addresses of the first, and wait for them. Within another it adds nothing.
    Raises LabError where they do not find each other. What takes ten minutes longer on one process ends all.
    """
    if of_torchrun("WORLD_SIZE", 1) == 1 or process()[1] > 1:
        yield
        return
    if not dist.is_available():
        raise LabError("This build of torch knows no processes (torch.distributed). Start one, without torchrun.")
    own_gpu = device.type == "cuda" and of_torchrun("LOCAL_WORLD_SIZE", 1) <= torch.cuda.device_count()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if own_gpu else "gloo", timeout=datetime.timedelta(minutes=10))
    except (RuntimeError, ValueError) as error:
        raise LabError(f"The processes do not find each other ({error}). Start them with torchrun.") from error
    with contextlib.ExitStack() as silence:
        if dist.get_rank():
            silence.enter_context(contextlib.redirect_stdout(None))
            silence.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        yield
    dist.destroy_process_group()  # not after an error, when the others may never answer: torchrun ends them


class Processes:
    """What the processes that train one model have in common, within `with`; a process alone sends nothing.

    All make the same batches with the same random numbers, and each takes every `count`-th sequence of them. One sum an
    update (all-reduce) gives all of them the mean loss and gradient; the seconds are rank 0's. An interrupt of any is
    noted, and stops all before the same update (`stopped`), so that none waits for one that has left. `notes`: so does
    one of a process alone, which then has made an update wholly or not at all.
    Source: the data parallelism of torch.distributed, without DDP, which needs the model's forward.
    """

    def __init__(self, model, device, notes=False):
        self.model, self.device, self.interrupted, self.stopped = model, device, False, False
        self.rank, self.count = process()
        self.notes = notes or self.count > 1
        if self.count > 1 and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
            raise LabError("Batch norm takes its statistics within one process. Use layer norm with several.")

    def __enter__(self):
        self.handler = signal.getsignal(signal.SIGINT)
        own = threading.current_thread() is threading.main_thread()  # only there can a signal be handled
        self.notes = self.notes and own and self.handler is signal.default_int_handler
        if self.notes:
            signal.signal(signal.SIGINT, self._note)
        self.agree()

    def __exit__(self, kind, *_):
        if self.notes:
            signal.signal(signal.SIGINT, self.handler)
        if self.interrupted and kind is None:  # after the last update
            raise KeyboardInterrupt

    def _note(self, *_):
        self.interrupted = True

    def agree(self):
        """Weights and random numbers become rank 0's, whatever a probe has done, or another kind of processor."""
        if self.count > 1:
            for tensor in self.model.state_dict().values():
                tensor.copy_(self._sent(dist.broadcast, tensor, 0))
            self.set_chance([self._sent(dist.broadcast, state, 0).cpu() for state in self.chance()])

    def share(self, batch):
        """This process's part of a batch."""
        if self.count == 1:
            return batch
        if len(batch) % self.count:
            several = f"A batch of {len(batch)} does not split evenly over {self.count} processes."
            raise LabError(f"{several} Let batch_size be a multiple of {self.count}.")
        return batch[self.rank :: self.count]

    @contextlib.contextmanager
    def own_chance(self, step):
        """Random numbers within the model (dropout) that differ between processes and leave the common ones alone."""
        if self.count == 1:
            yield
            return
        common = self.chance()
        torch.manual_seed((torch.initial_seed() + (step + 1) * self.count + self.rank) % 2**63)
        yield
        self.set_chance(common)

    def mean(self, loss, weights):
        """The loss (a tensor), after it and the gradients of the weights have become the means over all processes."""
        if self.count == 1:
            return loss.detach()
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        parts = [loss.detach(), loss.new_tensor(self.interrupted), *gradients]
        summed = self._sent(dist.all_reduce, torch.cat([part.flatten() for part in parts]))
        loss, interrupted, *means = (summed / self.count).split([part.numel() for part in parts])
        self._stop(interrupted)
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
        return loss

    def begin_update(self):
        """A process alone stops here, before the forward pass moves running statistics; several stop in `mean`."""
        self._stop(self.count == 1 and self.interrupted)

    def _stop(self, wanted):
        if wanted:
            self.stopped = True
            raise KeyboardInterrupt

    def rank_0_reads(self, read):
        """What read() gives on rank 0, bytes, in every process; read() is not called elsewhere."""
        data = read() if self.rank == 0 else b""
        if self.count == 1:
            return data
        size = int(self._sent(dist.broadcast, torch.tensor(len(data)), 0))
        parts = torch.zeros(size, dtype=torch.uint8)
        parts[: len(data)] = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)[: len(data)]
        return self._sent(dist.broadcast, parts, 0).cpu().numpy().tobytes()

    def rank_0_says(self, value):
        """Rank 0's number, in every process."""
        if self.count == 1:
            return value
        return self._sent(dist.broadcast, torch.tensor(value, dtype=torch.float64), 0).item()

    def _sent(self, function, tensor, *arguments):
        """A copy of the tensor after all processes have taken part: on the GPU for NCCL, on the CPU for Gloo."""
        tensor = tensor.detach().to(self.device if dist.get_backend() == "nccl" else "cpu", copy=True)
        try:
            function(tensor, *arguments)
        except RuntimeError as error:
            raise LabError(f"Another process has ended, which says why, or does not answer ({error}).") from error
        return tensor

    def chance(self):
        """The states of the random numbers: the CPU's, and the device's."""
        return [place.get_rng_state() for place in self._generators()]

    def set_chance(self, states):
        for place, state in zip(self._generators(), states, strict=True):
            place.set_rng_state(state)

    def _generators(self):
        return [torch] if self.device.type == "cpu" else [torch, getattr(torch, self.device.type)]


def progress(iterable, label, total=None):
    """A progress bar for a person who is watching (one, of several processes), nothing in outputs that are stored."""
    off = not someone_watches() or process()[0]
    return tqdm(iterable, desc=label, total=total, leave=False, file=sys.stderr, disable=off)


def someone_watches():
    """True in a live notebook session and in a terminal; False under nbconvert, papermill, nbval and pytest."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return sys.stderr.isatty()
    # A front end with a person before it says that it can answer questions; the runners say that they cannot.
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin", False))


def in_processes(calls, at_once=1):
    """The results of calls, each in a new process of its own, so that its memory is its own too: yields (name, result).

    calls: name -> (function, *arguments), importable and picklable. at_once: how many run side by side.
    Where one fails, or is ended by the system (a LabError says which), the others go on, and what was raised is raised
    at the end. An interrupt, or the end of this process, ends all of them.
    """
    context, waiting, running, failed = multiprocessing.get_context("spawn"), dict(calls), {}, []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = next(iter(waiting))
                receiver, sender = context.Pipe(duplex=False)
                child = context.Process(target=_call, args=(sender, *waiting.pop(name)), daemon=True)
                with _interrupts_wait():  # the child's, which has no handler yet, until it has one
                    child.start()
                sender.close()
                running[receiver] = name, child
            for receiver in multiprocessing.connection.wait(list(running)):
                name, child = running.pop(receiver)
                try:
                    good, result = pickle.loads(receiver.recv_bytes())
                except (EOFError, OSError):
                    child.join()
                    cause = "SIGKILL, as where memory runs out" if child.exitcode == -9 else f"code {child.exitcode}"
                    good, result = False, LabError(f"{name}: its process was ended by the system ({cause}).")
                child.join()
                if good:
                    yield name, result
                else:
                    failed.append(result)
    except BaseException:
        for _, child in running.values():
            with contextlib.suppress(OSError):
                os.kill(child.pid, signal.SIGINT) if os.name == "posix" else child.terminate()
        for _, child in running.values():
            child.join()
        raise
    for error in failed:
        if not isinstance(error, LabError):
            raise error
    if failed:
        raise LabError("\n".join(map(str, failed)))


@contextlib.contextmanager
def _interrupts_wait():
    """SIGINT is held back, here and in a process that is started meanwhile, where the system can do that."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    multiprocessing.resource_tracker.ensure_running()  # which lets SIGINT through where it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _call(sender, function, *arguments):
    """In a new process: send (True, result), or (False, what was raised); end where the process that asks ends."""
    asks = multiprocessing.parent_process()
    threading.Thread(target=lambda: (asks.join(), os._exit(1)), daemon=True).start()
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        told = True, function(*arguments)
    except BaseException as error:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's and the asking process's may both come
        if not isinstance(error, LabError | KeyboardInterrupt):
            traceback.print_exc()
        told = False, error
    # Bytes, since torch would send tensors as shared memory, which is gone with this process.
    sender.send_bytes(pickle.dumps(told))
