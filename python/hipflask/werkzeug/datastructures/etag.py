"""Sets of entity tags, as ``If-Match`` and ``If-None-Match`` have them.

Implements: werkzeug.datastructures.etag (3.1); RFC 9110 §8.8.3 and §13.1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator


class ETags(Collection[str]):
    """Entity tags, strong and weak; iterating and length are about the strong ones.

    Args:
        strong_etags: The strong tags, without quotes.
        weak_etags: The weak tags, without quotes and ``W/``.
        star_tag: Whether it is ``*``, which stands for any tag.
    """

    def __init__(
        self,
        strong_etags: Iterable[str] | None = None,
        weak_etags: Iterable[str] | None = None,
        star_tag: bool = False,
    ) -> None:
        self._strong = frozenset(strong_etags or ()) if not star_tag else frozenset()
        self._weak = frozenset(weak_etags or ())
        self.star_tag = star_tag

    def as_set(self, include_weak: bool = False) -> set[str]:
        """The strong tags, with the weak ones if asked, in a plain set."""
        return {*self._strong, *self._weak} if include_weak else set(self._strong)

    def is_weak(self, etag: str) -> bool:
        """Whether it is among the weak tags."""
        return etag in self._weak

    def is_strong(self, etag: str) -> bool:
        """Whether it is among the strong tags; ``*`` does not count."""
        return etag in self._strong

    def contains_weak(self, etag: str) -> bool:
        """Whether it is among all tags."""
        return self.is_weak(etag) or self.contains(etag)

    def contains(self, etag: str) -> bool:
        """Whether it is among the strong tags, or any will do."""
        return self.star_tag or self.is_strong(etag)

    def contains_raw(self, etag: str) -> bool:
        """The same for a tag with quotes: a weak one is looked for among all."""
        from ..http import unquote_etag

        tag, weak = unquote_etag(etag)
        return self.contains_weak(tag) if weak else self.contains(tag)

    def to_header(self) -> str:
        """The field's value."""
        if self.star_tag:
            return "*"
        return ", ".join([*(f'"{tag}"' for tag in self._strong), *(f'W/"{tag}"' for tag in self._weak)])

    def __call__(
        self, etag: str | None = None, data: bytes | None = None, include_weak: bool = False
    ) -> bool:
        if etag is None:
            if data is None:
                raise TypeError("'data' is required when 'etag' is not given.")

            from ..http import generate_etag

            etag = generate_etag(data)
        return etag in self._strong or (include_weak and etag in self._weak)

    def __bool__(self) -> bool:
        return bool(self.star_tag or self._strong or self._weak)

    def __str__(self) -> str:
        return self.to_header()

    def __len__(self) -> int:
        return len(self._strong)

    def __iter__(self) -> Iterator[str]:
        return iter(self._strong)

    def __contains__(self, etag: object) -> bool:
        return self.contains(etag)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self)!r}>"
