"""What the fit of the placement may move, and where on the mean head that puts the points.

Each point moves only where its meaning leaves room: jaw points over the jaw, brow points over the brow, ridge points
along the ridge, the lesser points of lids and lips along their edges. Everything else is an anchor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ls3dw.core.markup import MIRROR, POINTS
from ls3dw.errors import ConfigurationError
from ls3dw.synth.authoring.fit_faces import JAW, FaceModel
from ls3dw.synth.head.model import Group, Head
from ls3dw.synth.head.placement import BROWS, Placement
from ls3dw.synth.head.places import Places, Track, cast_rays, make_track, neighbours_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LINE_PLACES = 12
LINE_TURN = np.radians(72)
"""How far a jaw line turns from its outward direction toward the front."""
BROW_OFFSETS = np.linspace(-0.12, 0.15, 7)
IDENTITY = 40
HALF = 9
"""Jaw points 0 to 8 and brow points 17 to 21 are those of the right side and the chin; the left is their mirror."""
MOST_EAR, MOST_MOUTH = 0.3, 0.3
"""Shares of ear and inner mouth above which the skin is no place for a jaw or brow point."""
NECK, SHOULDER = -1.7, 1.3
"""The skin is cut below and beside the head here, or rays down the jaw would meet the shoulders."""
STRETCH = (0.03, 0.05, 0.05)
"""Spread of the head's own width, height and depth."""
ACTIONS: Mapping[str, tuple[float, float, float]] = {
    "jawOpen": (0.4, 0.0, 1.2),
    "mouthSmile": (0.4, 0.0, 1.2),
    "mouthUpperUp": (0.3, 0.0, 1.0),
    "mouthLowerDown": (0.3, 0.0, 1.0),
    "mouthPucker": (0.3, 0.0, 1.0),
    "mouthFunnel": (0.3, 0.0, 1.0),
    "mouthStretch": (0.3, 0.0, 1.0),
    "mouthFrown": (0.3, 0.0, 1.0),
    "mouthRollUpper": (0.3, 0.0, 1.0),
    "mouthRollLower": (0.3, 0.0, 1.0),
    "jawLeft": (0.3, -1.0, 1.0),
    "eyeBlink": (0.3, -0.4, 1.0),
    "browInnerUp": (0.4, -1.0, 1.2),
    "browOuterUp": (0.4, -1.0, 1.2),
}
"""Spread and bounds of each expression. Those of brows have no sign, so that the placement takes their mean."""

TRACKS = (
    (36, 37, 38, 39),
    (39, 40, 41, 36),
    (48, 49, 50, 51),
    (48, 59, 58, 57),
    (48, 60, 61, 62),
    (60, 67, 66),
)
"""Edges that points of the right side slide along, between anchors."""
RIDGE = (27, 28, 29, 30)


@dataclass(frozen=True)
class HeadShape:
    """What the fit needs of a parametric head: V vertices, K identity components of unit spread, E expressions.

    mean (V, 3): x to the subject's left, y up, z to the front; identity (K, V, 3); expressions (E, V, 3) with their
    names; triangles (T, 3) of the body; skin (T,) bool: those that jaw and brow points may lie on (neither ears nor the
    inside of the mouth); full_ids (V,) numbers of the vertices in the full MakeHuman mesh.
    """

    mean: Floats
    identity: Floats
    expressions: Floats
    expression_names: tuple[str, ...]
    triangles: Ints
    skin: NDArray[np.bool_]
    full_ids: Ints

    @classmethod
    def of(cls, head: Head) -> HeadShape:
        """Take from a compact head what the fit needs; its mean is that of the heads drawn."""
        body = head.triangles[head.triangle_group == Group.SKIN]
        mean = head.usual[body]
        skin = (head.ears[body] < MOST_EAR).all(1) & (head.inner_mouth[body] <= MOST_MOUTH).all(1)
        skin &= (mean[..., 1] > NECK).all(1) & (mean[..., 0].abs() < SHOULDER).all(1)
        return cls(
            mean=head.usual.double().numpy(),
            identity=head.identity.double().numpy(),
            expressions=head.expressions.double().numpy(),
            expression_names=tuple(head.expression_names),
            triangles=body.numpy(),
            skin=skin.numpy(),
            full_ids=head.full_ids.numpy(),
        )

    @cached_property
    def coefficients(self) -> tuple[Floats, Floats]:
        """Return what faces may vary by (C, V, 3): identity, stretch, expressions; and their (spread, low, high)."""
        numbers = {name: number for number, name in enumerate(self.expression_names)}
        basis = [*self.identity[:IDENTITY], *(self.mean * np.eye(3)[axis] for axis in range(3))]
        ranges = [(1.0, -np.inf, np.inf)] * min(IDENTITY, len(self.identity))
        ranges += [(spread, -np.inf, np.inf) for spread in STRETCH]
        for action, limits in ACTIONS.items():
            for name in (action, f"{action}Left", f"{action}Right"):
                if name in numbers:
                    basis.append(self.expressions[numbers[name]])
                    ranges.append(limits)
        return np.stack(basis), np.array(ranges)


