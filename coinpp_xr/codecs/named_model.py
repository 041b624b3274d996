"""How codecs and their configurations say which model they mean."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from coinpp_xr.codecs.base import NO_MODEL, WITHOUT_MODEL, Configured
from coinpp_xr.compact import embedded_model
from coinpp_xr.errors import CompressionWarning
from coinpp_xr.model_files import shipped_models
from coinpp_xr.models import (
    Model,
    is_at_hand_elsewhere,
    load_model,
    parse_fingerprint,
    parse_name,
    register_model,
)

# Fingerprints of models of which was said that readers need them.
_told: set[str] = set()


class NamesModel(Configured):
    """A codec with a model.

    The caller of a constructor gives a name, a path or a :class:`~coinpp_xr.models.Model`. A
    configuration, which may come from anybody, names a model: by a strict name and its
    fingerprint, never by a path, and what it embeds must have that fingerprint.
    """

    model: str | None
    fingerprint: str | None
    embed_model: str | None = None
    _default_model: str = NO_MODEL
    # Whether the caller of a constructor chose the model, and no configuration.
    _is_own = False
    # Whether it can embed its model.
    _embeds: ClassVar[bool] = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        if isinstance(config, Mapping):
            check_named(config)
        return super().from_config(config)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(type(self).from_config(state)))

    def to_dict(self) -> dict[str, Any]:
        """What Zarr writes into a store's metadata.

        Raises
        ------
        ValueError
            If the model has the name of a shipped one, and is another.
        """
        if self._is_own and self.embed_model is None:
            _check_for_readers(self.own_model(), ", or write with embed_model=True" * self._embeds)
        return super().to_dict()

    def own_model(self) -> Model | None:
        """The codec's model; None for none.

        Raises
        ------
        ModelNotFoundError
        """
        return None if self.fingerprint is None else self.find_model(self.fingerprint)

    def find_model(self, fingerprint: str) -> Model:
        """The model that a payload names.

        Raises
        ------
        ModelNotFoundError
        """
        if self.embed_model is not None and fingerprint == self.fingerprint:
            return embedded_model(self.embed_model, fingerprint)
        named = self.model not in (None, *WITHOUT_MODEL)
        return load_model(str(self.model if named else self._default_model), fingerprint)


def check_named(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that gives a model in another way than by name and fingerprint.

    Raises
    ------
    ValueError
    """
    name, fingerprint = config.get("model"), config.get("fingerprint")
    if name is not None:
        parse_name(name)
    if fingerprint is not None:
        parse_fingerprint(fingerprint)
    if isinstance(config.get("embed_model"), str) and None in (name, fingerprint):
        raise ValueError("a configuration that embeds a model needs its name and its fingerprint")


def chosen_model(model: str | Path | Model) -> Model:
    """The model that the caller of a constructor means; a path does not make it answer to a name.

    Raises
    ------
    ModelNotFoundError, ValueError
    """
    if isinstance(model, Model):
        return register_model(model)
    if isinstance(model, Path) or str(model).endswith(".safetensors"):
        return register_model(Model.from_file(model))
    return load_model(model)


def _check_for_readers(model: Model | None, otherwise: str) -> None:
    """See to it that a reader in another process finds the model that is written with."""
    if model is None or is_at_hand_elsewhere(model):
        return
    if model.name in shipped_models():
        raise ValueError(
            f"the model with fingerprint {model.fingerprint} has the name of another one that "
            f"comes with the package, {model.name!r}: readers would not find it; give it another "
            f"name (dataclasses.replace(model, name=...)){otherwise}"
        )
    if model.fingerprint not in _told:
        _told.add(model.fingerprint)
        warnings.warn(
            f"readers of what is written need model {model.name!r}, which is in this process only: "
            f"keep its file (model.save) and run 'coinpp models install FILE'{otherwise}",
            CompressionWarning,
            stacklevel=2,
        )
