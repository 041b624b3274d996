"""A model: base network, normalisation, quantizer statistics, entropy tables and card in one file.

Files are safetensors with JSON metadata; nothing is ever unpickled. A model is known by its
fingerprint, a hash of everything that decoding depends on.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save as safetensors_bytes

from coinpp_xr.coordinates import BoxGrid
from coinpp_xr.entropy import CELLS, Histogram
from coinpp_xr.errors import ModelNotFoundError
from coinpp_xr.exact import pack_bytes
from coinpp_xr.files import write_atomically
from coinpp_xr.model_files import read_file, shipped_models
from coinpp_xr.model_schema import FORMAT, check_model, check_units, reason_of
from coinpp_xr.network import BaseNetwork, QuantizedTail
from coinpp_xr.notebook_html import block, head, numbers, table
from coinpp_xr.priors import Prior
from coinpp_xr.quantization import UniformQuantizer
from coinpp_xr.reference import Reference
from coinpp_xr.siren import LatentMap, ModulatedSiren, check_for_models

if TYPE_CHECKING:
    from coinpp_xr.climatology import Climatology
    from coinpp_xr.deblocking import Deblocking

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, eq=False)
class Model:
    """Everything that turns fields into bits and back.

    Parameters
    ----------
    name : str
        Short name, for people and for codec configurations.
    siren : ModulatedSiren
        Base network with float32 numpy parameters.
    domain : {"sphere", "patch"}
        Latitude-longitude grids, or patches of images, volumes and sound.
    offset, scale : float
        Features are (value − offset) / scale, in the data's unit. Every payload of patches has
        its own: 0 and 1 here.
    latent_mean, latent_std : float64 array, shape (coded,)
        Of the fitted latents of the training data: those that ``bits`` stores, at most all.
    histogram : uint32 array, shape (coded, 512)
        Their frequencies; see :func:`coinpp_xr.entropy.fit_histogram`.
    card : dict
        Description for people: data, scores, training, licence. Not part of the fingerprint.
    tail : QuantizedTail, optional
        A linear tail behind the SIREN.
    spectrum : int8 array, shape (bands, latent_dim), optional
        Expected size of every latent by temporal frequency; see
        :func:`coinpp_xr.transform.fit_spectrum`.
    reference : Reference, optional
        Fields like those that the model is for.
    climatology : Climatology, optional
        Their mean on their own grid, which fields under a bound refer to.
    box : BoxGrid, optional
        Of a patch: its cells along every axis, and between which coordinates they lie.
    prior : Prior, optional
        What the coder of patches starts from, for every rate control but ``bits``.
    deblocking : Deblocking, optional
        What improves decoded patches, with the same rate controls.
    """

    name: str
    siren: ModulatedSiren
    domain: str
    offset: float
    scale: float
    latent_mean: npt.NDArray[np.float64]
    latent_std: npt.NDArray[np.float64]
    histogram: Histogram
    card: dict[str, Any] = field(default_factory=dict)
    tail: QuantizedTail | None = None
    spectrum: npt.NDArray[np.int8] | None = None
    reference: Reference | None = None
    box: BoxGrid | None = None
    prior: Prior | None = None
    deblocking: Deblocking | None = None
    climatology: Climatology | None = None

    def __post_init__(self) -> None:
        parse_name(self.name)
        check_for_models(self.siren.modulation, self.siren.latent_map.kind)

    def __repr__(self) -> str:
        return f"<Model {self.name}: {self.outline}, fingerprint {self.fingerprint}>"

    def _repr_html_(self) -> str:
        card = self.card
        unit = f" {self.units}" if self.units else ""
        scores = card.get("validation_rmse")
        listed = list(scores.items()) if isinstance(scores, dict) else []  # files hold anything
        licence = card.get("licence", card.get("license", "not stated in its card"))
        shipped = shipped_models().get(self.name)
        if shipped is not None and Model.from_file(shipped).fingerprint == self.fingerprint:
            licence = "Apache-2.0, as the package"
        rows = [
            ("made for", str(card.get("description", "not stated in its card"))),
            ("grid", str(card.get("grid", card.get("patch", "not stated in its card")))),
            ("variable", str(card.get("variable", ""))),
            ("units", self.units),
            ("held-out RMSE", ", ".join(f"{rmse}{unit} ({rate})" for rate, rmse in listed)),
            ("network", self.outline),
            ("licence", str(licence)),
            ("fingerprint", self.fingerprint),
        ]
        best = [(f"{rmse}{unit}", f"RMSE, {rate}") for rate, rmse in listed[-1:]]
        sizes = [(f"{self.latent_dim:,}", "latents"), (f"{self.nbytes:,}", "bytes")]
        shown = [(label, value) for label, value in rows if value]
        return block(
            head("coinpp_xr.Model", self.name),
            numbers([*sizes, *best]),
            table([("", "left"), ("", "prose")], shown),
        )

    @property
    def outline(self) -> str:
        """What it consists of, for people."""
        if self.climatology is not None and self.latent_dim == 0:
            n_lat, n_lon = self.climatology.shape
            network = ", and a network of the pyramid" if self.climatology.network else ""
            return f"a mean field of {n_lat} × {n_lon} cells{network}"
        siren, tail = self.siren, self.tail
        parts = [f"{self.latent_dim} latents", f"{siren.depth} × {siren.width} SIREN"]
        if tail is not None:
            parts[-1] += f" with {siren.latent_dim} of them"
            kind = "cosines" if self.box is not None else f"degree {tail.tail.degree}"
            parts.append(f"{tail.tail.latent_dim} in a linear tail of {kind}")
        return ", ".join([*parts, f"{self.network.parameter_count:,} parameters"])

    @cached_property
    def network(self) -> BaseNetwork:
        """The SIREN and its tail as one function of coordinates and latents."""
        return BaseNetwork(self.siren, self.tail.tail if self.tail else None)

    @cached_property
    def coded_network(self) -> BaseNetwork:
        """The network with those latents only that ``bits`` stores."""
        return self.network.truncated(len(self.histogram))

    @property
    def latent_dim(self) -> int:
        return self.network.latent_dim

    @classmethod
    def without_siren(
        cls, name: str, offset: float, scale: float, card: dict[str, Any], **parts: Any
    ) -> Model:
        """A model without latents of a SIREN, which is zero everywhere: its parts are the model."""
        zero = np.zeros((1, 1), np.float32)
        siren = ModulatedSiren(
            (np.zeros((1, 3), np.float32), zero),
            (zero[0], np.full(1, -0.5, np.float32)),
            LatentMap("linear", (np.zeros((1, 0), np.float32),)),
            1.0,
        )
        nothing = np.zeros(0)
        histogram = np.zeros((0, CELLS), np.uint32)
        return cls(name, siren, "sphere", offset, scale, nothing, nothing, histogram, card, **parts)

    @property
    def units(self) -> str:
        return str(self.card.get("units", ""))

    def quantizer(self, bits: int) -> UniformQuantizer:
        return UniformQuantizer(self.latent_mean, self.latent_std, bits)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all that decoding depends on."""
        digest = hashlib.sha256(json.dumps(self.definition, sort_keys=True).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
            digest.update(tensor.reshape(-1).view(np.uint8).data)
        return digest.hexdigest()[:16]

    @cached_property
    def nbytes(self) -> int:
        """Size of the model's file in bytes."""
        return len(self.to_bytes())

    @property
    def definition(self) -> dict[str, Any]:
        """The numbers that decoding depends on, beside :attr:`tensors`."""
        box = self.box
        return {
            "format": FORMAT,
            "domain": self.domain,
            "offset": self.offset,
            "scale": self.scale,
            "omega0": self.siren.omega0,
            "depth": self.siren.depth,
            **({"box": [[int(n) for n in box.shape], box.low, box.high]} if box else {}),
        }

    @property
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that decoding depends on, by the names that model files use."""
        layers = range(self.siren.depth + 1)
        tensors = {
            **{f"weight.{i}": self.siren.weights[i] for i in layers},
            **{f"bias.{i}": self.siren.biases[i] for i in layers},
            "shift_map": self.siren.shift_map,
            "latent_mean": self.latent_mean,
            "latent_std": self.latent_std,
            "histogram": self.histogram,
        }
        if self.tail is not None:
            tensors |= {"tail.symbols": self.tail.symbols, "tail.steps": self.tail.steps}
        if self.spectrum is not None:
            tensors["spectrum"] = self.spectrum
        if self.reference is not None:
            tensors |= {
                "reference.numbers": self.reference.numbers,
                "reference.latitude": self.reference.latitude,
                "reference.longitude": self.reference.longitude,
            }
        if self.climatology is not None:
            tensors |= self.climatology.tensors
        if self.prior is not None:
            tensors["prior"] = self.prior.packed
        if self.deblocking is not None:
            tensors |= self.deblocking.tensors
        return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}

    def to_bytes(self) -> bytes:
        """The model's file as bytes; the same model always gives the same bytes."""
        description = {
            **self.definition,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "card": self.card,
        }
        # One entry: safetensors writes several in random order.
        tensors = self.tensors
        if self.tail is not None:
            # By far the largest part, and half of it are zeros and other small numbers.
            description["tail_functions"] = self.tail.symbols.shape[1]
            tensors["tail.symbols"] = np.frombuffer(pack_bytes(self.tail.symbols), np.uint8)
        metadata = {"coinpp_xr": json.dumps(description, sort_keys=True)}
        return bytes(safetensors_bytes(tensors, metadata))

    def save(self, path: str | Path) -> Path:
        """Write the model to one file, whole or not at all."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, self.to_bytes())
        return target

    @classmethod
    def from_parts(
        cls,
        name: str,
        definition: dict[str, Any],
        tensors: dict[str, npt.NDArray[Any]],
        card: dict[str, Any],
    ) -> Model:
        """The model of a :attr:`definition` and its :attr:`tensors`.

        Raises
        ------
        ValueError
            If they do not make a model.
        """
        check_model(definition, tensors)
        layers = range(definition["depth"] + 1)
        siren = ModulatedSiren(
            tuple(tensors[f"weight.{i}"] for i in layers),
            tuple(tensors[f"bias.{i}"] for i in layers),
            LatentMap("linear", (tensors["shift_map"],)),
            float(definition["omega0"]),
        )
        box = tail = reference = prior = None
        if "box" in definition:
            shape, low, high = definition["box"]
            box = BoxGrid(tuple(shape), float(low), float(high))
        if "tail.symbols" in tensors:
            tail = QuantizedTail(tensors["tail.symbols"], tensors["tail.steps"], box)
        if "reference.numbers" in tensors:
            parts = (tensors[f"reference.{part}"] for part in ("numbers", "latitude", "longitude"))
            reference = Reference(*parts)
        if "prior" in tensors:
            prior = Prior(tensors["prior"])
            _ = prior.state  # a damaged one should show now
        return cls(
            name=name,
            siren=siren,
            domain=definition["domain"],
            offset=float(definition["offset"]),
            scale=float(definition["scale"]),
            latent_mean=tensors["latent_mean"],
            latent_std=tensors["latent_std"],
            histogram=tensors["histogram"],
            card=card,
            tail=tail,
            spectrum=tensors.get("spectrum"),
            reference=reference,
            box=box,
            prior=prior,
            deblocking=_read_deblocking(tensors),
            climatology=_read_climatology(tensors),
        )

    @classmethod
    def from_file(cls, path: str | Path) -> Model:
        """Read a model file.

        Raises
        ------
        ValueError
            If the file is damaged or not a model.
        """
        if not Path(path).is_file():
            raise ModelNotFoundError(f"no model file at {path}")
        try:
            description, tensors = read_file(Path(path))
            card = description["card"]
            if not isinstance(card, dict):
                raise ValueError("its card is no JSON object")
            check_units(card.get("units", ""))
            model = cls.from_parts(parse_name(description["name"]), description, tensors, card)
            if description["fingerprint"] != model.fingerprint:
                raise ValueError("its content does not have the fingerprint it was saved with")
        except (SafetensorError, LookupError, ValueError, TypeError) as error:
            raise ValueError(
                f"{path} is not a coinpp-xr model file or is damaged: {reason_of(error)}"
            ) from error
        return model


def _read_deblocking(tensors: dict[str, npt.NDArray[Any]]) -> Deblocking | None:
    if not any(name.startswith("deblocking.") for name in tensors):
        return None
    from coinpp_xr.deblocking import Deblocking  # compiles, or loads what was compiled

    return Deblocking.from_tensors(tensors)


def _read_climatology(tensors: dict[str, npt.NDArray[Any]]) -> Climatology | None:
    if "climatology.packed" not in tensors:
        return None
    from coinpp_xr.climatology import Climatology  # compiles, or loads what was compiled

    return Climatology.from_tensors(tensors)


def parse_name(name: Any) -> str:
    """Check a model's name: it becomes a file name, and stands in codec configurations.

    Raises
    ------
    ValueError
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith(".safetensors"):
        raise ValueError(
            "a model's name is one word of at most 64 letters, digits, dots, hyphens and "
            f"underscores, without a file suffix, got {str(name)[:80]!r}"
        )
    return name


def parse_fingerprint(fingerprint: Any) -> str:
    """Check a model's fingerprint.

    Raises
    ------
    ValueError
    """
    if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
        raise ValueError(
            f"a model's fingerprint is 16 hexadecimal digits, got {str(fingerprint)[:40]!r}"
        )
    return fingerprint
