"""The networks that come with the package, and how payloads name them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from coinpp_xr.coding.pyramid.expert import Network, network_of, no_network
from coinpp_xr.errors import ModelNotFoundError
from coinpp_xr.parallel import single_threaded_blas

FILE = Path(__file__).parent / "universal.safetensors"
FINGERPRINT_BYTES = 8
KINDS = ("alone", "referring")
# Of a network, in the order of its layers.
ARRAYS = ("first", "first.bias", "second", "second.bias", "last", "last.bias")
# Which of them an effort asks; fast asks none.
_OF_EFFORT = {"default": "small", "paper": "small", "best": "large"}


@dataclass(frozen=True, eq=False)
class Expert:
    """Two networks, as payloads name them.

    Parameters
    ----------
    alone, referring : Network
        For fields that refer to no others, and for those that do.
    fingerprint : bytes
        Eight of them, over all weights and biases; empty for none.
    """

    alone: Network
    referring: Network
    fingerprint: bytes

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[Any]], name: str) -> Expert:
        """One of several experts of a file."""
        digest, networks = hashlib.sha256(), []
        for kind in KINDS:
            arrays = [np.asarray(tensors[f"{name}.{kind}.{array}"], "<i4") for array in ARRAYS]
            digest.update(b"".join(array.tobytes() for array in arrays))
            networks.append(network_of(arrays))
        alone, referring = networks
        return cls(alone, referring, digest.digest()[:FINGERPRINT_BYTES])

    @classmethod
    def for_references(cls, arrays: Sequence[npt.NDArray[Any]]) -> Expert:
        """One network, for fields that refer to others.

        Raises
        ------
        ValueError
            If the arrays do not make a network.
        """
        digest = hashlib.sha256(b"".join(np.asarray(a, "<i4").tobytes() for a in arrays))
        return cls(no_network(), network_of(arrays), digest.digest()[:FINGERPRINT_BYTES])

    @property
    def is_for_references_alone(self) -> bool:
        return bool(self.fingerprint) and not len(self.alone.first)

    @property
    def for_references_alone(self) -> Expert:
        """The same, but for fields that refer to nothing there is none."""
        return replace(self, alone=no_network())

    def network(self, references: int) -> Network:
        """The one for fields that refer to so many others."""
        return self.referring if references else self.alone

    def undisturbed(self) -> AbstractContextManager[None]:
        """Where it is asked: by threads of ours, which BLAS would divide once more."""
        return single_threaded_blas() if self.fingerprint else nullcontext()


@cache
def shipped() -> dict[str, Expert]:
    """The experts of the package, by name: ``small`` and ``large``."""
    tensors = load_file(FILE)
    return {name: Expert.of(tensors, name) for name in ("small", "large")}


@cache
def no_expert() -> Expert:
    return Expert(no_network(), no_network(), b"")


def expert_for(effort: str, *, large: bool) -> Expert:
    """What an encoder asks, if anything.

    Of single ``large`` fields it saves little more than a hundredth at the usual effort, and takes
    half as much time again.
    """
    if effort not in _OF_EFFORT:
        return no_expert()
    expert = shipped()[_OF_EFFORT[effort]]
    return expert.for_references_alone if large and effort != "best" else expert


def expert_around_background(effort: str, *, large: bool, single: bool) -> Expert:
    """What an encoder asks where every field refers to a background at least.

    Not where fields are large and single: coding is not to take the time for a network.
    """
    return no_expert() if large and single and effort != "best" else expert_for(effort, large=False)


def find_expert(fingerprint: bytes, own: Expert | None = None) -> Expert:
    """The expert of a payload: one of the package, or its model's ``own``.

    Raises
    ------
    ModelNotFoundError
    """
    for expert in [*([own] if own else []), *shipped().values()]:
        if expert.fingerprint == fingerprint:
            return expert
    raise ModelNotFoundError(
        f"this data was coded with a network {fingerprint.hex()} that this version of coinpp-xr "
        "does not have; install the version that wrote it"
    )
