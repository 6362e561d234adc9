"""Shared fixtures; every shape annotation of the library is checked while the tests run."""

import shutil
from collections.abc import Callable
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING
from unittest.mock import patch

import beartype
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook


def keep_code_of_imports() -> None:
    """Have the hook keep its compiled code apart from Python's for the library's own files only.

    It does so while a module runs, too, so that whatever the library imports is compiled anew: half of the time that
    collecting the tests takes. All of this is jaxtyping's own: a version that does it otherwise is left alone.
    """
    try:
        from jaxtyping import _import_hook

        parent, place_of = _import_hook._JaxtypingLoader, _import_hook._optimized_cache_from_source
        place_of(parent("", "", typechecker=_import_hook.Typechecker(None))._typechecker.get_hash(), "module.py")
    except (ImportError, AttributeError, TypeError):
        return

    class Loader(parent):
        def get_code(self, fullname: str) -> CodeType | None:
            place = partial(place_of, self._typechecker.get_hash())
            with patch("importlib._bootstrap_external.cache_from_source", place):
                return super().get_code(fullname)

        def exec_module(self, module: ModuleType) -> None:
            SourceFileLoader.exec_module(self, module)

    _import_hook._JaxtypingLoader = Loader


keep_code_of_imports()
# A whole number is a float to the type checker (PEP 484), so it is to the tests.
CHECK = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def check_when_called(function: Callable[..., object]) -> Callable[..., object]:
    """Have a function's check made at its first call: a process calls few of all that it imports."""
    made: list[Callable[..., object]] = []

    def check(*arguments: object, **named: object) -> object:
        if not made:
            made.append(CHECK(function))
        return made[0](*arguments, **named)

    return check


beartype.with_tower = check_when_called
install_import_hook("humansplat", "beartype.with_tower")

if TYPE_CHECKING:
    from humansplat.models.sv3d_unet import SV3DUNet
    from humansplat.pipelines.reconstructor import Reconstructor


