"""The optimisers of helpers.train: AdamW, and Muon for the matrices of larger models."""

import math

import torch


class Muon(torch.optim.Optimizer):
    """Momentum whose updates of matrices are orthogonalised, so that they move all directions alike.

    The nearest orthogonal matrix is approached by five steps of a Newton-Schulz iteration, and the update scaled to
    the size of one of Adam's, so that one learning rate serves both. A convolution's weights are a matrix of its
    outputs by all that one of them sees. In float32: torch.optim.Muon iterates in bfloat16,
    which takes several times as long on a processor without instructions for it.
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the scale: Liu et al., "Muon
    is scalable for LLM training", 2025 (arXiv 2502.16982).
    """

    MOMENTUM, STEPS, COEFFICIENTS = 0.95, 5, (3.4445, -4.7750, 2.0315)

    def __init__(self, matrices, lr, weight_decay=0.0):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for matrix in (matrix for matrix in group["params"] if matrix.grad is not None):
                mean = self.state[matrix].setdefault("mean", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - self.MOMENTUM)
                update = self.orthogonal(matrix.grad.lerp(mean, self.MOMENTUM).flatten(1))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update.view_as(matrix), alpha=-group["lr"] * 0.2 * math.sqrt(max(update.shape)))

    def orthogonal(self, x):
        """A matrix of the same shape and directions, whose singular values are all about 1."""
        if x.shape[0] > x.shape[1]:
            return self.orthogonal(x.T).T
        a, b, c = self.COEFFICIENTS
        x = x / x.norm().clamp(min=1e-7)
        for _ in range(self.STEPS):  # each singular value s becomes a s + b s^3 + c s^5
            square = x @ x.T
            x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
        return x


def make_optimizers(weights, name, learning_rate, weight_decay):
    if name == "adam":
        return [torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay, fused=True)]
    matrices, vectors = [w for w in weights if w.ndim > 1], [w for w in weights if w.ndim < 2]
    parts = [Muon(matrices, learning_rate, weight_decay)] if matrices else []
    return parts + ([torch.optim.Adam(vectors, lr=learning_rate, fused=True)] if vectors else [])