@dataclass(frozen=True)
class Sliding:
    """What is fitted, for the right side and the midline; the left is its mirror.

    angle, depth (9,): the ray that finds a jaw point, degrees about the head's axis and its z. outward (9,): direction
    of the contour rule in degrees; bend (9,): degrees by which a line leaves the outward plane toward its front end.
    brow (5, 2): x and y. slide: how far along its track each sliding point lies, by its number, right side only.
    """

    angle: Floats
    depth: Floats
    outward: Floats
    bend: Floats
    brow: Floats
    slide: Mapping[int, float] = field(default_factory=dict)

    def moved(self, step: Floats) -> Sliding:
        """Add a step of `size` values, in the order of `names`."""
        numbers = sorted(self.slide)
        angle, depth, across, up, along = np.split(step, np.cumsum([HALF - 1, HALF, 5, 5]))
        return replace(
            self,
            angle=self.angle + np.append(angle, 0.0),
            depth=self.depth + depth,
            brow=self.brow + np.stack((across, up), 1),
            slide={number: self.slide[number] + by for number, by in zip(numbers, along, strict=True)},
        )

    @property
    def names(self) -> list[str]:
        return [
            *(f"jaw {point} along" for point in range(HALF - 1)),
            *(f"jaw {point} depth" for point in range(HALF)),
            *(f"brow {17 + point} across" for point in range(5)),
            *(f"brow {17 + point} up" for point in range(5)),
            *(f"point {point} along" for point in sorted(self.slide)),
        ]

    @property
    def units(self) -> Floats:
        """A step of 0.02 head units in each value."""
        return np.array([1.15] * (HALF - 1) + [0.02] * (HALF + 10 + len(self.slide)))


