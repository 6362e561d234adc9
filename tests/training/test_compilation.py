"""What cannot be compiled in parts; what can is tested with the reconstructor. And recorded training steps."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from humansplat.config import OptimConfig, SV3DConfig, TrainConfig
from humansplat.errors import UserError
from humansplat.structures import Cameras, TensorStruct
from humansplat.training.compilation import compile_network
from humansplat.training.graphs import _Recorded, _Replayed, _signature
from humansplat.training.optimizer import clipped_step, make_optimizer
from humansplat.training.view_task import ViewDenoising, build_sv3d

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_parts_that_a_network_lacks_are_refused():
    with pytest.raises(UserError, match="compile is blocks, and Linear has none"):
        compile_network(nn.Linear(1, 1), "blocks")
    listed = nn.Sequential(nn.ModuleList([nn.Linear(1, 1)]))
    with pytest.raises(UserError, match="compile is stages, and Sequential has none"):
        compile_network(listed, "stages")


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(UserError, match="needs a CUDA device, and Linear is on cpu"):
        compile_network(nn.Linear(1, 1), "graphs")
    with pytest.raises(UserError, match="compile is graphs, which cannot compute activations anew"):
        TrainConfig(task="sv3d", compile="graphs", gradient_checkpointing=True)


@pytest.mark.gpu
@needs_cuda
def test_modules_that_recording_would_break_are_refused():
    device = torch.device("cuda")
    hooked = nn.Linear(1, 1, device=device)
    hooked.register_forward_hook(lambda *_: None)
    for module, reason in ((hooked, "has hooks"), (nn.BatchNorm1d(1, device=device), "counts statistics")):
        with pytest.raises(UserError, match=reason):
            compile_network(module, "graphs")
    linear = nn.Linear(1, 1, device=device)
    compile_network(linear, "graphs")
    with pytest.raises(UserError, match="more than tensors without gradients"):
        linear(torch.zeros(1, 1, device=device, requires_grad=True))


class Played:
    """What a graph does, by a function."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.replay = function


def test_gradients_that_lie_where_activations_do_add_up():
    """Recordings share memory: replaying the forward pass destroys the gradients of the piece before."""
    module = nn.Linear(3, 2, bias=False)
    written = deepcopy(module)
    weight = module.weight.detach()
    values, result, result_gradient, own = (torch.zeros(*shape) for shape in ((4, 3), (4, 2), (4, 2), (2, 3)))

    def forward() -> None:
        own.fill_(float("nan"))
        result.copy_(values @ weight.T)

    def backward() -> None:
        own.copy_(result_gradient.T @ values)

    replayed = _Replayed(module)
    replayed._recorded = _Recorded(
        Played(forward), Played(backward), (values,), result, (result_gradient,), ((module.weight, own),),
        ((), _signature(values)),
    )  # fmt: skip
    replayed._anchor = torch.zeros((), requires_grad=True)
    module.forward = replayed
    for pieces in (1, 2, 3):
        for piece in range(pieces):
            # The second one is of another size and runs as written, into the first one's gradients.
            inputs = torch.rand(5 if piece == 1 and pieces == 3 else 4, 3)
            module(inputs).square().sum().backward()
            written(inputs).square().sum().backward()
        torch.testing.assert_close(module.weight.grad, written.weight.grad)
        module.zero_grad(set_to_none=True)
        written.zero_grad(set_to_none=True)


class Parts(TensorStruct):
    doubled: Tensor
    whole: Tensor
    name: str


