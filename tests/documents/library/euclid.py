"""Euclid's Elements, book VII, as functions."""

import math


def greatest_common_measure(first: int, second: int) -> int:
    """Given two numbers not prime to one another, to find their greatest common measure (proposition 2).

    The less is continually subtracted in turn from the greater, until the number that is left measures the
    one before it.
    """
    while first != second:
        if first > second:
            first -= second
        else:
            second -= first
    return first


def is_perfect(number: int) -> bool:
    """A perfect number is that which is equal to its own parts (definition 22): 6, 28, 496."""
    return number == sum(part for part in range(1, number) if number % part == 0)


def hypotenuse(base: float, height: float) -> float:
    """In right-angled triangles the square on the side opposite the right angle equals the squares on the
    other sides (book I, proposition 47).
    """
    return math.sqrt(base * base + height * height)