TESTS = Path(__file__).parent
COMPILING = ("render", "models/windowed_attention", "data/scans/test_reading.py", "data/synthetic/test_drape.py")
"""Here every kernel is compiled."""
WITHOUT_KERNELS = ("body/test_fit", "body/test_smpl", "capture", "geometry", "io", "metrics", "structures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let two processes, of which each begins with half of the tests, not compile the same kernels at the same time.

    The first begins with the tests that compile all of them, the second with tests that need none of them; later it
    finds them in the cache.
    """
    places = [item.path.relative_to(TESTS).as_posix() for item in items]
    first = [item for item, place in zip(items, places, strict=True) if place.startswith(COMPILING)]
    middle = [item for item, place in zip(items, places, strict=True) if place.startswith(WITHOUT_KERNELS)]
    moved = {*first, *middle}
    others = [item for item in items if item not in moved]
    half = max(0, len(items) // 2 - len(first))
    items[:] = first + others[:half] + middle + others[half:]


@pytest.fixture
def rng() -> torch.Generator:
    """A fresh generator with a fixed seed."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of untrained weights of the real classes, for pictures of 64 px."""
    from humansplat.models.autoencoder import build_autoencoder
    from humansplat.models.latent_reconstructor import LatentReconstructor

    folder = tmp_path_factory.mktemp("weights") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build_autoencoder(channels=(16, 16, 16, 16)).save_pretrained(folder / "vae")
        network = LatentReconstructor(
            width=16,
            num_heads=2,
            num_intra_layers=1,
            num_body_layers=1,
            num_inter_layers=1,
            num_body_tokens=64,
            kept_cells=32,
        )
        network.save_pretrained(folder / "reconstructor")
    (folder / "config.json").write_text('{"image_size": 64}\n')
    return folder


@pytest.fixture(scope="session")
def tiny_reconstructor(tiny_weights: Path) -> "Reconstructor":
    """A reconstructor with those weights."""
    from humansplat.pipelines.reconstructor import Reconstructor

    return Reconstructor.from_pretrained(tiny_weights, "cpu")


@pytest.fixture(scope="session")
def make_tiny_sv3d() -> "Callable[..., SV3DUNet]":
    """Makes SV3D's network at two levels of width 32, every tensor random: ``make_tiny_sv3d(latent_scaling=1.0)``."""
    from humansplat.models.sv3d_unet import SV3DUNet

    tiny = {
        "block_out_channels": (32, 32),
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "num_attention_heads": 2,
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 160,
    }

    def make(**changes: object) -> "SV3DUNet":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            unet = SV3DUNet(**{**tiny, **changes}).requires_grad_(False)
            for tensor in unet.state_dict().values():
                tensor.add_(0.05 * torch.randn_like(tensor))
        return unet.eval()

    return make


@pytest.fixture(scope="session")
def four_views(
    tiny_weights: Path, make_tiny_sv3d: "Callable[..., SV3DUNet]", tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny weights, but stating four inputs, with an untrained view model."""
    from humansplat.models.sv3d import SV3D, build_image_encoder

    folder: Path = shutil.copytree(tiny_weights, tmp_path_factory.mktemp("weights") / "four")
    encoder = build_image_encoder(width=16, num_layers=1, num_heads=2, projection=16, image_size=32)
    SV3D(make_tiny_sv3d(latent_scaling=1.0), encoder).save(folder / "view_model")
    (folder / "config.json").write_text('{"image_size": 64, "num_inputs": 4, "view_sampling": {"num_steps": 2}}')
    return folder


def smpl_standin(name: str, num_vertices: int = 600, *, num_shapes: int | None = None, seed: int = 0) -> dict:
    """Arrays with the official keys and shapes of ``smpl``, ``smplh`` or ``smplx``, of a body that is random but
    has its joints about where a person's are: each joint is the middle of a cluster of vertices that it pulls."""
    from humansplat.body.smpl import JOINT_NAMES

    random = np.random.default_rng(seed)
    names = JOINT_NAMES[name]
    joints, parents = _standin_skeleton(names)
    num_shapes = num_shapes or (20 if name == "smplx" else 10)
    of_vertex = np.arange(num_vertices) % len(names)
    template = joints[of_vertex] + random.normal(0, 0.02, (num_vertices, 3))
    regressor = np.zeros((len(names), num_vertices))
    for joint in range(len(names)):
        regressor[joint, np.flatnonzero(of_vertex == joint)[:8]] = 1 / 8
    weights = np.zeros((num_vertices, len(names)))
    share = random.uniform(0.6, 1, num_vertices)
    weights[np.arange(num_vertices), of_vertex] += share
    weights[np.arange(num_vertices), np.maximum(parents, 0)[of_vertex]] += 1 - share
    faces = np.concatenate(
        [np.arange(num_vertices - 2)[:, None] + [0, 1, 2], random.integers(0, num_vertices, (9, 3))]
    )
    tree = np.stack([parents, np.arange(len(names))])
    arrays = {
        "v_template": template,
        "f": faces.astype(np.uint32),
        "shapedirs": random.normal(0, 0.01, (num_vertices, 3, num_shapes)),
        "posedirs": random.standard_normal((num_vertices, 3, 9 * (len(names) - 1)), np.float32) * np.float32(1e-3),
        "J_regressor": regressor,
        "kintree_table": np.where(tree < 0, 2**32 - 1, tree).astype(np.int64),
        "weights": weights,
    }
    if name != "smpl":
        for side in "lr":
            arrays[f"hands_components{side}"] = np.linalg.qr(random.normal(size=(45, 45)))[0]
            arrays[f"hands_mean{side}"] = random.normal(0, 0.3, 45)
    if name == "smplx":
        arrays["lmk_faces_idx"] = random.integers(0, len(faces), 51)
        arrays["lmk_bary_coords"] = random.dirichlet([1, 1, 1], 51)
        arrays["dynamic_lmk_faces_idx"] = random.integers(0, len(faces), (79, 17))
        arrays["dynamic_lmk_bary_coords"] = random.dirichlet([1, 1, 1], (79, 17))
    return arrays


def _standin_skeleton(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Joints [j, 3] of a T-pose in metres, and their parents, by the joints' names."""
    steps = {
        "pelvis": ("", (0, 0, 0)), "hip": ("pelvis", (0.07, -0.09, 0)), "knee": ("hip", (0.03, -0.38, 0)),
        "ankle": ("knee", (-0.01, -0.4, -0.04)), "foot": ("ankle", (0.03, -0.06, 0.12)),
        "spine1": ("pelvis", (0, 0.11, -0.02)), "spine2": ("spine1", (0, 0.13, 0)), "spine3": ("spine2", (0, 0.06, 0)),
        "neck": ("spine3", (0, 0.22, -0.03)), "head": ("neck", (0, 0.09, 0.05)), "collar": ("spine3", (0.07, 0.12, 0)),
        "shoulder": ("collar", (0.11, 0.04, 0)), "elbow": ("shoulder", (0.26, -0.01, -0.02)),
        "wrist": ("elbow", (0.25, 0.01, 0)), "hand": ("wrist", (0.08, 0, 0)), "jaw": ("head", (0, 0.01, 0.02)),
        "eye": ("head", (0.03, 0.06, 0.08)),
    }  # fmt: skip
    for place, finger in enumerate(("index", "middle", "pinky", "ring", "thumb")):
        steps[f"{finger}1"] = ("wrist", (0.1, 0, 0.03 - 0.02 * place))
        steps |= {f"{finger}{link}": (f"{finger}{link - 1}", (0.03, 0, 0)) for link in (2, 3)}
    joints, parents = np.zeros((len(names), 3)), np.full(len(names), -1)
    for index, name in enumerate(names[1:], start=1):
        side, _, base = name.rpartition("_")
        above, step = steps[base]
        parents[index] = names.index(above if above in names else f"{side}_{above}")
        joints[index] = joints[parents[index]] + np.array(step) * [-1 if side == "right" else 1, 1, 1]
    return joints, parents


@pytest.fixture(scope="session")
def make_smpl_standin() -> "Callable[..., dict[str, np.ndarray]]":
    """Makes the arrays of a stand-in: ``make_smpl_standin("smplx", num_vertices=600, num_shapes=20, seed=0)``."""
    return smpl_standin


@pytest.fixture(scope="session")
def smpl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small stand-ins of all three models and genders, as smplx lays them out."""
    folder = tmp_path_factory.mktemp("body_models")
    for name in ("smpl", "smplh", "smplx"):
        (folder / name).mkdir()
        for seed, gender in enumerate(("neutral", "male", "female")):
            np.savez(folder / name / f"{name.upper()}_{gender.upper()}.npz", **smpl_standin(name, seed=seed))
    return folder
