"""Open Inference Protocol v2 over REST with the binary tensor extension: bytes to rows, probabilities to bytes.

Pure functions; app.py calls them. Specification: https://github.com/kserve/open-inference-protocol and, for binary
tensors, https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from mizzen.serve.errors import BadRequest, TooLarge

HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_ROWS = 1024
OUTPUTS = ("label", "probabilities")
VALUE = "value"  # the one output of a model that predicts a number

Row = dict[str, str]


@dataclass(frozen=True)
class InferRequest:
    """Rows by input name, and which outputs to return as binary tensors."""

    id: str | None
    rows: list[Row]
    outputs: dict[str, bool]  # name → binary?


def parse_json(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadRequest("the body must be a JSON object")
    return document


def parse_infer(body: bytes, header_length: str | None, columns: Sequence[str]) -> InferRequest:
    """Read an inference request whose inputs are exactly `columns`, each BYTES [n] or [n, 1]."""
    head, binary = _split(body, header_length)
    document = parse_json(head)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(i, dict) for i in inputs):
        raise BadRequest("inputs: must be a list of tensors")
    values: dict[str, list[str]] = {}
    for position, tensor in enumerate(inputs):
        name, texts, binary = _tensor(tensor, f"inputs[{position}]", binary)
        if name in values:
            raise BadRequest(f"inputs[{position}].name: {name!r} is there twice")
        values[name] = texts
    if binary:
        raise BadRequest(f"{len(binary)} bytes follow the last binary input")
    if set(values) != set(columns):
        raise BadRequest(f"inputs: the model takes {', '.join(columns)}, not {', '.join(values) or 'nothing'}")
    lengths = {len(texts) for texts in values.values()}
    if len(lengths) != 1:
        raise BadRequest("inputs: all must have as many elements")
    rows = [dict(zip(values, texts, strict=True)) for texts in zip(*values.values(), strict=True)]
    identifier = document.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise BadRequest("id: must be a string")
    return InferRequest(identifier, rows, _outputs(document))


def _split(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    if not header_length.isascii() or not header_length.isdigit() or int(header_length) > len(body):
        raise BadRequest(f"{HEADER_LENGTH}: must be the length of the JSON part")
    return body[: int(header_length)], body[int(header_length) :]


def _tensor(tensor: dict[str, Any], where: str, binary: bytes) -> tuple[str, list[str], bytes]:
    name, shape, parameters = tensor.get("name"), tensor.get("shape"), tensor.get("parameters", {})
    if not isinstance(name, str):
        raise BadRequest(f"{where}.name: must be a string")
    if tensor.get("datatype") != "BYTES":
        raise BadRequest(f"{where}.datatype: must be BYTES")
    if not isinstance(parameters, dict):
        raise BadRequest(f"{where}.parameters: must be an object")
    count = _elements(shape, where)
    size = parameters.get("binary_data_size")
    if size is None:
        return name, _texts(tensor.get("data"), count, where), binary
    if not _is_count(size) or size > len(binary):
        raise BadRequest(f"{where}.parameters.binary_data_size: more bytes than the body has")
    texts = [_decoded(element, where) for element in _elements_of(binary[:size], where)]
    if len(texts) != count:
        raise BadRequest(f"{where}: shape says {count} elements, the binary data holds {len(texts)}")
    return name, texts, binary[size:]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _elements(shape: object, where: str) -> int:
    if not isinstance(shape, list) or not shape or not all(_is_count(n) for n in shape) or set(shape[1:]) - {1}:
        raise BadRequest(f"{where}.shape: must be [n] or [n, 1]")
    if shape[0] == 0:
        raise BadRequest(f"{where}.shape: at least one element is needed")
    if shape[0] > MAX_ROWS:
        raise TooLarge(f"{where}.shape: at most {MAX_ROWS} elements in one request")
    return int(shape[0])


def _texts(data: object, count: int, where: str) -> list[str]:
    if isinstance(data, list):
        data = [inner for element in data for inner in (element if isinstance(element, list) else [element])]
    if not isinstance(data, list) or not all(isinstance(element, str) for element in data):
        raise BadRequest(f"{where}.data: must be a list of strings")
    if len(data) != count:
        raise BadRequest(f"{where}: shape says {count} elements, data holds {len(data)}")
    return data


def _elements_of(data: bytes, where: str) -> Iterator[bytes]:
    """BYTES elements: four bytes of length (little-endian), then so many bytes."""
    at = 0
    while at < len(data):
        end = at + 4 + (struct.unpack_from("<I", data, at)[0] if at + 4 <= len(data) else len(data))
        if end > len(data):
            raise BadRequest(f"{where}: the binary data ends within an element")
        yield data[at + 4 : end]
        at = end


def _decoded(element: bytes, where: str) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{where}: elements must be UTF-8") from None


def _outputs(document: dict[str, Any]) -> dict[str, bool]:
    parameters = document.get("parameters") or {}
    wanted = document.get("outputs") or [{"name": name} for name in OUTPUTS]
    if not isinstance(parameters, dict) or not isinstance(wanted, list):
        raise BadRequest("parameters must be an object, outputs a list")
    binary = bool(parameters.get("binary_data_output", False))
    chosen: dict[str, bool] = {}
    for output in wanted:
        name = output.get("name") if isinstance(output, dict) else None
        if name not in OUTPUTS:
            raise BadRequest(f"outputs: the model has {' and '.join(OUTPUTS)}, not {name!r}")
        own = output.get("parameters") or {}
        if not isinstance(own, dict):
            raise BadRequest("outputs: parameters must be an object")
        if "classification" in own:
            raise BadRequest("outputs: the classification extension is not supported; read label and probabilities")
        chosen[name] = bool(own.get("binary_data", binary))
    return chosen


def outputs_of(classes: Sequence[str]) -> list[dict[str, Any]]:
    """For a model's metadata."""
    if not classes:
        return [{"name": VALUE, "datatype": "FP32", "shape": [-1, 1]}]
    return [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(classes)]},
    ]


def infer_response(
    request: InferRequest, model: tuple[str, str], probabilities: np.ndarray, classes: Sequence[str]
) -> tuple[bytes, int | None]:
    """The body for probabilities (N, C), and the length of its JSON part where binary tensors follow."""
    n = len(probabilities)
    labels = [classes[i] for i in probabilities.argmax(axis=1)] if classes else []
    tensors: list[dict[str, Any]] = []
    tail = b""
    outputs = request.outputs if classes else {VALUE: any(request.outputs.values())}
    for name, binary in outputs.items():
        if name == "label":
            tensor: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": [n]}
            raw = b"".join(struct.pack("<I", len(label)) + label for label in (text.encode() for text in labels))
            plain: list[Any] = labels
        else:
            tensor = {"name": name, "datatype": "FP32", "shape": list(probabilities.shape)}
            raw = np.ascontiguousarray(probabilities, "<f4").tobytes()
            plain = probabilities.ravel().tolist()
        if binary:
            tensor["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            tensor["data"] = plain
        tensors.append(tensor)
    head: dict[str, Any] = {"model_name": model[0], "model_version": model[1], "outputs": tensors}
    if request.id is not None:
        head["id"] = request.id
    encoded = orjson.dumps(head)
    return encoded + tail, len(encoded) if any(request.outputs.values()) else None
