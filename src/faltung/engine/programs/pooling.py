"""Fusion with poolings: 2x2 pixels are pooled where ``winograd`` has them in registers, and y need not be stored.

    y = f(convolution), p = maximum or mean of y        one launch; y is stored if anybody else reads it
    dx = error(dy) * step(y)                            error(dy * step(p)): at its tap the maximum is y, and elsewhere
                                                        the error is 0 anyhow

The second rule is for functions that let an error signal pass or stop it, as ReLU does. So nobody reads y on the way
back; and the product is of a quarter of the numbers, and may become an epilogue of what makes dy. Each number passes
through the same operations as before, or through some that give the same bits.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from faltung.engine.host.machine import Machine
from faltung.engine.host.recall import recalled
from faltung.engine.host.recording import Buffer, Launch, Place
from faltung.engine.kernels import winograd
from faltung.engine.kernels.aggregates import Max, Mean
from faltung.engine.kernels.bands import fields
from faltung.engine.kernels.elementwise import BLOCK, COST, Elementwise
from faltung.engine.kernels.pixels import Pooled
from faltung.engine.kernels.pool import Aggregate
from faltung.engine.kernels.regions import Axis, Regions
from faltung.engine.loops.language import Constant, Function, Type, Value
from faltung.engine.loops.statements import Let
from faltung.engine.programs.fusion import Recipe, given, joined, taken_apart

TILES = (Axis(taps=2, stride=2, cut=False),) * 2
"""The axes of regions that are the tiles of ``winograd``."""


# ------------------------------------------------------------------------------------------------------------ forward


def pooled(launches: Iterable[Launch], results: Iterable[Place]) -> tuple[Launch, ...]:
    """The launches, fused ones, with poolings as endings of convolutions; ``results`` are what the caller keeps."""
    launches, outside = list(launches), {place.buffer.address for place in results}
    for pool in [launch for launch in launches if launch.function.name == "pool_forward"]:
        _, y, _, kept = map(_address, pool.arguments)
        others = [launch for launch in launches if launch is not pool]
        makers = [number for number, launch in enumerate(launches) if y in _addresses(launch.writes)]
        read = outside.union(*(_addresses(launch.reads) for launch in others))
        both = _both(launches[makers[0]], pool, y in read, kept in read) if len(makers) == 1 else None
        if both:
            launches[makers[0]] = both
            launches = [launch for launch in launches if launch is not pool]
    return tuple(launches)


def _both(maker: Launch, pool: Launch, stores: bool, keeps: bool) -> Launch | None:
    """The convolution with the pooling as its ending; None where its tiles are not what is pooled."""
    (first, _), (regions, aggregate) = taken_apart(maker.function.recipe), _pooling(pool)
    tiles = maker.function.name.startswith("convolve") and regions.axes == TILES
    if not (tiles and isinstance(aggregate, Max | Mean)):
        return None
    (sizes, x, w, y, *beside, bias), (table, pooled_y, p, kept) = _arguments(maker), _arguments(pool)
    own, theirs = _numbers(sizes, winograd.SIZES), _numbers(table, fields(2))
    made = maker.tasks // (own["bands"] * own["ranges"]), own["height"], own["width"], first[2][0].outputs
    read = pool.tasks // theirs["bands"], theirs["size0"], theirs["size1"], regions.channels
    if beside or y != pooled_y or made != read:
        return None
    function = _variant(f"{maker.function.name}_pooled", maker.function.recipe, aggregate, stores, keeps)
    places = [place for place, wanted in ((y, stores), (p, True), (kept, keeps)) if wanted]
    return joined(maker, pool, function, (sizes, x, w, *places, bias))


@cache
def _variant(name: str, maker: Recipe, aggregate: Aggregate, stores: bool, keeps: bool) -> Any:
    """The kernel, compiled."""
    write, machine, settings = maker
    code = recalled(
        _written, machine, name, (write, settings), aggregate, stores, keeps, public=frozenset({name})
    )  # fmt: skip
    return code.functions[name]


def _written(
    machine: Machine, name: str, maker: Any, aggregate: Aggregate, stores: bool, keeps: bool
) -> list[Function]:
    write, settings = maker
    (_, _, (rows, plan)), epilogues = taken_apart((write, machine, settings))

    def f(pixel: Value) -> Value:
        for epilogue in epilogues:
            [result] = epilogue.f.rule(pixel)
            pixel = pixel.function.lift(result, pixel.type)
        return pixel

    return winograd.convolve(name, rows, plan, Pooled(f, aggregate, stores, keeps))


# --------------------------------------------------------------------------------------------------------------- back


def sooner(launches: Iterable[Launch], results: Iterable[Place]) -> tuple[Launch, ...]:
    """The launches, with products of errors and steps before the errors of poolings and not behind them."""
    launches, outside = list(launches), {place.buffer.address for place in results}
    pools = {_address(launch.arguments[3]): launch for launch in launches if launch.function.name == "pool_forward"}
    for error in [launch for launch in launches if launch.function.name == "pool_gather"]:
        pool, dx = pools.get(_address(error.arguments[2])), error.arguments[3]
        readers = [launch for launch in launches if _address(dx) in _addresses(launch.reads)]
        if pool and len(readers) == 1 and _address(dx) not in outside and _is_step(readers[0], pool, dx):
            [behind] = readers
            turned = {id(error): _turned(pool, error, behind), id(behind): []}
            launches = [one for launch in launches for one in turned.get(id(launch), [launch])]
    return tuple(launches)


def _is_step(launch: Launch, pool: Launch, dx: Any) -> bool:
    """Is it dx * step(y), for all of the y that was pooled, whose regions are disjoint?"""
    (regions, aggregate), y = _pooling(pool), _arguments(pool)[1]
    *inputs, _, count = _arguments(launch)
    if launch.function.name != "elementwise" or inputs != [y, dx] or count * y.buffer.dtype.itemsize != y.buffer.size:
        return False
    return regions.disjoint and isinstance(aggregate, Max) and _step(launch.function.recipe)


@cache
def _step(recipe: Recipe) -> bool:
    """Is a function of y and dy dy * (1 or 0), as y decides?"""
    write, machine, settings = recipe
    f: Elementwise = write(machine, *settings)[-1]
    alone = Function("f")
    y, dy = (alone.fresh(Type(f.arguments[0].type.kind), name) for name in ("y", "dy"))
    f.rule(y, dy)
    match alone.body:
        case [
            Let(_, _, asked),
            Let(slope, "select", (_, Constant(number=1), Constant(number=0))),
            Let(_, "mul", (left, right)),
        ]:
            return dy not in asked and left is dy and right is slope
    return False


def _turned(pool: Launch, error: Launch, step: Launch) -> list[Launch]:
    """dy * step(p), in the memory that dx would have taken, and its error."""
    (_, _, p, _), (sizes, dy, kept, dx), (*_, result, _) = map(_arguments, (pool, error, step))
    passed = replace(dx, buffer=replace(dx.buffer, size=p.buffer.size))
    count = p.buffer.size // p.buffer.dtype.itemsize
    first = replace(step, tasks=-(-count // BLOCK), work=COST * count)
    return [given(first, (p, dy, passed, count)), given(error, (sizes, passed, kept, result))]


def _pooling(pool: Launch) -> tuple[Regions, Aggregate]:
    _, _, (_, _, regions, aggregate, _) = pool.function.recipe
    return regions, aggregate


def _arguments(launch: Launch) -> tuple[Any, ...]:
    return launch.arguments


def _address(place: Any) -> int:
    """0 is nowhere."""
    return place.buffer.address if isinstance(place, Place) else 0


def _addresses(buffers: Iterable[Buffer]) -> set[int]:
    return {buffer.address for buffer in buffers}


def _numbers(place: Place, names: Iterable[str]) -> dict[str, int]:
    """Run-time numbers by name."""
    assert place.buffer.array is not None, "they follow from shapes alone"
    return dict(zip(names, place.buffer.array.tolist(), strict=False))
