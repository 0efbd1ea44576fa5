"""One of several processes that train a prepared network together: `torchrun tests/distributed_worker.py FOLDER`."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import bitfab as bf
from bitfab import zoo
from bitfab.data import digits


def main(folder: Path) -> None:
    """Each rank starts from weights of its own, sees its half of the data, and saves the graph that it ends with."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    data = digits.load()
    dataset = TensorDataset(torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels))
    net = zoo.load("digits")
    if rank:
        nn.init.normal_(net.classify.weight)  # DistributedDataParallel must bring all to the first rank's state
    prepared = bf.prepare(net, [dataset.tensors[0][:128]], bf.Recipe(weights=3, activations=3, observer="mse"))
    sampler: DistributedSampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, 64, sampler=sampler)
    trained = bf.train(DistributedDataParallel(prepared), loader, nn.CrossEntropyLoss(), epochs=4, learning_rate=3e-3)
    bf.save(bf.lower(trained, "together"), folder / f"{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
