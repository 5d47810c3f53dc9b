"""MgNO: the multigrid it contains, shifts, boundary conditions, sizes, published configurations."""

import pytest
import torch

from sciml.nn.boundary import CONDITIONS, Stencil, extended, inside, resized, stretched
from sciml.nn.mgno import PUBLISHED, Cycle, MgNO, Prolongation
from sciml.nn.unet import UNet

SIZES = {"periodic": 32, "dirichlet": 33, "neumann": 33}
BOUNDARIES = [("periodic",) * 2, ("dirichlet",) * 2, ("neumann",) * 2, ("dirichlet", "periodic")]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# -- a layer holds a classical V-cycle -------------------------------------------------------------------------------
def poisson(steps: list[float]) -> torch.Tensor:
    """The 2 dims + 1-point stencil of minus the Laplacian, for steps of the grid along each axis."""
    stencil = torch.zeros((3,) * len(steps), dtype=torch.float64)
    for axis, h in enumerate(steps):
        for i, w in ((0, -1.0), (1, 2.0), (2, -1.0)):
            at = [1] * len(steps)
            at[axis] = i
            stencil[tuple(at)] += w / h**2
    return stencil


def steps_of_levels(shape, boundary, levels: int) -> list[list[float]]:
    """Of the grids of a box whose finest one has h = 1."""
    cells, steps = [[n - (b != "periodic") for n, b in zip(shape, boundary, strict=True)]], []
    for _ in range(levels):
        cells.append([-(-c // 2) for c in cells[-1]])
        steps.append([a / b for a, b in zip(cells[0], cells[-2], strict=True)])
    return steps


def product(line: list[float], dims: int) -> torch.Tensor:
    line = torch.tensor(line, dtype=torch.float64)
    return line if dims == 1 else line[:, None] * line


def classical(levels: int, boundary, shape, aligned: bool = True) -> Cycle:
    """V(2, 2) of damped Jacobi, full weighting and linear interpolation for the Poisson problem with h = 1."""
    dims = len(boundary)
    cycle = Cycle(1, 1, ((2, 2),) * levels, boundary, aligned=aligned).double()
    centre = product([0.0, 1.0, 0.0], dims)
    with torch.no_grad():
        for level, steps in enumerate(steps_of_levels(shape, boundary, levels)):
            here = poisson(steps)
            for smooth in [*cycle.before[level], *cycle.after[level]]:
                smooth.S.conv.weight[0, 0] = 0.8 / here[(1,) * dims] * centre
                if smooth.A is not None:
                    smooth.A.conv.weight[0, 0] = here
            if level < levels - 1:
                cycle.A[level].conv.weight[0, 0] = here
                cycle.restrict[level].conv.weight[0, 0] = product([0.25, 0.5, 0.25], dims)
                cycle.prolong[level].weight[0, 0] = product([0.5, 1.0, 0.5, 0.0], dims)
    return cycle


def contraction(cells: int, levels: int, boundary, aligned: bool = True) -> float:
    """Factor by which the error of a random field falls in each of the last four of twelve cycles."""
    shape = [cells if b == "periodic" else cells + 1 for b in boundary]
    cycle, A = classical(levels, boundary, shape, aligned), Stencil(1, 1, boundary).double()
    with torch.no_grad():
        A.conv.weight[0, 0] = poisson([1.0] * len(boundary))
    true = inside(random(1, 1, *shape), boundary)
    f, u, errors = A(true), torch.zeros(1, 1, *shape, dtype=torch.float64), []
    floating = "dirichlet" not in boundary
    with torch.no_grad():
        for _ in range(12):
            u = u + cycle(inside(f - A(u), boundary))
            e = u - true
            errors.append(float((e - e.mean() * floating).norm()))
    return (errors[-1] / errors[-5]) ** 0.25


@pytest.mark.parametrize("boundary", BOUNDARIES, ids="-".join)
def test_fixed_weights_are_a_v_cycle_whose_contraction_does_not_depend_on_the_size(boundary):
    rates = [contraction(2**k, k, boundary) for k in (4, 5, 6, 7)]
    assert max(rates) < 0.25
    assert max(rates) - min(rates) < 0.05


@pytest.mark.parametrize("boundary", [("periodic",), ("dirichlet",), ("neumann",)], ids="-".join)
def test_the_same_in_one_dimension(boundary):
    assert max(contraction(2**k, k, boundary) for k in (5, 8)) < 0.25


@pytest.mark.parametrize("boundary", BOUNDARIES, ids="-".join)
@pytest.mark.parametrize("cells", [22, 33, 63, 85, 99])
def test_it_does_not_depend_on_powers_of_two(cells, boundary):
    assert contraction(cells, (cells - 1).bit_length(), boundary) < 0.25


@pytest.mark.parametrize("cells", [33, 99])
def test_walls_that_move_from_grid_to_grid_cost_half_of_the_contraction(cells):
    assert contraction(cells, 5, ("dirichlet",) * 2, aligned=False) > 0.4


@pytest.mark.parametrize("n", [11, 13])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_linear_fields_are_stretched_exactly(condition, n):
    """On rings, those of one wave are kept to the accuracy of linear interpolation."""
    ring = condition == "periodic"

    def field(n):
        x = torch.arange(n, dtype=torch.float64) / (n - (not ring))
        return (torch.cos(2 * torch.pi * x) if ring else 3 * x - 1).expand(1, 2, 5, n)

    got = stretched(field(12), (5, n), ("dirichlet", condition))
    torch.testing.assert_close(got, field(n), rtol=0, atol=(torch.pi / 12) ** 2 / 2 if ring else 1e-12)
    turned = stretched(field(12).mT, (n, 5), (condition, "dirichlet"))
    torch.testing.assert_close(turned, got.mT)
    line = stretched(field(12)[:, :, 0], (n,), (condition,))
    torch.testing.assert_close(line, got[:, :, 0])


def test_a_cycle_is_linear():
    cycle = Cycle(2, 3, ((1, 1), (2, 0)), ("periodic", "neumann")).double()
    f, g = random(1, 2, 12, 9), random(1, 2, 12, 9, seed=1)
    torch.testing.assert_close(cycle(2 * f - g), 2 * cycle(f) - cycle(g))


# -- shifts and boundaries -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"residual": False, "skip": False, "modes": -1}, {"bias": True}])
def test_shifts_by_cells_of_the_coarsest_grid(options):
    net = MgNO(2, 1, width=4, layers=2, smoothings=((1, 1),) * 3, boundary=("dirichlet", "periodic"), **options)
    net, f = net.double(), random(2, 2, 17, 32)
    torch.testing.assert_close(net(f.roll(4, -1)), net(f).roll(4, -1), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(net(f.roll(4, -2)), net(f).roll(4, -2))


def test_outputs_vanish_on_dirichlet_walls_and_only_there():
    net = MgNO(1, 2, width=4, layers=2, smoothings=((1, 1),) * 3, boundary=("dirichlet", "periodic")).double()
    u = net(random(1, 1, 20, 15))
    assert (u[:, :, [0, -1]] == 0).all()
    assert (u[:, :, 1:-1] != 0).all()


def test_neumann_is_the_even_extension_of_symmetric_stencils():
    """A periodic cycle on the field and its mirror image: even stencils keep it even."""
    walls = Cycle(1, 2, ((1, 1), (1, 0)), ("neumann",)).double()
    ring = Cycle(1, 2, ((1, 1), (1, 0)), ("periodic",)).double()
    with torch.no_grad():
        for name, p in walls.named_parameters():
            if name.startswith("prolong"):
                p[..., 0], p[..., 3] = p[..., 2].clone(), 0.0
            else:
                p[..., 0] = p[..., 2].clone()
    ring.load_state_dict(walls.state_dict())
    f = random(1, 1, 17)
    even = torch.cat([f, f[..., 1:-1].flip(-1)], -1)
    torch.testing.assert_close(walls(f), ring(even)[..., :17])


def test_a_shift_of_the_grid_changes_nothing_but_the_bias_functions():
    """Without bias functions a network does not know where it is between far walls, and with them it does."""
    f = torch.zeros(1, 1, 65, dtype=torch.float64)
    f[..., 20:24] = 1.0
    for modes, same in ((0, True), (3, False)):
        net = MgNO(1, 1, width=3, layers=1, smoothings=((1, 0), (1, 0)), boundary=("neumann",), modes=modes).double()
        torch.nn.init.ones_(net.layers[0].bias.weight)
        a, b = net(f)[..., 10:34], net(f.roll(8, -1))[..., 18:42]
        assert torch.allclose(a, b, atol=1e-12) is same


@pytest.mark.parametrize("name", CONDITIONS)
def test_one_more_point_at_both_ends(name):
    x = torch.arange(1.0, 6.0)
    ends = {"periodic": (5.0, 1.0), "dirichlet": (0.0, 0.0), "neumann": (2.0, 4.0)}[name]
    assert CONDITIONS[name](x).tolist() == [ends[0], 1, 2, 3, 4, 5, ends[1]]


def test_axes_have_their_own_conditions():
    x = random(1, 1, 4, 5)
    both = extended(x, ("neumann", "periodic"))
    assert both.shape == (1, 1, 6, 7)
    assert torch.equal(both[0, 0, 0, 1:-1], x[0, 0, 1])
    assert torch.equal(both[0, 0, 1:-1, 0], x[0, 0, :, -1])


@pytest.mark.parametrize("shape", [(32, 32), (9, 11)])
def test_waves_that_both_grids_have_are_kept(shape):
    def field(ny, nx):
        y, x = (torch.arange(n, dtype=torch.float64) * (2 * torch.pi / n) for n in (ny, nx))
        return (torch.sin(2 * x) * torch.cos(3 * y)[:, None] + 0.3)[None, None]

    torch.testing.assert_close(resized(field(16, 16), shape, ("periodic",) * 2), field(*shape))


def test_axes_are_resized_by_their_own_conditions():
    """A channel: walls in y, waves in x."""

    def field(ny, nx):
        y, x = torch.linspace(0, 1, ny).double(), torch.arange(nx, dtype=torch.float64) * (2 * torch.pi / nx)
        return (torch.sin(2 * x) * y[:, None])[None, None]

    fine = resized(field(9, 16), (17, 24), ("dirichlet", "periodic"))
    torch.testing.assert_close(fine[..., ::2, :], field(9, 24))
    torch.testing.assert_close(resized(field(9, 16).mT, (24, 17), ("periodic", "neumann")), fine.mT)


def test_points_that_both_grids_have_keep_their_values_between_walls():
    f = random(2, 1, 9, 9)
    fine = resized(f, (17, 17), ("dirichlet",) * 2)
    torch.testing.assert_close(fine[..., ::2, ::2], f)
    torch.testing.assert_close(resized(fine, (9, 9), ("neumann",) * 2), f)
    assert resized(f, (9, 9), ("dirichlet",) * 2) is f


# -- sizes and configurations ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(16, 16), (17, 23), (19, 16), (50, 33)])
@pytest.mark.parametrize("boundary", BOUNDARIES, ids="-".join)
def test_any_size(shape, boundary):
    for net in (MgNO(2, 1, width=8, layers=2, boundary=boundary), UNet(2, 1, widths=(8, 16, 16), boundary=boundary)):
        assert net(random(1, 2, *shape, dtype=torch.float32)).shape == (1, 1, *shape)


@pytest.mark.parametrize("wide", [3, 4])
@pytest.mark.parametrize("n", [6, 7])
def test_prolongation_interpolates_linearly(wide, n):
    up = Prolongation(1, 1, ("neumann",), wide).double()
    with torch.no_grad():
        up.weight[0, 0] = torch.tensor([0.5, 1.0, 0.5, 0.0][:wide])
    coarse = torch.arange(0.0, n, 2.0, dtype=torch.float64)[None, None]
    inner = up(coarse, (n,))[0, 0]
    assert inner[: 2 * coarse.shape[-1] - 1].tolist() == list(range(2 * coarse.shape[-1] - 1))


@pytest.mark.parametrize(("name", "weights"), [
    ("darcy_smooth", 678_093), ("darcy_rough", 572_661), ("multiscale", 572_661), ("pipe", 783_876),
    ("navier_stokes", 2_885_194),
])  # fmt: skip
def test_published_configurations_have_the_published_number_of_weights(name, weights):
    assert sum(p.numel() for p in MgNO(**PUBLISHED[name]).parameters()) == weights


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_run(name):
    net = MgNO(**PUBLISHED[name])
    assert net(random(1, net.config.inputs, 64, 64, dtype=torch.float32)).shape == (1, 1, 64, 64)


def test_a_configuration_makes_the_network_again():
    net = MgNO(2, 2, width=8, layers=2, smoothings=((1, 1), (2, 0)), boundary=("dirichlet", "neumann"))
    again = MgNO(**net.about())
    again.load_state_dict(net.state_dict())
    f = random(1, 2, 8, 8, dtype=torch.float32)
    assert torch.equal(net(f), again(f))
    assert UNet(**UNet(2, 1, widths=(8, 16)).about()).config.widths == (8, 16)


@pytest.mark.parametrize(("options", "message"), [
    ({"boundary": ("open", "periodic")}, "one or two of periodic, dirichlet, neumann"),
    ({"smoothings": ((0, 1),)}, "one smoothing before"),
    ({"up": (3, 4)}, "for each pair of levels"),
    ({"layers": 0}, "at least 1"),
    ({"width": 8.5}, r"width must be a whole number, got 8\.5"),
    ({"smoothings": (1, 1, 1)}, "pairs for each level"),
    ({"inputs": 1, "outputs": 2, "add": True}, "2 outputs cannot add to 1"),
])  # fmt: skip
def test_refused_configurations(options, message):
    with pytest.raises(ValueError, match=message):
        MgNO(**options)


def test_refused_fields():
    net = MgNO(2, 1, width=8, layers=1)
    with pytest.raises(ValueError, match="2 channels, 2 axes"):
        net(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="16 points along each axis"):
        net(torch.zeros(1, 2, 32, 12))
    with pytest.raises(ValueError, match="2 channels, 2 axes"):
        UNet(2, 1, widths=(8,))(torch.zeros(1, 1, 8, 8))
