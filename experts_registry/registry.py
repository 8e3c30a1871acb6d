"""The expert file, loaded: immutable, checked as a whole, known by its digest."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from experts_registry.complaints import Complaint, complaints
from experts_registry.errors import RegistryError, unknown_name
from experts_registry.lines import Document, parse_yaml, read_text, text_digest
from experts_registry.references import broken_references, exposed_secrets, misplaced_stores
from experts_registry.retrieval_schema import StoreSpec
from experts_registry.schema import Composition, ExpertSpec, RegistryFile, registry_schema

__all__ = ["Registry", "registry_schema"]


@dataclass(frozen=True)
class Registry:
    """One generation of the expert file.

    Args:
        path: the file, as it was given.
        file: its content; ``path:`` sources are absolute, so that a spec can travel.
        digest: sha256 of its text.
        generation: counts the valid edits that `watch` saw.
    """

    path: Path
    file: RegistryFile
    digest: str
    generation: int = 1

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an expert file.

        Raises:
            RegistryError: it cannot be read or is wrong; one line per mistake, each with its
                file, line and key.
        """
        return cls.parse(read_text(Path(path)), path=path)

    @classmethod
    def parse(cls, text: str, *, path: str | Path, generation: int = 1) -> Self:
        """Read the text of an expert file; ``path`` names it in errors and anchors its paths."""
        path = Path(path)
        document = parse_yaml(text, str(path))
        try:
            file = RegistryFile.model_validate(document.data)
        except ValidationError as error:
            raise _error(path, document, complaints(error, document.data)) from None
        home = path.absolute().parent
        wrong = [*broken_references(file), *exposed_secrets(file), *misplaced_stores(file, home)]
        _raise_any(path, document, wrong)
        experts = tuple(_anchored(spec, home) for spec in file.experts)
        return cls(
            path=path,
            file=file.model_copy(update={"experts": experts}),
            digest=text_digest(text),
            generation=generation,
        )

    @cached_property
    def experts(self) -> Mapping[str, ExpertSpec]:
        """The enabled experts by name, in the file's order."""
        return {spec.name: spec for spec in self.file.experts if spec.enabled}

    @cached_property
    def llms(self) -> Mapping[str, ExpertSpec]:
        """The enabled experts that answer."""
        return {name: spec for name, spec in self.experts.items() if spec.kind == "llm"}

    @cached_property
    def retrievers(self) -> Mapping[str, ExpertSpec]:
        """The enabled experts that embed."""
        return {name: spec for name, spec in self.experts.items() if spec.kind == "retriever"}

    @cached_property
    def rerankers(self) -> Mapping[str, ExpertSpec]:
        """The enabled experts that score texts for a query."""
        return {name: spec for name, spec in self.experts.items() if spec.kind == "reranker"}

    @cached_property
    def compositions(self) -> Mapping[str, Composition]:
        """The compositions by name, in the file's order."""
        return {composition.name: composition for composition in self.file.compositions}

    @cached_property
    def stores(self) -> Mapping[str, StoreSpec]:
        """The stores by name, in the file's order."""
        return {store.name: store for store in self.file.stores}

    @property
    def encoder(self) -> ExpertSpec | None:
        """The retriever whose embeddings routers read: the file's, or the only one there is."""
        if self.file.encoder is not None:
            return self.experts[self.file.encoder]
        retrievers = list(self.retrievers.values())
        return retrievers[0] if len(retrievers) == 1 else None

    def expert(self, name: str) -> ExpertSpec:
        """Return an enabled expert.

        Raises:
            UnknownNameError: there is none of that name.
        """
        if name not in self.experts:
            raise unknown_name("expert", name, self.experts)
        return self.experts[name]

    def composition(self, name: str) -> Composition:
        """Return a composition.

        Raises:
            UnknownNameError: there is none of that name.
        """
        if name not in self.compositions:
            raise unknown_name("composition", name, self.compositions)
        return self.compositions[name]

    def store(self, name: str) -> StoreSpec:
        """Return a store.

        Raises:
            UnknownNameError: there is none of that name.
        """
        if name not in self.stores:
            raise unknown_name("store", name, self.stores)
        return self.stores[name]

    def store_folder(self, name: str) -> Path:
        """Return where a store is built."""
        return self.resolve(self.store(name).folder or f"stores/{name}")

    def resolve(self, relative: str | Path) -> Path:
        """Return the absolute path of something that the file names."""
        return self.path.absolute().parent / Path(relative).expanduser()


def _anchored(spec: ExpertSpec, folder: Path) -> ExpertSpec:
    """Make the ``path:`` values of an expert absolute."""

    def anchor(value: Any) -> Any:
        if not (isinstance(value, str) and value.startswith("path:")):
            return value
        return f"path:{folder / Path(value.removeprefix('path:')).expanduser()}"

    model = spec.model
    return spec.model_copy(
        update={
            "model": anchor(model) if isinstance(model, str) else tuple(map(anchor, model)),
            "options": {key: anchor(value) for key, value in spec.options.items()},
        }
    )


def _raise_any(path: Path, document: Document, found: Iterable[Complaint]) -> None:
    if found := list(found):
        raise _error(path, document, found)


def _error(path: Path, document: Document, found: Iterable[Complaint]) -> RegistryError:
    """Build one error of all complaints, in the order of the file."""
    return RegistryError("\n".join(_located(path, document, found)))


def _located(path: Path, document: Document, found: Iterable[Complaint]) -> Iterator[str]:
    for where, what in sorted(found, key=lambda complaint: document.line(complaint[0])):
        yield f"{path}:{document.line(where)}: {'.'.join(map(str, where)) or 'file'}: {what}"
