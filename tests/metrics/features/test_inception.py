"""Inception's features: the network of FID, what it sees, and where its weights come from."""

import copy
import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from twostep.core.schema import UserError
from twostep.metrics.features import inception as features
from twostep.metrics.features.inception import FILE, PUBLISHED, inception, normalise
from twostep.metrics.features.inception_network import Block, network

SIDE = 107  # pixels of an image of which the last block has four places


@pytest.fixture(scope="module")
def state():
    """Give weights that take little room: one value in all places of a tensor."""
    return {name: torch.full((), 0.01).expand(tensor.shape) for name, tensor in network().state_dict().items()}


# ---- the network


def test_the_tensors_are_those_of_the_fields_file():
    """94 convolutions with five tensors of a batch norm each, and a last layer of 1,008 labels: 95 MB."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network().state_dict().items()}
    assert len(shapes) == 94 * 6 + 2
    assert sum(name.endswith("conv.weight") for name in shapes) == 94
    assert not any(name.endswith("conv.bias") for name in shapes)
    assert shapes["fc.weight"] == (1008, 2048)
    known = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5d.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
        "Mixed_6e.branch7x7_2.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
    }
    assert {name: shapes[name] for name in known} == known


def test_sides_and_channels_are_those_of_the_paper():
    x, seen = torch.empty(2, 3, 299, 299, device="meta"), {}
    for name, layer in network().named_children():
        x = layer(x)
        seen[name] = tuple(x.shape[1:])
    assert seen["MaxPool_2"] == (192, 35, 35)
    assert (seen["Mixed_5b"], seen["Mixed_5d"]) == ((256, 35, 35), (288, 35, 35))
    assert (seen["Mixed_6a"], seen["Mixed_6e"]) == ((768, 17, 17), (768, 17, 17))
    assert (seen["Mixed_7a"], seen["Mixed_7c"]) == ((1280, 8, 8), (2048, 8, 8))
    assert (seen["flatten"], seen["fc"]) == ((2048,), (1008,))


def test_padding_is_not_counted_by_means_and_the_last_block_pools_by_the_maximum():
    blocks = {name: layer for name, layer in network().named_children() if isinstance(layer, Block)}
    ones = torch.ones(1, 1, 5, 5)
    keeping = [name for name, block in blocks.items() if not isinstance(block.branch_pool, nn.Identity)]
    assert [name for name in blocks if name not in keeping] == ["Mixed_6a", "Mixed_7a"]
    for name in keeping:
        torch.testing.assert_close(blocks[name].pool(ones), ones)
        spike = torch.zeros(1, 1, 5, 5)
        spike[0, 0, 2, 2] = 1
        assert float(blocks[name].pool(spike).max()) == pytest.approx(1 if name == "Mixed_7c" else 1 / 9)
    assert float(avg_pool2d(ones, 3, 1, 1).min()) == pytest.approx(4 / 9), "as torchvision has it"


def test_branches_are_joined_in_the_order_of_the_file():
    """Each convolution gives a number of its own."""
    block = Block(1, {"first": [(1, 1)], "second": [(1, 1), (1, (1, 3), (3, 1))]}, nn.AvgPool2d(3, 1, 1), 1)
    names = ("first", "second_1", "second_2a", "second_2b", "branch_pool")
    for number, name in enumerate(names):
        block.get_submodule(name).conv.weight.data.zero_()
        block.get_submodule(name).bn.bias.data.fill_(number)
    assert block.eval()(torch.ones(1, 1, 3, 3))[0, :, 1, 1].tolist() == [0, 2, 3, 4]


# ---- what it sees


@pytest.mark.parametrize("n", [1, 7, 28, 299, 400])
def test_a_ramp_is_stretched_from_its_first_pixel_and_the_last_one_is_repeated(n):
    """An image with value y + 3 x has that of the place (i n / 299, j n / 299), at most that of the last pixel."""
    ramp = torch.arange(float(n))[:, None] + 3 * torch.arange(float(n))
    place = (torch.arange(299) * n / 299).clamp(max=n - 1)
    expected = place[:, None] + 3 * place
    found = features._resize(features._resize(ramp[None, None], 3), 2)[0, 0]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-6)
    half_pixels = interpolate(ramp[None, None], size=(299, 299), mode="bilinear", align_corners=False)[0, 0]
    assert n in (1, 299) or float((half_pixels - expected).abs().max()) > 0.4, "torch's own would be seen"


def test_images_are_rounded_and_kept_within_their_range_as_if_they_came_from_files():
    values = torch.tensor([-0.3, 0.0, 0.49 / 255, 0.51 / 255, 127.6 / 255, 1.0, 1.7])
    seen = normalise(values.view(-1, 1, 1, 1), 0, 1)
    assert seen.shape == (7, 3, 299, 299)
    assert (seen[:, 0, 0, 0] * 128 + 128).tolist() == [0, 0, 0, 1, 128, 255, 255]
    assert torch.equal(seen, seen[:, :1, :1, :1].expand_as(seen)), "grey is repeated, and one pixel fills the image"
    colours = torch.randint(0, 256, (2, 3, 9, 12), dtype=torch.uint8)
    assert torch.equal(normalise(colours, 0, 255), normalise(colours / 255 * 2 - 1, -1, 1))


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """Give a file of weights that no generator draws: sines of an arithmetic sequence, another one for each length."""

    def values(name, tensor):
        wave = torch.arange(tensor.numel(), dtype=torch.float64).mul(0.7 + len(name)).sin().float().view(tensor.shape)
        if tensor.ndim == 4:
            return wave * 2 / tensor[0].numel() ** 0.5
        return 1 + wave / 2 if name.endswith(("bn.weight", "running_var")) else wave / 5

    path = tmp_path_factory.mktemp("waves") / "waves.pth"
    torch.save({name: values(name, tensor) for name, tensor in network().state_dict().items()}, path)
    return path


PICTURES = (torch.arange(2 * 3 * 20 * 24) * 37 % 251).to(torch.uint8).view(2, 3, 20, 24)
THEIRS = [0.06452627, 0.19804591, 0.12442394, 0.16276851, 0.15069383, 0.00000000, 0.20480050]
"""Every 300th feature from the 63rd on of the first image, by torch-fidelity 0.4.0 with sides of 107 pixels."""


def test_features_are_those_of_torch_fidelity(waves, monkeypatch):
    monkeypatch.setattr(features, "SIDE", SIDE)
    found = inception(0, 255, waves)(PICTURES)
    assert found.shape == (2, 2048)
    torch.testing.assert_close(found[0, 63::300], torch.tensor(THEIRS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", ["Mixed_5b", "Mixed_6c", "Mixed_7b", "Mixed_7c"])
def test_one_pool_of_another_kind_would_be_seen(waves, monkeypatch, block):
    monkeypatch.setattr(features, "SIDE", SIDE)
    net = copy.deepcopy(features.load(waves)[0])
    net.get_submodule(block).pool = nn.AvgPool2d(3, 1, 1, count_include_pad=block != "Mixed_7c")
    with torch.no_grad():
        found = net(normalise(PICTURES, 0, 255))[0, 63::300]
    assert float((found - torch.tensor(THEIRS)).abs().max()) > 1e-4


def test_features_are_means_over_places_however_many_pass_at_once(waves, monkeypatch):
    monkeypatch.setattr(features, "SIDE", SIDE)
    monkeypatch.setattr(features, "BLOCK", 2)
    three = torch.cat([PICTURES, PICTURES.flip(0)])[:3]
    found = inception(0, 255, waves)(three)
    net, _ = features.load(waves)
    with torch.no_grad():
        places = net[: list(dict(net.named_children())).index("AvgPool")](normalise(three[2:], 0, 255))
    torch.testing.assert_close(found[2], places.mean((2, 3))[0], rtol=1e-4, atol=1e-6)
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in net.parameters())


# ---- its weights


def test_any_file_of_these_tensors_will_do_and_its_digest_is_that_of_the_extractor(tmp_path, state):
    torch.save(state, tmp_path / FILE)
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "new.safetensors")
    without = {name: tensor for name, tensor in state.items() if "tracked" not in name}
    torch.save(without, tmp_path / "without.pth")
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.pth")
    digests = set()
    for path in sorted(tmp_path.iterdir()):
        extractor = inception(0, 255, path)
        file = hashlib.sha256(path.read_bytes()).hexdigest()
        assert extractor.preprocessing.startswith(f"weights {file[:8]}, not those of published FIDs; ")
        assert extractor.digest != inception(0, 1, path).digest
        digests.add(extractor.digest)
        net, _ = features.load(path)
        assert {one.dtype for one in net.parameters()} == {torch.float32}
    assert len(digests) == 5


def test_the_published_file_is_recognised_by_its_content(tmp_path, state, monkeypatch):
    assert PUBLISHED[:8] in FILE
    torch.save(state, tmp_path / "weights.pth")
    digest = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(features, "PUBLISHED", digest)
    found = inception(0, 255, tmp_path / "weights.pth").preprocessing
    assert found.startswith(f"weights {digest[:8]}, those of published FIDs; ")


def test_a_file_that_changes_is_read_again(tmp_path, state):
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    first = inception(0, 1, path).digest
    torch.save({**state, "fc.bias": torch.ones(1008)}, path)
    assert inception(0, 1, path).digest != first


def test_what_is_no_file_of_these_weights_is_refused_in_one_line(tmp_path, state):
    def written(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        return path

    whole = written("whole.pth", state).read_bytes()
    others = {name: tensor for name, tensor in state.items() if not name.startswith("Mixed_7c.branch_pool")}
    thousand = {**state, "fc.weight": torch.zeros(1000, 2048)}
    auxiliary = {**state, "AuxLogits.fc.bias": torch.zeros(9)}
    for path, says in (
        (tmp_path / "none.pth", "no such file; .*pt_inception-2015-12-05-6726825d.pth"),
        (tmp_path, "no such file"),
        (written("empty.pth", b""), r"damaged.* \(0 bytes; EOFError\)"),
        (written("half.pth", whole[: len(whole) // 2]), "damaged"),
        (written("text.pth", b"<html>not found</html>"), "damaged"),
        (written("half.safetensors", whole[:1000]), "damaged"),
        (written("code.pth", {"fc": print}), "damaged"),
        (written("list.pth", [1, 2]), "no state dict"),
        (written("numbers.pth", {"fc.weight": 3}), "no state dict"),
        (
            written("others.pth", others),
            "another network: Mixed_7c.branch_pool.conv.weight is missing",
        ),
        (written("thousand.pth", thousand), r"another network: fc.weight is \(1000, 2048\), not \(1008, 2048\)"),
        (written("auxiliary.pth", auxiliary), r"another network: AuxLogits.fc.bias is \(9,\), not missing"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            inception(0, 255, path)
        assert str(caught.value).startswith(f"inception: {path}")
        assert "\n" not in str(caught.value)
