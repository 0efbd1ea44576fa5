"""A small convolutional classifier of 8x8 digits."""

from torch import Tensor, nn

__all__ = ["DigitsCNN"]


class DigitsCNN(nn.Module):
    """Three 3x3 convolutions with batch norm and ReLU, two 2x2 max pools, one dense layer; 3,466 parameters.

    Maps float (N, 1, 8, 8) to ten logits (N, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(1, 8),
            nn.MaxPool2d(2),
            *_conv(8, 16),
            nn.MaxPool2d(2),
            *_conv(16, 8),
        )
        self.flatten = nn.Flatten()
        self.classify = nn.Linear(8 * 2 * 2, 10)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.flatten(self.features(image)))
        return logits


def _conv(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()
