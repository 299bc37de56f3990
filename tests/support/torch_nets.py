"""Six networks in PyTorch, four of torchvision, trained for some steps on pictures drawn of ten patterns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn import functional

CLASSES = 10

torch.set_num_threads(1)  # small maps: threads would wait for each other, above all beside other tests


def block(entering: int, leaving: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, SiLU."""
    convolution = nn.Conv2d(entering, leaving, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(leaving), nn.SiLU())


class UNet(nn.Module):
    """Two levels down and up, joined; the mean of its map tells the class."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(block(entering, leaving), block(leaving, leaving))
            for entering, leaving in ((3, width), (width, 2 * width), (2 * width, 4 * width))
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in (2 * width, width))
        self.join = nn.ModuleList(nn.Sequential(block(2 * w, w), block(w, w)) for w in (2 * width, width))
        self.out = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (samples, 3, height, width) -> logits."""
        levels = []
        for down in self.down:
            levels.append(down(x))
            x = functional.max_pool2d(levels[-1], 2)
        x = levels.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([up(x), levels.pop()], 1))
        return self.out(x).mean((2, 3))


class Split(nn.Module):
    """YOLOv8's C2f: half of the channels go through bottlenecks, all that arises is joined."""

    def __init__(self, width: int, bottlenecks: int = 1) -> None:
        super().__init__()
        half = width // 2
        self.cv1, self.cv2 = block(width, width, 1), block((2 + bottlenecks) * half, width, 1)
        self.m = nn.ModuleList(nn.Sequential(block(half, half), block(half, half)) for _ in range(bottlenecks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps of the same shape."""
        parts = list(self.cv1(x).chunk(2, 1))
        for bottleneck in self.m:
            parts.append(parts[-1] + bottleneck(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class Yolo(nn.Module):
    """The backbone and one head of a small YOLO, with pyramid pooling."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = width
        self.model = nn.Sequential(
            block(3, w, 3, 2), block(w, 2 * w, 3, 2), Split(2 * w), block(2 * w, 4 * w, 3, 2), Split(4 * w, 2)
        )
        self.cv1, self.cv2 = block(4 * w, 4 * w, 1), block(16 * w, 4 * w, 1)
        self.head, self.out = block(4 * w, 4 * w), nn.Conv2d(4 * w, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (samples, 3, height, width) -> logits."""
        parts = [self.cv1(self.model(x))]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], 5, 1, 2))
        return self.out(self.head(self.cv2(torch.cat(parts, 1)))).mean((2, 3))


_models = torchvision.models
NETS: Mapping[str, Callable[[], nn.Module]] = {
    "yolo": Yolo,
    "unet": UNet,
    "mobilenet_v2": lambda: _models.mobilenet_v2(num_classes=CLASSES, width_mult=0.35, dropout=0.0),
    # torchvision's own momentum of 0.01 leaves 37 % of the initial values after 100 steps, and eval mode at chance
    "mobilenet_v3": lambda: _models.mobilenet_v3_small(
        num_classes=CLASSES, dropout=0.0, norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1)
    ),
    "resnet18": lambda: _models.resnet18(num_classes=CLASSES),
    "efficientnet": lambda: _models.efficientnet_b0(num_classes=CLASSES, dropout=0.0, stochastic_depth_prob=0.0),
}


def pictures(samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (samples, 3, 32, 32), about -3 to 3, and which of ten patterns each shows, under noise."""
    patterns = _smooth(CLASSES, 6, torch.Generator().manual_seed(7))
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (samples,), generator=draw)
    strength = 0.5 + torch.rand(samples, 1, 1, 1, generator=draw)
    return patterns[labels] * strength + 0.7 * _smooth(samples, 12, draw), labels


def _smooth(samples: int, points: int, draw: torch.Generator) -> torch.Tensor:
    coarse = torch.randn(samples, 3, points, points, generator=draw)
    return functional.interpolate(coarse, size=(32, 32), mode="bicubic")


def trained(model: nn.Module, steps: int, *, training: bool = True, after: Callable[[], Any] = lambda: None) -> None:
    """Adam on batches of 32; `training` False leaves the model in eval mode, `after` is called after each step."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    model.train(training)
    for step in range(steps):
        images, labels = pictures(32, 1000 + step)
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        after()
