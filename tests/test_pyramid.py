"""The pyramid coder: any grid within its bound, field by field, the same bytes everywhere."""

from __future__ import annotations

import contextlib
import zlib

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import coinpp_xr
from coinpp_xr import COINppCodec, CorruptPayloadError
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.codecs.sphere import COINppArrayCodec
from coinpp_xr.coding import masks
from coinpp_xr.coding.pyramid import coders, prediction, references, schedule, stream
from coinpp_xr.coding.pyramid.levels import PASSES, interleave, level_count
from coinpp_xr.coding.pyramid.limits import WHOLE, Limits
from coinpp_xr.coding.pyramid.walk import NO_LIMITS
from coinpp_xr.lattice import Lattice


def waves(rng, shape) -> np.ndarray:
    """Smooth fields that drift in time, and some noise."""
    times, n_lat, n_lon = shape
    t, y, x = np.ogrid[:times, :n_lat, :n_lon]
    drifting = 10 * np.sin(x * 2 * np.pi / n_lon + 0.1 * t) * np.cos(y / 7)
    return 280 + drifting + 0.3 * rng.standard_normal(shape)


def coded(values, valid=None, *, step=0.2, order=None, around=True, quick=2):
    valid = np.ones(values.shape, bool) if valid is None else valid
    order = np.arange(len(values))[None] if order is None else order
    lattice = Lattice(step, 280.0)
    return stream.encode(values, valid, order, lattice, around=around, quick=quick)


def decoded(made, values, valid=None, order=None, items=None):
    order = np.arange(len(values))[None] if order is None else order
    head = stream.Head.parse(made.head, valid, order, values.shape[1:])
    read: list[tuple[int, int]] = []

    def bytes_of(start, end):
        read.append((start, end))
        return made.streams[start:end]

    result = np.full(values.shape, np.nan)
    for item, field in head.decode(bytes_of, valid, items):
        result[item] = head.lattice.of_fractions(field, stream.PARTS)
    return result, read


sides = st.integers(1, 40)


