"""The container of glTF 2.0 (``.glb``, ``.gltf``, ``.vrm``): its JSON, buffers, accessors and pictures.

Written after the Khronos specification, sections 3.6 (buffers, accessors, sparse accessors) and 4 (GLB). Libraries
that read glTF either drop skins or are thin records over the JSON; what is needed is a page.
"""

import base64
import binascii
import io
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from humansplat.errors import UserError

MAGIC, JSON_CHUNK, BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
COMPONENTS = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
MAX_ELEMENTS = 50_000_000
UNREADABLE = {
    "KHR_draco_mesh_compression": "is compressed with Draco",
    "EXT_meshopt_compression": "is compressed with meshopt",
    "KHR_meshopt_compression": "is compressed with meshopt",
}


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what a malformed file makes go wrong into one sentence that names it."""
    try:
        yield
    except UserError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error) as error:
        what = f"{type(error).__name__}: {error}" if isinstance(error, (KeyError, AttributeError)) else str(error)
        raise UserError(f"{path} is not a valid glTF 2.0 file ({what}); export it again") from error
    except (RecursionError, MemoryError) as error:
        raise UserError(f"{path} is too large or too deep to be read; export it with fewer polygons") from error


class GltfFile:
    """A file in memory.

    Args:
        path: ``.glb``, ``.vrm`` or ``.gltf``; the latter's buffers and pictures lie beside it or inside it.

    Raises:
        UserError: If the file is not glTF 2.0, is damaged, or is compressed in a way that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with naming(path):
            self.json, self._embedded = _chunks(path)
            version = str(self.json["asset"]["version"])
            if not version.startswith("2."):
                raise UserError(f"{path} is glTF {version}; export it as glTF 2.0")
            for extension in self.json.get("extensionsRequired", ()):
                if extension in UNREADABLE:
                    raise UserError(f"{path} {UNREADABLE[extension]}; export it without compression")
            self._buffers: dict[int, bytes] = {}

    def items(self, key: str) -> list[dict[str, Any]]:
        """One of the top-level lists of objects; empty when there is none."""
        found = self.json.get(key, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise ValueError(f"{key} is not a list of objects")
        return found

    def accessor(self, index: int) -> np.ndarray:
        """Read an accessor: ``[n, k]``, float32 if it is float or normalized, its own integers otherwise."""
        accessor = item_at(self.items("accessors"), index, "accessor")
        kind = np.dtype(COMPONENTS[accessor["componentType"]]).newbyteorder("<")
        width, count = WIDTHS[accessor["type"]], int(accessor["count"])
        if not 0 < count <= MAX_ELEMENTS:
            raise ValueError(f"accessor {index} has {count} elements")
        if "bufferView" in accessor:
            values = self._elements(accessor["bufferView"], int(accessor.get("byteOffset", 0)), kind, width, count)
        else:
            values = np.zeros((count, width), kind)
        if "sparse" in accessor:
            values = self._sparse(accessor["sparse"], values, kind, width)
        if accessor.get("normalized") and kind.kind != "f":
            largest = 2.0 ** (8 * kind.itemsize - (kind.kind == "i")) - 1.0
            return np.maximum(values.astype(np.float32) / np.float32(largest), -1.0)
        return values.astype(np.float32) if kind.kind == "f" else values

    def _sparse(self, sparse: dict[str, Any], values: np.ndarray, kind: np.dtype, width: int) -> np.ndarray:
        count = int(sparse["count"])
        places, new = sparse["indices"], sparse["values"]
        place_kind = np.dtype(COMPONENTS[places["componentType"]]).newbyteorder("<")
        where = self._elements(places["bufferView"], int(places.get("byteOffset", 0)), place_kind, 1, count)[:, 0]
        changed = values.copy()
        if count and int(where.max()) >= len(values):
            raise ValueError(f"a sparse accessor changes element {int(where.max())} of {len(values)}")
        changed[where] = self._elements(new["bufferView"], int(new.get("byteOffset", 0)), kind, width, count)
        return changed

    def _elements(self, view: int, offset: int, kind: np.dtype, width: int, count: int) -> np.ndarray:
        record = item_at(self.items("bufferViews"), view, "buffer view")
        data = self.view(view)
        size = kind.itemsize * width
        stride = int(record.get("byteStride", 0)) or size
        if offset < 0 or stride < size or (count and offset + stride * (count - 1) + size > len(data)):
            raise ValueError(f"{count} elements of {size} bytes leave buffer view {view} of {len(data)} bytes")
        return np.ndarray((count, width), kind, data, offset, (stride, kind.itemsize)).copy()

    def view(self, index: int) -> bytes:
        """The bytes of a buffer view."""
        view = item_at(self.items("bufferViews"), index, "buffer view")
        data = self._buffer(view["buffer"])
        start, length = int(view.get("byteOffset", 0)), int(view["byteLength"])
        if start < 0 or length < 0 or start + length > len(data):
            raise ValueError(f"buffer view {index} leaves its buffer of {len(data)} bytes")
        return data[start : start + length]

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            buffer = item_at(self.items("buffers"), index, "buffer")
            data = self.resource(buffer["uri"]) if "uri" in buffer else self._embedded
            if len(data) < int(buffer["byteLength"]):
                raise ValueError(f"buffer {index} has {len(data)} of {buffer['byteLength']} bytes")
            self._buffers[index] = data
        return self._buffers[index]

    def resource(self, uri: str) -> bytes:
        """What a URI names: data in itself, or a file in the folder of this file or below."""
        if uri.startswith("data:"):
            head, _, body = uri.partition(",")
            try:
                return (
                    base64.b64decode(body, validate=False)
                    if head.endswith(";base64")
                    else unquote(body).encode("latin-1")
                )
            except binascii.Error as error:
                raise ValueError(f"a data URI is damaged: {error}") from error
        name = unquote(uri).replace("\\", "/")
        folder = self.path.parent.resolve()
        found = (folder / name).resolve()
        if "://" in uri or not found.is_relative_to(folder):
            raise UserError(f"{self.path} names {uri!r}, which is not in its folder; export it as .glb")
        try:
            return found.read_bytes()
        except OSError as error:
            raise UserError(
                f"{self.path} needs {found.name} beside it, which cannot be read ({error.strerror})"
            ) from error

    def image(self, index: int, max_size: int) -> UInt8[np.ndarray, "h w c"]:
        """Decode a picture to sRGB with 3 or 4 channels, its longer side reduced to ``max_size`` pixels."""
        image = item_at(self.items("images"), index, "image")
        data = self.resource(image["uri"]) if "uri" in image else self.view(image["bufferView"])
        try:
            with Image.open(io.BytesIO(data)) as file:
                picture = file.convert("RGBA" if file.has_transparency_data else "RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"image {index} cannot be decoded: {error}") from error
        scale = max_size / max(picture.size)
        if scale < 1:
            size = tuple(max(1, round(side * scale)) for side in picture.size)
            picture = picture.resize(size, Image.Resampling.BOX)  # type: ignore[arg-type]
        return np.asarray(picture)


def item_at(items: list[dict[str, Any]], index: object, what: str) -> dict[str, Any]:
    """One of a list of objects.

    Raises:
        ValueError: If there is none.
    """
    if not isinstance(index, int) or not 0 <= index < len(items):
        raise ValueError(f"there is no {what} {index!r}, only {len(items)}")
    return items[index]


def _chunks(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON of a file, and the binary chunk of a GLB."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from error
    text, binary = data, b""
    if data[:4] == b"glTF":
        if len(data) < 20:
            raise ValueError(f"it ends after {len(data)} bytes")
        _, version, length = struct.unpack_from("<III", data)
        if version != 2:
            raise UserError(f"{path} is binary glTF {version}; export it as glTF 2.0")
        if length > len(data):
            raise ValueError(f"it has {len(data)} of {length} bytes")
        chunks, offset = [], 12
        while offset + 8 <= length:
            size, kind = struct.unpack_from("<II", data, offset)
            if offset + 8 + size > length:
                raise ValueError("a chunk leaves the file")
            chunks.append((kind, data[offset + 8 : offset + 8 + size]))
            offset += 8 + size
        if not chunks or chunks[0][0] != JSON_CHUNK:
            raise ValueError("it does not begin with JSON")
        text = chunks[0][1]
        binary = next((chunk for kind, chunk in chunks[1:] if kind == BIN_CHUNK), b"")
    elif path.suffix.lower() != ".gltf":
        raise ValueError("it does not begin with 'glTF'")
    parsed = json.loads(text.decode("utf-8-sig"))
    if not isinstance(parsed, dict):
        raise ValueError("its JSON is no object")
    return parsed, binary