class Doubled(nn.Module):
    """From a record and a tensor by name to a record, of which one tensor has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.5, -0.5, 2.0]))

    def forward(self, cameras: Cameras, scale: int, *, offset: Tensor | None = None) -> Parts:
        values = cameras.viewmats[:, :3, 3] * scale * (1 if offset is None else offset)
        return Parts(doubled=2 * self.weight * values, whole=values.round(), name="parts")


def test_records_are_given_and_come_back():
    module, written = Doubled(), Doubled()
    places = (torch.zeros(2, 4, 4), torch.zeros(2, 3, 3), torch.zeros(2, 3))
    result = Parts(doubled=torch.zeros(2, 3), whole=torch.zeros(2, 3), name="parts")
    result_gradient, own = torch.zeros(2, 3), torch.zeros(3)

    def cameras(side: int = 8) -> Cameras:
        return Cameras(viewmats=torch.rand(2, 4, 4), Ks=torch.rand(2, 3, 3), width=side, height=side)

    def forward() -> None:
        made = written(Cameras(viewmats=places[0], Ks=places[1], width=8, height=8), 3, offset=places[2])
        result.doubled.copy_(made.doubled.detach())
        result.whole.copy_(made.whole)

    def backward() -> None:
        own.copy_((result_gradient * 2 * places[0][:, :3, 3] * 3 * places[2]).sum(dim=0))

    replayed = _Replayed(module)
    offset = torch.rand(2, 3)
    replayed._recorded = _Recorded(
        Played(forward), Played(backward), places, result, (result_gradient, None), ((module.weight, own),),
        (("offset",), _signature(cameras()), 3, _signature(offset)),
    )  # fmt: skip
    replayed._anchor = torch.zeros((), requires_grad=True)
    module.forward = replayed
    others = ((cameras(), 4, offset), (cameras(side=16), 3, offset), (cameras(), 3, None))  # run as written
    for number, (given, scale, by) in enumerate([(cameras(), 3, offset), *others]):
        made, expected = module(given, scale, offset=by), written(given, scale, offset=by)
        assert replayed.number == 1, number
        assert made.name == "parts"
        assert made.doubled.requires_grad
        assert not made.whole.requires_grad
        for one in (made, expected):
            one.doubled.square().sum().backward()
        torch.testing.assert_close(made.doubled, expected.doubled)
        torch.testing.assert_close(made.whole, expected.whole)
        torch.testing.assert_close(module.weight.grad, written.weight.grad)
        module.zero_grad(set_to_none=True)
        written.zero_grad(set_to_none=True)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_steps_are_the_steps_as_written(precision, pieces, monkeypatch):
    # Else float32 convolutions are rounded to TF32, and which kernel does so depends on what ran before.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    device = torch.device("cuda")
    losses: dict[str, list[float]] = {}
    gradients: dict[str, Tensor] = {}
    for how in ("no", "graphs"):
        torch.manual_seed(0)
        with device:
            module = ViewDenoising(build_sv3d(SV3DConfig(), 1.0)).train()
        optimizer = make_optimizer(module, OptimConfig(lr=1e-3))
        compile_network(module, how)
        generator = torch.Generator(device).manual_seed(1)
        losses[how] = []
        for step in range(5):
            count = 3 if step == 3 else 2  # another shape, as written
            shapes = ((4, 4, 8, 8), (), (4, 8, 8), (3, 64, 64), (4,), (4,), (2,))
            arguments = [torch.rand(count, *shape, generator=generator, device=device) for shape in shapes]
            for piece in range(pieces):  # gradients add up
                with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
                    result = module(*(argument * (1 + piece) for argument in arguments))
                loss = (result.float() - arguments[0]).square().mean()
                loss.backward()
            losses[how].append(loss.item())
            if step == 0:
                gradients[how] = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
            clipped_step(optimizer, 1.0)
        module.eval()
        with torch.no_grad():
            losses[how].append(module(*arguments).square().mean().item())
    wrong = (gradients["graphs"] - gradients["no"]).norm() / gradients["no"].norm()
    assert wrong < (1e-4 if precision == "float32" else 2e-2), "gradients of the first step"
    # The optimizer's first steps are as long for small gradients as for large ones.
    assert losses["graphs"] == pytest.approx(losses["no"], rel=1e-3 if precision == "float32" else 1e-2)
    module.train()
    first, _ = module(*arguments).sum(), module(*arguments)
    with pytest.raises(RuntimeError, match="called again before"):
        first.backward()


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("how", ["no", "graphs"])
def test_a_gpus_gradients_in_half_precision_are_a_cpus(how):
    """Attention over few views, in few channels, is at the edge of what fused kernels are made for."""
    shapes = ((4, 4, 32, 32), (), (4, 32, 32), (3, 256, 256), (4,), (4,), (2,))
    generator = torch.Generator().manual_seed(1)
    arguments = [torch.rand(2, *shape, generator=generator) for shape in shapes]
    gradients: list[list[Tensor]] = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        module = ViewDenoising(build_sv3d(SV3DConfig(), 1.0)).train().to(device)
        if device == "cuda":
            compile_network(module, how)
        given = [argument.to(device) for argument in arguments]
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            result = module(*given)
        (result.float() - given[0]).square().mean().backward()
        gradients.append([p.grad.cpu() for p in module.parameters() if p.grad is not None])
    whole, found_whole = (torch.cat([part.flatten() for part in parts]) for parts in gradients)
    assert (found_whole - whole).norm() < 0.05 * whole.norm()  # bfloat16 on a CPU: 0.012
    largest = max(expected.norm() for expected in gradients[0])
    for expected, found in zip(*gradients, strict=True):
        if expected.norm() > 1e-3 * largest:  # bfloat16 on a CPU: 0.90 at least
            assert torch.cosine_similarity(expected.flatten(), found.flatten(), 0) > 0.8
