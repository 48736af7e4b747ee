"""Classes of the program that wrote the files of this folder. Both sides import them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import BaseModel, computed_field


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Line:
    name: str
    ends: list[Point]
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = abs(self.ends[0].x - self.ends[1].x)


class Item(BaseModel):
    sku: str
    price: float


class Invoice(BaseModel):
    items: list[Item]
    paid: bool = False

    @computed_field
    @property
    def total(self) -> float:
        return sum(item.price for item in self.items)