@given(
    shape=st.tuples(st.integers(1, 9), sides, sides),
    around=st.booleans(),
    gaps=st.booleans(),
    quick=st.sampled_from([0, 2, 48]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_no_value_is_off_by_more_than_half_a_step(shape, around, gaps, quick, seed) -> None:
    rng = np.random.default_rng(seed)
    values = waves(rng, shape) * rng.choice([1, 1, 30])
    valid = rng.random(shape) < (0.7 if gaps else 2)
    made = coded(values, valid, around=around, quick=quick)
    result, _ = decoded(made, values, valid)
    present = valid.any(axis=(1, 2))
    assert (np.isnan(result).all(axis=(1, 2)) == ~present).all()
    assert np.abs(result - values)[valid].max(initial=0) <= 0.1 * (1 + 1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (7, 6), (13, 8), (46, 90)])
def test_levels_take_a_grid_apart_and_put_it_together(shape) -> None:
    grid = np.arange(shape[0] * shape[1]).reshape(1, *shape)
    levels = level_count(shape)
    again = grid[:, :: 1 << levels, :: 1 << levels]
    assert max(again.shape[1:]) <= 6
    for level in range(levels - 1, -1, -1):
        h = 1 << level
        phases = [grid[:, p.row * h :: 2 * h, p.column * h :: 2 * h] for p in PASSES]
        finer = np.full_like(grid[:, ::h, ::h], -1)
        interleave(finer, [again, *phases])
        again = finer
    assert (again == grid).all()


def test_neighbours_of_a_pass_are_decoded_before_it() -> None:
    for number, which in enumerate(PASSES):
        assert which.neighbours[:, 0].max() <= number
        near, far = np.abs(_distances(which))[:4], np.abs(_distances(which))[4:]
        assert (near == near[0]).all()
        assert (far >= near[0]).all()


def _distances(which) -> np.ndarray:
    parity = np.array([(0, 0), *((p.row, p.column) for p in PASSES)])
    source, down, right = which.neighbours.T
    row = 2 * down + parity[source, 0] - which.row
    column = 2 * right + parity[source, 1] - which.column
    return row**2 + column**2


@given(st.integers(1, 60), st.sampled_from([100, 1 << 18]), st.data())
def test_references_come_first(times, cells, data) -> None:
    present = np.array(data.draw(st.lists(st.booleans(), min_size=times, max_size=times)))
    distance = schedule.key_distance(cells, times)
    units = schedule.schedule(np.arange(times)[None], present, cells, distance)
    seen: set[int] = set()
    for number, unit in enumerate(units):
        assert {item for items in unit.references for item in items} <= seen
        assert {len(items) for items in unit.references} == {unit.n_references}
        assert unit.parent is None or unit.parent < number
        seen |= set(unit.items)
    assert seen == set(np.flatnonzero(present))
    if cells >= schedule.LARGE_FIELD:
        most = max((len(schedule.needed_units(units, {item})) for item in seen), default=0)
        assert most <= 4


def test_one_field_is_decoded_from_its_own_bytes(monkeypatch) -> None:
    monkeypatch.setattr(schedule, "LARGE_FIELD", 100)
    monkeypatch.setattr(schedule, "UNIT_CELLS", 1000)
    values = waves(np.random.default_rng(1), (24, 30, 40))
    made = coded(values)
    whole, _ = decoded(made, values)
    for item in (0, 5, 10, 23):
        part, read = decoded(made, values, items={item})
        assert part[item].tobytes() == whole[item].tobytes()
        assert sum(end - start for start, end in read) < len(made.streams) / 4
        assert np.isnan(np.delete(part, item, axis=0)).all()


def test_bytes_do_not_depend_on_threads(monkeypatch) -> None:
    monkeypatch.setattr(coders, "_BAND_CELLS", 500)
    values = waves(np.random.default_rng(2), (6, 40, 50))
    made = []
    for threads in (1, 2, 3):
        with coinpp_xr.config.set(threads=threads):
            made.append(coded(values))
            result, _ = decoded(made[-1], values)
            assert np.abs(result - values).max() <= 0.1 * (1 + 1e-9)
    assert made[0].head == made[1].head == made[2].head
    assert made[0].streams == made[1].streams == made[2].streams


def test_a_changed_stream_is_noticed() -> None:
    values = waves(np.random.default_rng(3), (3, 20, 30))
    made = coded(values)
    for at in range(0, len(made.streams), 7):
        broken = bytearray(made.streams)
        broken[at] ^= 4
        with pytest.raises(CorruptPayloadError):
            decoded(stream.Coded(made.head, bytes(broken)), values)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_streams_forged_with_their_checksums_do_no_harm(seed) -> None:
    rng = np.random.default_rng(seed)
    values = waves(np.random.default_rng(3), (5, 20, 30)) * rng.choice([1, 1000])
    made = coded(values, quick=int(rng.choice([0, 2, 48])))
    units = schedule.schedule(np.arange(5)[None], np.ones(5, bool), 600, 5)
    index = np.frombuffer(made.head[-8 * len(units) :], "<u4").reshape(-1, 2).copy()
    forged, at = [], 0
    for entry in index:
        part = bytearray(made.streams[at : at + entry[0]])
        at += int(entry[0])
        how = rng.integers(4)
        if how == 0:
            part = bytearray(rng.bytes(int(rng.integers(0, 2000))))
        elif how < 3:
            for _ in range(int(rng.integers(1, 9))):
                part[int(rng.integers(len(part)))] = int(rng.integers(256))
        forged.append(bytes(part))
        entry[:] = len(part), zlib.crc32(part)
    head = made.head[: -8 * len(units)] + index.tobytes()
    with contextlib.suppress(CorruptPayloadError):
        decoded(stream.Coded(head, b"".join(forged)), values)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_forged_head_does_no_harm(seed) -> None:
    rng = np.random.default_rng(seed)
    values = waves(np.random.default_rng(3), (5, 20, 30))
    made = coded(values)
    head = bytearray(made.head)
    for _ in range(int(rng.integers(1, 6))):
        head[int(rng.integers(len(head)))] = int(rng.integers(256))
    with contextlib.suppress(CorruptPayloadError), np.errstate(all="ignore"):
        decoded(stream.Coded(bytes(head), made.streams), values)


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("around", [True, False])
@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("neighbours", [12, 16])
def test_predictions_are_those_of_plain_array_arithmetic(
    diagonal, around, beside, neighbours
) -> None:
    rng = np.random.default_rng(4)
    n_rows, columns = 9, 14
    pool = prediction.Pool(
        rng.integers(-(1 << 20), 1 << 20, 4000).astype(np.int32),
        rng.integers(-3, 4, 4000).astype(np.int8),
    )
    places = prediction.Places(
        np.append(rng.integers(0, 2000, neighbours), 3500),
        rng.integers(columns + 2, 60, neighbours + 1), np.zeros(neighbours + 1, np.int64),
        beside, around,
    )  # fmt: skip
    known_before = neighbours + 5  # of the one reference
    weights = rng.integers(-500, 500, known_before + 4 * beside).astype(np.int32)
    steps = rng.integers(-9, 9, (n_rows, columns)).astype(np.int32)
    field = rng.integers(-1000, 1000, (1, 2 * n_rows, 2 * columns)).astype(np.int32)
    marks = rng.integers(-3, 4, field.shape).astype(np.int8)
    known = references.References(
        1, (field, field[:0], field[:0]), (marks, marks[:0], marks[:0]),
        references.stencil(n_rows, 1, 2, 2 * n_rows, around=False),
        references.stencil(columns, 1, 2, 2 * columns, around=around), diagonal,
    )  # fmt: skip
    rows, above = prediction.Rows.of(columns, 1), np.zeros(columns + 2, np.int64)
    padded = np.pad(field[0], 1, mode="edge")
    if around:
        padded[:, 0], padded[:, -1] = padded[:, -2], padded[:, 1]
    # The point, its neighbours, and the four nearest of the pass, which are neighbours, too.
    sides = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
    corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    at = {s: padded[2 + s[0] :: 2, 2 + s[1] :: 2][:n_rows, :columns] for s in sides + corners}
    middle = (sum(at[s].astype(np.int64) for s in (corners if diagonal else sides[1:])) + 2) >> 2
    for i in range(n_rows):
        prediction.predict_row(pool, places, weights, known, NO_LIMITS, 0, i, 0, rows)
        where = (places.offsets + i * places.steps)[:-1, None] + np.arange(columns)
        near = pool.values[where].astype(np.int64)
        base = (near[:4].sum(axis=0) + 2) >> 2
        features = np.concatenate([near - base, [at[s][i] - middle[i] for s in sides]])
        sums = weights[:known_before].astype(np.int64) @ features + 256
        expected = np.empty(columns, np.int64)
        for j in range(columns):
            total = int(sums[j])
            if beside:  # north-west, north, north-east and west; not in the first row or column
                near_by = [*above[j : j + 3], expected[j - 1] + 64 * steps[i, j - 1]]
                there = [i > 0, i > 0, i > 0, j > 0]
                total += sum(
                    int(w) * (int(value) - int(base[j]))
                    for w, value, known_yet in zip(
                        weights[known_before:], near_by, there, strict=True
                    )
                    if known_yet
                )
            expected[j] = base[j] + (total >> 9)
        if beside:
            before = rows.base[0]
            for j in range(columns):
                value = prediction.after(rows.base[j], rows.total[j], int(weights[-1]), before)
                rows.predicted[j] = value
                before = value + 64 * int(steps[i, j])
        assert (rows.predicted == expected).all()
        prediction.put_row(pool, places, NO_LIMITS, 0, i, rows, steps[i])
        above = np.pad(expected + 64 * steps[i], 1, mode="wrap" if around else "edge")
        steps_there = pool.marks[where].astype(np.int64)
        assert (rows.spread == np.abs(near[:4] - base).sum(axis=0)).all()
        assert (rows.near == np.abs(steps_there[:4]).sum(axis=0)).all()
        assert (rows.far == np.abs(steps_there[4:12]).sum(axis=0)).all()
        assert (rows.signs == 4 + np.sign(steps_there[:4]).sum(axis=0)).all()
        assert (rows.apart == np.abs(at[0, 0][i] - middle[i])).all()


@given(st.integers(1, 3), sides, sides, st.floats(0, 1), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_masks_come_back(items, rows, columns, share, seed) -> None:
    mask = np.random.default_rng(seed).random((items, rows, columns)) < share
    assert (masks.decode(masks.encode(mask), mask.shape) == mask).all()


def test_a_coast_takes_few_bytes() -> None:
    rows, columns = np.mgrid[:100, :200]
    land = (np.sin(rows / 9) + np.cos(columns / 13) > 0.5)[None]
    assert len(masks.encode(land)) < len(np.packbits(land)) / 8


def test_missing_cells_cost_next_to_nothing() -> None:
    values = waves(np.random.default_rng(5), (1, 100, 200)).astype(np.float32)
    codec = COINppCodec(model="none", max_error=0.1)
    whole = len(codec.encode(values))
    values[0, 20:60, 30:120] = np.nan
    assert len(codec.encode(values)) < whole * (1 - 0.14)  # 18 % of the cells are gone


@pytest.fixture
def store(tmp_path, monkeypatch):
    """24 steps in one chunk, each of which can be read by itself."""
    monkeypatch.setattr(schedule, "LARGE_FIELD", 1000)
    monkeypatch.setattr(schedule, "UNIT_CELLS", 1000)
    rng = np.random.default_rng(6)
    values = waves(rng, (24, 91, 180)).astype(np.float32)
    values[3, 5] = np.nan
    ds = xr.Dataset({"t": (("time", "latitude", "longitude"), values)})
    codec = COINppArrayCodec(model="none", max_error=0.05, effort="fast")
    encoding = {"serializer": codec, "compressors": None, "chunks": values.shape}
    ds.to_zarr(tmp_path / "s.zarr", zarr_format=3, encoding={"t": encoding}, consolidated=False)
    (chunk,) = [p for p in (tmp_path / "s.zarr/t/c").rglob("*") if p.is_file()]
    return tmp_path / "s.zarr", values, chunk


def opened(path) -> xr.DataArray:
    return xr.open_zarr(path, chunks=None, consolidated=False)["t"]


def test_a_selection_reads_and_decodes_what_it_needs(store, monkeypatch) -> None:
    from zarr.storage import LocalStore

    path, values, chunk = store
    assert Payload.unpack(chunk.read_bytes()).kind == Kind.PYRAMID
    read = []
    get = LocalStore.get

    async def counting(self, key, prototype, byte_range=None):
        found = await get(self, key, prototype, byte_range)
        read.append(0 if found is None or "c/" not in key else len(found))
        return found

    monkeypatch.setattr(LocalStore, "get", counting)
    whole = opened(path).values
    assert np.nanmax(np.abs(whole - values)) <= 0.05
    for selection in (
        {"time": 7},
        {"time": slice(9, 11)},
        {"time": 3, "latitude": 5, "longitude": slice(2, 9)},
        {"time": [0, 20], "latitude": slice(None, None, 3)},
    ):
        read.clear()
        part = opened(path).isel(selection).values
        assert (
            part.tobytes()
            == xr.DataArray(whole, dims=opened(path).dims).isel(selection).values.tobytes()
        )
        most = chunk.stat().st_size / (2 if isinstance(selection["time"], list) else 4)
        assert sum(read) < most + 20_000  # the first bytes, in which the head is looked for


def test_a_damaged_store_is_refused_wherever_it_is_read(store) -> None:
    path, _, chunk = store
    sound = chunk.read_bytes()
    for at in (4, 30, 200, len(sound) // 2):
        broken = bytearray(sound)
        broken[at] ^= 1
        chunk.write_bytes(broken)
        with pytest.raises(CorruptPayloadError):
            opened(path).values  # noqa: B018
    chunk.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(CorruptPayloadError):
        opened(path).isel(time=slice(23)).values  # noqa: B018


def test_a_payload_tells_where_its_streams_begin() -> None:
    values = waves(np.random.default_rng(7), (4, 30, 40)).astype(np.float32)
    payload = COINppCodec(model="none", max_error=0.1, effort="fast").encode(values)
    found = Payload.unpack_head(payload)
    assert found is not None
    head, at = found
    assert payload[at:-4] == Payload.unpack(payload).section(Tag.STREAMS)
    assert Payload.unpack_head(payload[: at // 2]) is None
    assert head.shape == values.shape


@pytest.mark.parametrize("effort", ["fast", "default", "best"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_a_field_of_any_type_keeps_its_bound(effort, dtype) -> None:
    values = waves(np.random.default_rng(8), (2, 91, 180)).astype(dtype)
    values[0, 3, 4], values[1, 0, 0], values[1, 9, 9] = np.nan, -np.inf, -0.0
    codec = COINppCodec(model="none", max_error=0.3, effort=effort)
    back = decode_chunk(codec.encode(values), {}.__getitem__)
    assert back.dtype == values.dtype
    exact = ~np.isfinite(values) | (values == 0)
    assert back[exact].tobytes() == values[exact].tobytes()
    assert np.abs(back[~exact].astype("f8") - values[~exact]).max() <= 0.3


def test_values_of_one_sign_keep_a_relative_bound() -> None:
    values = -np.exp(waves(np.random.default_rng(9), (2, 60, 90)) / 20).astype(np.float32)
    codec = COINppCodec(model="none", max_error_relative=0.01, effort="fast")
    payload = codec.encode(values)
    assert Payload.unpack(payload).kind == Kind.PYRAMID
    assert np.abs(codec.decode(payload) / values - 1).max() <= 0.01 + 1e-6


@pytest.mark.parametrize("quick", [48, 8, 0])
def test_whole_numbers_stay_whole(quick) -> None:
    rng = np.random.default_rng(2)
    numbers = np.rint(np.cumsum(rng.standard_normal((3, 37, 50)), axis=2)).astype(np.int64)
    valid = rng.random(numbers.shape) < 0.9
    limits = Limits(int(numbers.min()) * 64, int(numbers.max()) * 64, WHOLE, 0)
    order = np.arange(3)[None]
    coded = stream.encode(
        numbers, valid, order, Lattice(1.0, 0.0), around=True, quick=quick, limits=limits
    )
    head = stream.Head.parse(coded.head, valid, order, (37, 50))
    for item, field in head.decode(lambda start, end: coded.streams[start:end], valid):
        assert (field % 64 == 0).all()
        assert (field[valid[item]] == 64 * numbers[item][valid[item]]).all()