class Sheet:
    """The mean head as a surface on which a `Sliding` becomes places."""

    def __init__(self, head: HeadShape, start: Placement) -> None:
        self.head = head
        self.points = Places(local_vertices(head, start.point_vertices), start.point_weights.astype(np.float64))
        self.start = self.points.positions(head.mean)
        self.skin = head.triangles[head.skin]
        self.tracks: dict[int, Track] = {}
        self.neighbours = neighbours_of(head.triangles)
        corner = [int(v) for v in self.points.vertices[np.arange(POINTS), self.points.weights.argmax(1)]]
        for through in TRACKS:
            for side in (through, tuple(MIRROR[point] for point in through)):
                track = make_track(head.mean, self.neighbours, [corner[point] for point in side])
                self.tracks |= dict.fromkeys(side[1:-1], track)
        ridge = self._ridge()
        self.tracks |= dict.fromkeys(RIDGE, ridge)

    def _ridge(self) -> Track:
        """The midline from between the brows, down over the tip of the nose to its base."""
        mean = self.head.mean
        near = np.unique(self.skin)
        spots = (np.array([0.0, self.start[21, 1], self.start[27, 2]]), self.start[30], self.start[33])
        through = [int(near[((mean[near] - spot) ** 2).sum(1).argmin()]) for spot in spots]
        # Ways off the midline are made long, so that the shortest one stays on it.
        return make_track(mean, self.neighbours, through, stretched=mean * np.array([20.0, 1.0, 1.0]))

    def first(self, placement: Placement) -> Sliding:
        """Read the starting values from the placement that the fit starts at."""
        # Of the jaw what the 2D contour begins at; the 3D points are made from it afterwards.
        vertices = local_vertices(self.head, placement.jaw_vertices[:HALF, 0])
        seen = Places(vertices, placement.jaw_weights[:HALF, 0].astype(np.float64))
        jaw, brow = seen.positions(self.head.mean), self.start[17:22]
        angle = np.degrees(np.arctan2(jaw[:, 1], jaw[:, 0])) % 360
        angle[HALF - 1] = 270
        directions = placement.jaw_directions[:HALF].astype(np.float64)
        outward = np.degrees(np.arctan2(directions[:, 1], directions[:, 0])) % 360
        slide = {
            point: track.nearest(self.head.mean, self.start[point])
            for point, track in self.tracks.items()
            if self.start[point, 0] < 1e-2 and point in (MIRROR[point], *RIDGE, *(p for t in TRACKS for p in t))
        }
        return Sliding(angle, jaw[:, 2].copy(), outward, np.zeros(HALF), brow[:, :2].copy(), slide)

    def places(self, sliding: Sliding) -> Places:
        """Return the 51 points 17 to 67 and then the 17 jaw lines, (51 + 17 L) places."""
        vertices, weights = self.points.vertices.copy(), self.points.weights.copy()
        brows = self.brows(sliding, np.zeros(1))
        vertices[17:27], weights[17:27] = brows.vertices[:, 0], brows.weights[:, 0]
        for point, along in sliding.slide.items():
            for side in {point, MIRROR[point]}:
                vertices[side], weights[side] = self.tracks[side].at(along)
        lines = self.jaw(sliding).reshape(JAW * LINE_PLACES)
        return Places(np.concatenate((vertices[JAW:], lines.vertices)), np.concatenate((weights[JAW:], lines.weights)))

    def brows(self, sliding: Sliding, offsets: Floats) -> Places:
        """Find the brow points moved up by each offset: (10, O) places, by rays from behind."""
        spots = np.concatenate((sliding.brow, sliding.brow[::-1] * [-1, 1]))
        origins = np.zeros((BROWS, len(offsets), 3))
        origins[..., 0], origins[..., 1], origins[..., 2] = spots[:, :1], spots[:, 1:] + offsets, -0.3
        directions = np.broadcast_to(np.array([0.0, 0.0, 1.0]), origins.shape)
        found, hit = cast_rays(self.head.mean, self.skin, origins.reshape(-1, 3), directions.reshape(-1, 3), 3.0)
        if not hit.all():
            raise ConfigurationError("a brow point slid off the face; look at the labels of points 17 to 26")
        return found.reshape(BROWS, len(offsets))

    def jaw(self, sliding: Sliding) -> Places:
        """Find the lines of the jaw points: (17, L) places, by rays from the head's axis; a ray into the ear takes the
        next place that is on the skin."""
        mirrored = slice(HALF - 2, None, -1)
        angle = np.radians(np.concatenate((sliding.angle, 540 - sliding.angle[mirrored])))
        bend = np.radians(np.concatenate((sliding.bend, -sliding.bend[mirrored])))
        depth = np.concatenate((sliding.depth, sliding.depth[mirrored]))
        turn = np.linspace(0, LINE_TURN, LINE_PLACES)
        bent = angle[:, None] + bend[:, None] * np.sin(turn)
        start = 0.25 * np.stack((np.cos(angle), np.sin(angle)), 1)
        origins = np.broadcast_to(np.concatenate((start, depth[:, None]), 1)[:, None], (JAW, LINE_PLACES, 3))
        directions = np.stack(
            (np.cos(bent) * np.cos(turn), np.sin(bent) * np.cos(turn), np.broadcast_to(np.sin(turn), bent.shape)), -1
        )
        found, hit = cast_rays(self.head.mean, self.skin, origins.reshape(-1, 3), directions.reshape(-1, 3), 1.6)
        lines, hit = found.reshape(JAW, LINE_PLACES), hit.reshape(JAW, LINE_PLACES)
        for step in range(LINE_PLACES - 2, -1, -1):
            missed = ~hit[:, step]
            lines.vertices[missed, step] = lines.vertices[missed, step + 1]
            lines.weights[missed, step] = lines.weights[missed, step + 1]
        return lines

    def directions(self, sliding: Sliding) -> Floats:
        outward = np.radians(np.concatenate((sliding.outward, 540 - sliding.outward[HALF - 2 :: -1])))
        return np.stack((np.cos(outward), np.sin(outward)), 1)

    def model(self, sliding: Sliding) -> FaceModel:
        """Carry the head's variation to the places."""
        places = self.places(sliding)
        basis, ranges = self.head.coefficients
        spread, low, high = (torch.from_numpy(values.copy()) for values in ranges.T)
        return FaceModel(
            mean=torch.from_numpy(places.positions(self.head.mean)),
            basis=torch.from_numpy(places.positions(basis)),
            directions=torch.from_numpy(self.directions(sliding)),
            precision=spread**-2,
            low=low,
            high=high,
        )

    def placement(self, sliding: Sliding, fitted_on: Mapping[str, Any]) -> Placement:
        """Write the places down in numbers of the full mesh."""
        places, brows = self.places(sliding), self.brows(sliding, BROW_OFFSETS)
        free = POINTS - JAW
        lines = Places(places.vertices[free:], places.weights[free:]).reshape(JAW, LINE_PLACES)
        vertices = np.concatenate((lines.vertices[:, 0], places.vertices[:free]))
        weights = np.concatenate((lines.weights[:, 0], places.weights[:free]))
        full = self.head.full_ids
        return Placement(
            point_vertices=full[vertices],
            point_weights=weights.astype(np.float32),
            jaw_vertices=full[lines.vertices],
            jaw_weights=lines.weights.astype(np.float32),
            jaw_directions=self.directions(sliding).astype(np.float32),
            brow_vertices=full[brows.vertices],
            brow_weights=brows.weights.astype(np.float32),
            brow_offsets=BROW_OFFSETS.astype(np.float32),
            fitted_on=fitted_on,
        )

    def derivatives(self, sliding: Sliding) -> Tensor:
        """Return how the places move with each value of the sliding, (values, P, 3), by central differences.

        Values of one kind belong to different points, so that all of them may be moved at once.
        """
        units, names = sliding.units, sliding.names
        owners = np.concatenate((np.arange(JAW, POINTS), np.repeat(np.arange(JAW), LINE_PLACES)))
        kinds = [(name.split()[0], name.split()[2]) for name in names]
        rows = np.zeros((len(units), len(owners), 3))
        for kind in sorted(set(kinds)):
            step = np.array([unit if other == kind else 0.0 for other, unit in zip(kinds, units, strict=True)])
            ends = [self.places(sliding.moved(sign * step)).positions(self.head.mean) for sign in (1, -1)]
            for row in np.flatnonzero(step):
                point = int(names[row].split()[1])
                mine = np.isin(owners, (point, MIRROR[point]))
                rows[row, mine] = (ends[0] - ends[1])[mine] / (2 * units[row])
        return torch.from_numpy(rows)


def local_vertices(head: HeadShape, full: Ints) -> Ints:
    """Turn numbers of the full mesh into those of the head."""
    numbers = {int(vertex): number for number, vertex in enumerate(head.full_ids)}
    missing = sorted({int(vertex) for vertex in full.ravel()} - numbers.keys())
    if missing:
        raise ConfigurationError(f"the head lacks {len(missing)} vertices of the placement, the first is {missing[0]}")
    local: Ints = np.vectorize(numbers.__getitem__, otypes=[np.int64])(full)
    return local
