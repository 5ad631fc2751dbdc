"""A genetic algorithm over a model's parameters: no gradient, only a loss to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnx import _check, _random
from nnx.autograd import no_grad
from nnx.optim._params import Flat, check_quiet, loss_value, trainable


@dataclass(frozen=True)
class GeneticResult:
    """What `genetic` found.

    x:            the best individual: all parameters as one float64 vector
    fun:          its loss
    generations:  how many were bred
    evaluations:  how often the closure was called
    history:      the best loss of the first population and after each generation; it never rises
    success:      whether `target` was reached
    """

    x: np.ndarray
    fun: float
    generations: int
    evaluations: int
    history: list[float]
    success: bool


def genetic(
    model_or_params: Any,
    closure: Callable[[], Any],
    *,
    population: int = 60,
    generations: int = 300,
    target: float | None = None,
    spread: float = 2.0,
    mutation: float = 0.2,
    sigma: float = 0.6,
    elite: int = 4,
    tournament: int = 3,
    generator: np.random.Generator | None = None,
) -> GeneticResult:
    """Breed parameters with a low loss: selection by tournament, uniform crossover, Gaussian mutation, elitism.

    model_or_params:  a Module, or an iterable of Parameters; the best individual is written to them
    closure:          computes and returns the loss over the whole set, without noise; backward is not needed
    population:       individuals; the first is the model as it is, the others lie around it
    generations:      how often a new population is bred at most
    target:           stop as soon as the best loss is at most this
    spread:           standard deviation of the first population
    mutation, sigma:  share of a child's numbers that are changed, and by what standard deviation
    elite:            the best that live on unchanged
    tournament:       of so many, drawn at random, the best becomes a parent
    generator:        random numbers; None means the library's stream

    A loss that is NaN counts as infinity. If the closure raises, the parameters are put back.

    Holland, Adaptation in natural and artificial systems, 1975; Goldberg, Genetic algorithms, 1989.
    """
    owner = "genetic"
    size = _check.integer(owner, "population", population, 2)
    limit = _check.integer(owner, "generations", generations, 0)
    keep = _check.integer(owner, "elite", elite, 1)
    rivals = _check.integer(owner, "tournament", tournament, 1)
    if keep >= size:
        raise ValueError(f"{owner}: expected elite < population, got {keep} and {size}")
    spread = _check.real(owner, "spread", spread, 0)
    mutation = _check.real(owner, "mutation", mutation, 0, 1)
    sigma = _check.real(owner, "sigma", sigma, 0)
    goal = -np.inf if target is None else _check.real(owner, "target", target)
    rng = _random.generator(generator)
    check_quiet(owner, model_or_params)
    flat = Flat(owner, trainable(owner, model_or_params))
    flat.check_writeable()
    start = flat.values(np.float64)

    def losses(individuals: np.ndarray) -> np.ndarray:
        return np.array([_loss(owner, flat, closure, x) for x in individuals])

    people = start + spread * rng.standard_normal((size, start.size))
    people[0] = start
    try:
        scores = losses(people)
        history = [float(scores.min())]
        bred = 0
        while bred < limit and history[-1] > goal:
            order = np.argsort(scores, kind="stable")
            people, scores = people[order], scores[order]
            children = _children(people, size - keep, rivals, mutation, sigma, rng)
            people = np.concatenate([people[:keep], children])
            scores = np.concatenate([scores[:keep], losses(children)])
            history.append(float(scores.min()))
            bred += 1
        best = people[np.argmin(scores)]
        flat.assign(best)
    except BaseException:
        flat.assign(start)
        raise
    return GeneticResult(best.copy(), history[-1], bred, size + bred * (size - keep), history, history[-1] <= goal)


def _loss(owner: str, flat: Flat, closure: Any, x: np.ndarray) -> float:
    if not callable(closure):
        raise TypeError(f"{owner}: expected closure to be callable, got {type(closure).__name__}")
    flat.assign(x)
    with no_grad():
        loss = loss_value(owner, closure())
    return loss if loss == loss else np.inf


def _children(
    people: np.ndarray, count: int, rivals: int, mutation: float, sigma: float, rng: np.random.Generator
) -> np.ndarray:
    """`count` children of `people`, who are sorted from the best on."""
    parents = rng.integers(len(people), size=(2, count, rivals)).min(axis=2)  # the smallest index is the best
    from_first = rng.random((count, people.shape[1])) < 0.5
    children = np.where(from_first, people[parents[0]], people[parents[1]])
    changed = rng.random(children.shape) < mutation
    return children + changed * sigma * rng.standard_normal(children.shape)
