"""Products of vectors with the Hessian of a mean loss over a declared sample."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from softknee._diagnose.curvature.second_order import twice_differentiable
from softknee._diagnose.preserve import called_with, preserved
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from softknee._diagnose.task import Batch, Task

# Bytes of the gradients' graphs that are kept; what does not fit is computed again for each product.
GRAPH_LIMIT = 2**31
# Of gradients that should be the same.
_CLOSE = 1e-3


@contextlib.contextmanager
def hessian(
    task: Task, parameters: Sequence[nn.Parameter] | None = None, *, limit: int = GRAPH_LIMIT
) -> Iterator[Hessian]:
    """Open the Hessian of a task's mean loss; model, modes and gradients are afterwards as before.

    The model runs in eval mode: what dropout draws and batch statistics do is no part of the loss.

    Args:
        task: With a loss.
        parameters: By which to differentiate, all trainable ones if None; frozen ones are left out.
        limit: Bytes of graphs to keep.

    Yields:
        The operator, which works until the context is left.

    Raises:
        UsageError: No parameter is trainable, the loss depends on none, or is not finite.
    """
    chosen = [one for one in task.model.parameters() if one.requires_grad]
    if parameters is not None:
        wanted = set(parameters)
        chosen = [one for one in chosen if one in wanted]
    if not chosen:
        raise UsageError("no parameter is trainable, so the loss has no curvature; unfreeze some")
    with preserved(task.model), twice_differentiable():
        yield Hessian(task, chosen, limit=limit)


class Hessian:
    """The Hessian of the mean loss over a sample, as a linear map; made by `hessian`.

    The graph of the gradient is kept, and each product is one backward pass through it. Where the graphs of all batches
    do not fit, those that do not are made anew for each product; where a function has no second derivative, products
    are central differences of gradients. Batches count by their number of samples.

    Args:
        task: As in `hessian`.
        parameters: Trainable ones.
        limit: As in `hessian`.

    Attributes:
        task: The task.
        parameters: By which it differentiates.
        size: Number of their elements.
        method: How products are computed, in words.
        loss: Mean loss of the sample.
        gradient: `(size,)` of that loss.
        differences: Whether products are differences of gradients.
    """

    def __init__(self, task: Task, parameters: Sequence[nn.Parameter], *, limit: int = GRAPH_LIMIT) -> None:
        self.task = task
        self.parameters = list(parameters)
        self.size = sum(one.numel() for one in self.parameters)
        self.method = "double backward, graph kept"
        self.differences = False
        # Gradients with their graphs, of all batches that are kept together.
        self._kept: list[Tensor] = []
        self._anew: list[Batch] = []
        dtypes = {one.dtype for one in self.parameters}
        self._dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        reason = self._obstacle(task.batches[0])
        if reason:
            self.differences = True
            self.method = f"central differences of gradients ({reason})"
            self.loss, self.gradient = self._gradient_by_backward()
        else:
            self.loss, self.gradient = self._open(limit)
        if not math.isfinite(self.loss) or not bool(self.gradient.isfinite().all()):
            raise UsageError(
                f"the loss or its gradient is not finite (the loss is {self.loss:g}), so it has no curvature"
            )

    def zeros(self) -> Tensor:
        """Return a vector for it, `(size,)` of zeros in the dtype and on the device that products have."""
        return torch.zeros(self.size, dtype=self._dtype, device=self.parameters[0].device)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product with a vector.

        Args:
            vector: `(size,)`, the parameters' elements one after another.

        Returns:
            The same shape, float64 if any parameter is, else float32.
        """
        vector = vector.to(self._dtype)
        if self.differences:
            return self._by_differences(vector)
        views = self.split(vector)
        product = self._backward(self._kept, views, keep=True) if self._kept else self.zeros()
        for batch in self._anew:
            product = product + self._backward(self._gradients(batch)[1], views, keep=False)
        return product

    def split(self, vector: Tensor) -> list[Tensor]:
        """Return the parts of a vector, in the shapes and dtypes of the parameters."""
        parts = vector.split([one.numel() for one in self.parameters])
        return [part.view(one.shape).to(one.dtype) for part, one in zip(parts, self.parameters, strict=True)]

    def join(self, parts: Sequence[Tensor | None]) -> Tensor:
        """Return tensors in the shapes of the parameters as one vector, None as zeros."""
        return torch.cat(
            [
                (torch.zeros_like(one) if part is None else part).detach().reshape(-1).to(self._dtype)
                for part, one in zip(parts, self.parameters, strict=True)
            ]
        )

    def share(self, batch: Batch) -> float:
        """Return the share of the samples that a batch has."""
        return batch.size / self.task.samples

    def _open(self, limit: int) -> tuple[float, Tensor]:
        """Keep the graphs of as many batches as fit; return the loss and its gradient."""
        first = self.task.batches[0]
        each = self._bytes(first) / first.size
        loss, gradient, left = 0.0, self.zeros(), limit
        for batch in self.task.batches:
            value, parts = self._gradients(batch)
            loss += value
            gradient += self.join(parts)
            left -= int(each * batch.size)
            if left < 0:
                self._anew.append(batch)
            elif self._kept:
                self._kept = [one + other for one, other in zip(self._kept, parts, strict=True)]
            else:
                self._kept = parts
        if self._anew:
            count = f"{len(self._anew)} of {len(self.task.batches)} batches"
            self.method = f"double backward, graph made anew for {count} (limit {limit / 2**20:.0f} MiB)"
        return loss, gradient

    def _loss(self, batch: Batch) -> Tensor:
        return self.task.loss(batch, self.task.run(batch)) * self.share(batch)

    def _gradients(self, batch: Batch) -> tuple[float, list[Tensor]]:
        """Return a batch's share of the loss, and of the gradient with its graph."""
        loss = self._loss(batch)
        self._check_depends(loss)
        parts = torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, self.parameters, strict=True)]
        return float(loss.detach()), filled

    def _check_depends(self, loss: Tensor) -> None:
        if not loss.requires_grad:
            raise UsageError("the loss depends on no trainable parameter, or without gradients, so it has no curvature")

    def _backward(self, gradients: Sequence[Tensor], views: Sequence[Tensor], *, keep: bool) -> Tensor:
        pairs = [(g, v) for g, v in zip(gradients, views, strict=True) if g.requires_grad]
        if not pairs:
            # A loss that is linear in everything.
            return self.zeros()
        outputs, vectors = zip(*pairs, strict=True)
        return self.join(torch.autograd.grad(outputs, self.parameters, vectors, retain_graph=keep, allow_unused=True))

    def _bytes(self, batch: Batch) -> int:
        """Return how much the graph of a batch's gradient keeps, without the parameters."""
        sizes: dict[int, int] = {one.untyped_storage().data_ptr(): 0 for one in self.parameters}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes.setdefault(storage.data_ptr(), storage.nbytes())
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            gradients = self._gradients(batch)
        # Counted while all of them are there, for freed memory is given out again.
        total = sum(sizes.values())
        del gradients
        return total

    def _obstacle(self, batch: Batch) -> str:
        """Return why a batch cannot be differentiated twice, empty if it can."""
        loss = self._loss(batch)
        self._check_depends(loss)
        try:
            loss.backward()
            whole = self.join([one.grad for one in self.parameters])
            parts = self._gradients(batch)[1]
            if not torch.allclose(self.join(parts), whole, rtol=_CLOSE, atol=_CLOSE * float(whole.abs().max())):
                return "a part of the model is seen by whole backward passes alone, as reentrant checkpoints are"
            with_graph = [one for one in parts if one.requires_grad]
            if with_graph:
                # A whole pass, for one towards the parameters alone goes around what forbids it, and is silently wrong.
                torch.autograd.backward(with_graph, [torch.ones_like(one) for one in with_graph])
        except (RuntimeError, NotImplementedError) as error:
            return str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
        finally:
            for one in self.task.model.parameters():
                one.grad = None
        return ""

    def _by_differences(self, vector: Tensor) -> Tensor:
        length = float(torch.linalg.vector_norm(vector))
        if length == 0:
            return self.zeros()
        # Errors of rounding and of the third derivative are in balance at the cube root.
        size = math.sqrt(sum(float(one.detach().double().square().sum()) for one in self.parameters) / self.size)
        rounding = max(torch.finfo(one.dtype).eps for one in self.parameters)
        reach: float = rounding ** (1 / 3) * max(size, 1e-3) * math.sqrt(self.size)
        step = vector * (reach / length)
        ahead = self._gradient_by_backward(self.split(step))[1]
        behind = self._gradient_by_backward(self.split(-step))[1]
        return (ahead - behind) * (length / (2 * reach))

    def _gradient_by_backward(self, offsets: Sequence[Tensor] | None = None) -> tuple[float, Tensor]:
        """Return the loss and its gradient at the parameters plus offsets, which replace them for the call alone.

        By whole backward passes, which reentrant checkpoints demand.
        """
        offsets = offsets or self.split(self.zeros())
        moved = [(one.detach() + offset).requires_grad_() for one, offset in zip(self.parameters, offsets, strict=True)]
        by_parameter = dict(zip(self.parameters, moved, strict=True))
        names = {
            f"model.{name}": by_parameter[one]
            for name, one in self.task.model.named_parameters()
            if one in by_parameter
        }
        loss, backward = 0.0, _Backward(self)
        for batch in self.task.batches:
            loss += called_with(backward, names, (batch,))
        return loss, self.join([one.grad for one in moved])


class _Backward(nn.Module):
    """Runs a model and its backward pass, both with the same parameters in place."""

    def __init__(self, owner: Hessian) -> None:
        super().__init__()
        self.model = owner.task.model
        self._of = owner._loss

    def forward(self, batch: Batch) -> float:
        """Return a batch's share of the loss; its gradient goes to `.grad`."""
        loss = self._of(batch)
        loss.backward()
        return float(loss.detach())
